//! Operations on the rows of a matrix: norms, rotations, mixtures, look-ups.

use super::{RowTable, check};
use crate::{DType, Result, Shape, Tensor, Weight};

/// Layer norm without learned weights, then `* (1 + scale) + shift`.
#[derive(Clone, Debug)]
pub struct LayerNorm<'a> {
    /// `[rows, cols]`
    pub x: &'a Tensor,
    /// Added to the variance.
    pub eps: f32,
    /// One vector a row.
    pub scale: &'a RowTable,
    /// One vector a row.
    pub shift: &'a RowTable,
}

/// `(x - mean) / sqrt(variance + eps) * (1 + scale) + shift`, row by row.
///
/// # Errors
/// Shapes that do not fit, no memory.
pub fn layer_norm(x: &Tensor, eps: f32, scale: &RowTable, shift: &RowTable, out: DType) -> Result<Tensor> {
    const OP: &str = "layer_norm";
    check::activation(OP, "x", x)?;
    check::out_dtype(OP, out)?;
    check::row_table(OP, "scale", scale, x)?;
    check::row_table(OP, "shift", shift, x)?;
    let mut result = Tensor::empty(x.device(), out, *x.shape())?;
    x.device().backend().layer_norm(&LayerNorm { x, eps, scale, shift }, &mut result)?;
    Ok(result)
}

/// Root-mean-square norm with a learned weight.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// `[rows, cols]`
    pub x: &'a Tensor,
    /// `[cols]`
    pub weight: &'a Tensor,
    /// Added to the mean square.
    pub eps: f32,
}

/// `x / sqrt(mean(x^2) + eps) * weight`, row by row.
///
/// # Errors
/// Shapes that do not fit, no memory.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32, out: DType) -> Result<Tensor> {
    const OP: &str = "rms_norm";
    check::activation(OP, "x", x)?;
    check::out_dtype(OP, out)?;
    check::vector(OP, "weight", weight, x.cols())?;
    let mut result = Tensor::empty(x.device(), out, *x.shape())?;
    x.device().backend().rms_norm(&RmsNorm { x, weight, eps }, &mut result)?;
    Ok(result)
}

/// How the two halves of a rotated pair lie in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// Pairs are neighbours: (0, 1), (2, 3), ... (Qwen-Image, FLUX.2)
    Interleaved,
    /// Pairs are half a head apart: (0, d/2), (1, d/2 + 1), ... (Qwen2.5, Qwen3)
    Halves,
}

/// Rotary position embedding: an angle for each row and each pair of a head.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Cosines, f32 `[rows, head_dim / 2]`.
    pub cos: Tensor,
    /// Sines, f32 `[rows, head_dim / 2]`.
    pub sin: Tensor,
    /// Which elements are a pair.
    pub layout: RopeLayout,
}

/// RMS norm of each head (if there is a weight), then a rotation of its pairs.
#[derive(Clone, Copy, Debug)]
pub struct RopeNorm<'a> {
    /// `[rows, n_heads * head_dim]`
    pub x: &'a Tensor,
    /// Elements of a head.
    pub head_dim: usize,
    /// Weight `[head_dim]` and epsilon of the norm.
    pub norm: Option<(&'a Tensor, f32)>,
    /// The rotation.
    pub rope: &'a Rope,
}

/// Normalises each head (where `norm` gives a weight and an epsilon) and rotates its pairs. The rotation tables may
/// have fewer rows than `x`; row `r` then uses table row `r % table rows`, so a batch shares one table.
///
/// # Errors
/// Shapes that do not fit, no memory.
pub fn rope_norm(x: &Tensor, norm: Option<(&Tensor, f32)>, rope: &Rope, out: DType) -> Result<Tensor> {
    const OP: &str = "rope_norm";
    check::activation(OP, "x", x)?;
    check::out_dtype(OP, out)?;
    let head_dim = 2 * rope.cos.cols();
    if head_dim == 0 || !x.cols().is_multiple_of(head_dim) {
        return check::shape(OP, "x", x, format!("a multiple of {head_dim} columns"));
    }
    check::same_matrix(OP, "sin", &rope.sin, &rope.cos)?;
    for table in [&rope.cos, &rope.sin] {
        if table.dtype() != DType::F32 {
            return Err(crate::Error::DType { op: OP, what: "rope", expected: "f32", got: table.dtype() });
        }
    }
    if x.rows() > 0 && (rope.cos.rows() == 0 || !x.rows().is_multiple_of(rope.cos.rows())) {
        return check::shape(OP, "x", x, format!("a multiple of {} rows", rope.cos.rows()));
    }
    if let Some((weight, _)) = norm {
        check::vector(OP, "norm", weight, head_dim)?;
    }
    let mut result = Tensor::empty(x.device(), out, *x.shape())?;
    x.device().backend().rope_norm(&RopeNorm { x, head_dim, norm, rope }, &mut result)?;
    Ok(result)
}

