//! Matrix products: linear layers and attention.

use std::ops::Range;

use super::{Activation, RowTable, check, convert};
use crate::{DType, Result, Shape, Tensor, Weight};

/// `x W^T + bias`, then the epilogue.
#[derive(Clone, Debug)]
pub struct Linear<'a> {
    /// Inputs `[rows, n_in]`, f32 or bf16. Their type chooses the arithmetic: bf16 operands are multiplied as bf16
    /// and summed in f32. A weight of bytes takes them rounded to bytes, whatever their type.
    pub x: &'a Tensor,
    /// The matrix `[n_out, n_in]`.
    pub weight: &'a Weight,
    /// A vector of `n_out`.
    pub bias: Option<&'a Tensor>,
    /// Products that are added to this one, in order.
    pub terms: &'a [Term<'a>],
    /// What happens to the sum.
    pub epilogue: Epilogue<'a>,
}

/// A further product `x W^T` in the sum of a linear layer: the last part of a path around its weight.
///
/// The outputs are equal groups of columns that follow each other, which have the same weight and inputs of their own: row
/// `r * groups + g` of `x` is what group `g` of the layer's row `r` sees. A low-rank path has one group.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// `[rows * groups, k]`, of the type of the layer's input.
    pub x: &'a Tensor,
    /// `[n_out / groups, k]`
    pub weight: &'a Weight,
    /// Groups of outputs.
    pub groups: usize,
}

/// What a matrix product does with its sum before it stores it.
#[derive(Clone, Debug)]
pub enum Epilogue<'a> {
    /// Applies a function.
    Store(Activation),
    /// Adds it, times a gate if there is one, to what the output holds.
    AddTo(Option<&'a RowTable>),
    /// Multiplies what the output holds by it.
    MulTo,
}

/// A linear layer: `activation(x W^T + bias)`.
///
/// # Shapes
/// `x [rows, n_in]`, `weight [n_out, n_in]`, `bias [n_out]`, result `[rows, n_out]`.
///
/// # Errors
/// Shapes that do not fit, types that are not activations, no memory.
pub fn linear(
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    activation: Activation,
    out: DType,
) -> Result<Tensor> {
    linear_with(x, weight, bias, &[], activation, out)
}

/// A linear layer with further products: `activation(x W^T + terms + bias)`.
///
/// # Shapes
/// As [`linear`] and [`Term`].
///
/// # Errors
/// As [`linear`].
pub fn linear_with(
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    terms: &[Term<'_>],
    activation: Activation,
    out: DType,
) -> Result<Tensor> {
    let args = Linear { x, weight, bias, terms, epilogue: Epilogue::Store(activation) };
    check_linear(&args)?;
    check::out_dtype("linear", out)?;
    let mut result = Tensor::empty(x.device(), out, Shape::matrix(x.rows(), weight.n_out()))?;
    x.device().backend().linear(&args, &mut result)?;
    Ok(result)
}

/// A linear layer added to a residual: `residual + gate * (x W^T + bias)`, in place where `residual` is not shared.
///
/// # Shapes
/// As [`linear`]; `residual [rows, n_out]` f32, `gate` one vector of `n_out` a row.
///
/// # Errors
/// Shapes that do not fit, types that are not activations, no memory.
pub fn linear_add(
    residual: Tensor,
    gate: Option<&RowTable>,
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    linear_add_with(residual, gate, x, weight, bias, &[])
}

/// The same with further products: `residual + gate * (x W^T + terms + bias)`.
///
/// # Shapes
/// As [`linear_add`] and [`Term`].
///
/// # Errors
/// As [`linear_add`].
pub fn linear_add_with(
    residual: Tensor,
    gate: Option<&RowTable>,
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    terms: &[Term<'_>],
) -> Result<Tensor> {
    let args = Linear { x, weight, bias, terms, epilogue: Epilogue::AddTo(gate) };
    linear_onto("linear_add", "residual", residual, &args)
}

/// A linear layer that multiplies: `factor * (x W^T + terms + bias)`, in place where `factor` is not shared.
///
/// # Shapes
/// As [`linear`] and [`Term`]; `factor [rows, n_out]`.
///
/// # Errors
/// As [`linear`].
pub fn linear_mul_with(
    factor: Tensor,
    x: &Tensor,
    weight: &Weight,
    bias: Option<&Tensor>,
    terms: &[Term<'_>],
) -> Result<Tensor> {
    let args = Linear { x, weight, bias, terms, epilogue: Epilogue::MulTo };
    linear_onto("linear_mul", "factor", factor, &args)
}

/// A linear layer whose epilogue reads what is there.
fn linear_onto(op: &'static str, what: &'static str, held: Tensor, args: &Linear<'_>) -> Result<Tensor> {
    check_linear(args)?;
    check::out_dtype(op, held.dtype())?;
    let (rows, n_out) = (args.x.rows(), args.weight.n_out());
    if held.rows() != rows || held.cols() != n_out {
        return check::shape(op, what, &held, format!("[{rows}, {n_out}]"));
    }
    if let Epilogue::AddTo(Some(gate)) = args.epilogue {
        check::row_table(op, "gate", gate, &held)?;
    }
    let mut out = own(held)?;
    args.x.device().backend().linear(args, &mut out)?;
    Ok(out)
}

/// The tensor itself if nothing shares it, else a copy that may be written.
pub(super) fn own(mut t: Tensor) -> Result<Tensor> {
    if t.is_unique() { Ok(t) } else { convert(&t, t.dtype()) }
}

fn check_linear(args: &Linear<'_>) -> Result<()> {
    const OP: &str = "linear";
    check::activation(OP, "x", args.x)?;
    // The parts of a weight of bytes were checked when it was made.
    if !matches!(args.weight, Weight::Int8(_)) {
        check::weight(OP, args.weight)?;
    }
    check::cols(OP, "x", args.x, args.weight.n_in())?;
    for Term { x, weight, groups } in args.terms {
        check::weight(OP, weight)?;
        check::cols(OP, "a term's x", x, weight.n_in())?;
        if Some(x.rows()) != args.x.rows().checked_mul(*groups) || x.dtype() != args.x.dtype() {
            let rows = format!("{groups} times {} rows, the layer's type", args.x.rows());
            return check::shape(OP, "a term's x", x, rows);
        }
        let n_out = weight.n_out().checked_mul(*groups);
        if n_out != Some(args.weight.n_out()) || matches!(weight, Weight::Int8(_)) {
            return check::shape(OP, "a term's x", x, format!("a weight of {} outputs", args.weight.n_out()));
        }
    }
    args.bias.map_or(Ok(()), |bias| check::vector(OP, "bias", bias, args.weight.n_out()))
}

/// Queries, keys and values of one stream: rows are tokens, columns heads side by side.
#[derive(Clone, Copy, Debug)]
pub struct Qkv<'a> {
    /// `[rows, n_heads * head_dim]`
    pub q: &'a Tensor,
    /// `[rows, n_kv_heads * head_dim]`
    pub k: &'a Tensor,
    /// `[rows, n_kv_heads * head_dim]`
    pub v: &'a Tensor,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of its sequence.
    Full,
    /// Those at its own position and before.
    Causal,
}

/// Softmax attention over sequences that are pieced together from streams, without copying them together.
///
/// A stream is a matrix of tokens (text, image). Sequence `i` is the rows `sequences[i][0]` of stream 0, then the
/// rows `sequences[i][1]` of stream 1, and so on; queries of a sequence see keys of that sequence only. So a batch
/// of prompts of different lengths needs no padding and no mask.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The streams.
    pub streams: &'a [Qkv<'a>],
    /// For each sequence, its rows in each stream.
    pub sequences: &'a [Vec<Range<usize>>],
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; a divisor of `n_heads`.
    pub n_kv_heads: usize,
    /// Factor on the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Which keys a query sees, by position in the sequence.
    pub mask: Mask,
}

