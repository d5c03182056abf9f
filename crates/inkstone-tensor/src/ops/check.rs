//! Argument checks that several operations share.

use crate::ops::RowTable;
use crate::{DType, Error, Result, Tensor, Weight};

pub(super) fn activation(op: &'static str, what: &'static str, t: &Tensor) -> Result<()> {
    match t.dtype() {
        DType::F32 | DType::Bf16 => Ok(()),
        got => Err(Error::DType { op, what, expected: "f32 or bf16", got }),
    }
}

/// A weight whose values are floats.
pub(super) fn weight(op: &'static str, weight: &Weight) -> Result<()> {
    float_dtype(op, "weight", weight.dtype())
}

/// A tensor whose values are floats.
pub(super) fn float(op: &'static str, what: &'static str, t: &Tensor) -> Result<()> {
    float_dtype(op, what, t.dtype())
}

fn float_dtype(op: &'static str, what: &'static str, dtype: DType) -> Result<()> {
    match dtype {
        dtype if dtype.is_float() => Ok(()),
        got => Err(Error::DType { op, what, expected: "f32, bf16 or f16", got }),
    }
}

pub(super) fn out_dtype(op: &'static str, got: DType) -> Result<()> {
    match got {
        DType::F32 | DType::Bf16 => Ok(()),
        got => Err(Error::DType { op, what: "out", expected: "f32 or bf16", got }),
    }
}

pub(super) fn cols(op: &'static str, what: &'static str, t: &Tensor, cols: usize) -> Result<()> {
    if t.cols() == cols { Ok(()) } else { shape(op, what, t, format!("{cols} columns")) }
}

pub(super) fn same_matrix(op: &'static str, what: &'static str, t: &Tensor, like: &Tensor) -> Result<()> {
    if t.rows() == like.rows() && t.cols() == like.cols() {
        Ok(())
    } else {
        shape(op, what, t, format!("{} rows of {}", like.rows(), like.cols()))
    }
}

/// An f32 vector of `len` elements.
pub(super) fn vector(op: &'static str, what: &'static str, t: &Tensor, len: usize) -> Result<()> {
    if t.dtype() != DType::F32 {
        return Err(Error::DType { op, what, expected: "f32", got: t.dtype() });
    }
    if t.rows() == 1 && t.cols() == len { Ok(()) } else { shape(op, what, t, format!("[{len}]")) }
}

/// A table that covers all rows of `x` with vectors as long as the rows.
pub(super) fn row_table(op: &'static str, what: &'static str, table: &RowTable, x: &Tensor) -> Result<()> {
    cols(op, what, &table.table, x.cols())?;
    if table.table.dtype() != DType::F32 {
        return Err(Error::DType { op, what, expected: "f32", got: table.table.dtype() });
    }
    let covered: usize = table.runs.iter().map(|run| run.rows).sum();
    let highest = table.runs.iter().map(|run| run.entry).max().unwrap_or(0);
    if covered != x.rows() {
        return range(op, what, format!("runs over {} rows", x.rows()), covered);
    }
    if highest >= table.table.rows() {
        return range(op, what, format!("entries below {}", table.table.rows()), highest);
    }
    Ok(())
}

pub(super) fn shape<T>(op: &'static str, what: &'static str, t: &Tensor, expected: String) -> Result<T> {
    Err(Error::Shape { op, what, expected, got: *t.shape() })
}

pub(super) fn range<T>(
    op: &'static str,
    what: &'static str,
    allowed: String,
    got: impl ToString,
) -> Result<T> {
    Err(Error::Range { op, what, allowed, got: got.to_string() })
}