/// Sums of groups of columns.
#[derive(Clone, Copy, Debug)]
pub struct Mix<'a> {
    /// `[rows, groups * width]`, or `[rows * groups, width]`.
    pub x: &'a Tensor,
    /// Columns of a group.
    pub width: usize,
    /// A row a sum, a column a group, of any float type.
    pub weight: &'a Tensor,
    /// On every sum.
    pub factor: f32,
}

/// Sums of groups of columns, each with weights of its own: group `i` of a row becomes
/// `factor * sum over g of weight[i, g] * group g`. With `width` columns a group, `x` has the groups of a row side by side, or one
/// below the other; those of the result lie one below the other.
///
/// # Shapes
/// `weight [n, groups]`, `x [rows, groups * width]` or `[rows * groups, width]`, result `[rows * n, width]`.
///
/// # Errors
/// Shapes that do not fit, no memory.
pub fn mix(x: &Tensor, width: usize, weight: &Tensor, factor: f32, out: DType) -> Result<Tensor> {
    const OP: &str = "mix";
    check::activation(OP, "x", x)?;
    check::float(OP, "weight", weight)?;
    check::out_dtype(OP, out)?;
    let groups = weight.cols();
    let side_by_side = groups.checked_mul(width) == Some(x.cols());
    let fits = side_by_side || x.cols() == width && x.rows().is_multiple_of(groups);
    if groups == 0 || !fits {
        return check::shape(OP, "x", x, format!("{groups} groups of {width} columns"));
    }
    let rows = if side_by_side { x.rows() } else { x.rows() / groups };
    let Some(rows) = rows.checked_mul(weight.rows()) else {
        return check::range(OP, "rows", "a number that can be counted".into(), x.rows());
    };
    let mut result = Tensor::empty(x.device(), out, Shape::matrix(rows, width))?;
    x.device().backend().mix(&Mix { x, width, weight, factor }, &mut result)?;
    Ok(result)
}

/// Rows of a table picked by id.
///
/// # Shapes
/// `table [vocabulary, d]` of any float type or quantized, result `[ids.len(), d]`.
///
/// # Errors
/// An id beyond the table, no memory.
pub fn embedding(table: &Weight, ids: &[u32], out: DType) -> Result<Tensor> {
    const OP: &str = "embedding";
    check::out_dtype(OP, out)?;
    check::weight(OP, table)?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= table.n_out()) {
        return check::range(OP, "ids", format!("below {}", table.n_out()), id);
    }
    let mut result = Tensor::empty(table.device(), out, Shape::matrix(ids.len(), table.n_in()))?;
    table.device().backend().embedding(table, ids, &mut result)?;
    Ok(result)
}

/// Matrices of the same width and type, one below the other.
///
/// # Errors
/// No part, parts of different widths or types, no memory.
pub fn concat_rows(parts: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "concat_rows";
    let Some(first) = parts.first() else { return check::range(OP, "parts", "one or more".into(), 0) };
    for part in parts {
        check::activation(OP, "part", part)?;
        check::cols(OP, "part", part, first.cols())?;
        if part.dtype() != first.dtype() {
            return Err(crate::Error::DType {
                op: OP,
                what: "part",
                expected: "the first part's type",
                got: part.dtype(),
            });
        }
    }
    let rows = parts.iter().map(|p| p.rows()).sum();
    let mut result = Tensor::empty(first.device(), first.dtype(), Shape::matrix(rows, first.cols()))?;
    first.device().backend().concat_rows(parts, &mut result)?;
    Ok(result)
}