impl Attention<'_> {
    /// Rows of a stream that two sequences claim. Devices write the results of all sequences at once.
    pub(crate) fn shared_rows(&self) -> Option<(Range<usize>, Range<usize>)> {
        (0..self.streams.len()).find_map(|stream| {
            let mut rows: Vec<_> =
                self.sequences.iter().map(|s| s[stream].clone()).filter(|r| !r.is_empty()).collect();
            rows.sort_unstable_by_key(|r| r.start);
            rows.windows(2).find(|w| w[1].start < w[0].end).map(|w| (w[0].clone(), w[1].clone()))
        })
    }
}

/// Softmax attention; one result `[rows, n_heads * head_dim]` a stream. Never holds a score matrix of all tokens.
/// Rows that belong to no sequence are left undefined.
///
/// # Errors
/// Shapes that do not fit, ranges outside of the streams, no memory.
pub fn attention(args: &Attention<'_>, out: DType) -> Result<Vec<Tensor>> {
    const OP: &str = "attention";
    check::out_dtype(OP, out)?;
    let Some(first) = args.streams.first() else {
        return check::range(OP, "streams", "one or more".into(), 0);
    };
    let width = first.q.cols();
    if args.n_heads == 0 || !width.is_multiple_of(args.n_heads) {
        return check::range(OP, "n_heads", format!("a divisor of {width}"), args.n_heads);
    }
    if args.n_kv_heads == 0 || !args.n_heads.is_multiple_of(args.n_kv_heads) {
        return check::range(OP, "n_kv_heads", format!("a divisor of {}", args.n_heads), args.n_kv_heads);
    }
    let kv_width = width / args.n_heads * args.n_kv_heads;
    for s in args.streams {
        for (what, t, cols) in [("q", s.q, width), ("k", s.k, kv_width), ("v", s.v, kv_width)] {
            check::activation(OP, what, t)?;
            check::cols(OP, what, t, cols)?;
            if t.rows() != s.q.rows() {
                return check::shape(OP, what, t, format!("{} rows", s.q.rows()));
            }
            if t.dtype() != first.q.dtype() {
                return Err(crate::Error::DType {
                    op: OP,
                    what,
                    expected: "the same type for all",
                    got: t.dtype(),
                });
            }
        }
    }
    for sequence in args.sequences {
        let fits = sequence.len() == args.streams.len()
            && sequence.iter().zip(args.streams).all(|(r, s)| r.start <= r.end && r.end <= s.q.rows());
        if !fits {
            return check::range(OP, "sequences", "rows of every stream".into(), format!("{sequence:?}"));
        }
    }
    if let Some(rows) = args.shared_rows() {
        return check::range(OP, "sequences", "rows that belong to one sequence".into(), format!("{rows:?}"));
    }
    let device = first.q.device();
    let mut results = Vec::with_capacity(args.streams.len());
    for s in args.streams {
        results.push(Tensor::empty(device, out, Shape::matrix(s.q.rows(), width))?);
    }
    device.backend().attention(args, &mut results)?;
    Ok(results)
}
