//! Operations that only move rows.

use super::Cpu;
use super::decode::QuantRows;
use super::rows::{Matrix, MatrixMut, assert_cols};
use crate::{Result, Tensor, Weight};

/// Bytes a thread moves in about a nanosecond, on the slow side.
const BYTES_PER_NS: usize = 4;

pub(super) fn embedding(cpu: &Cpu, table: &Weight, ids: &[u32], out: &mut Tensor) -> Result<()> {
    let to = MatrixMut::of(out);
    let cols = table.n_in();
    assert_cols(cols, &[to.cols()]);
    cpu.threads.rows(ids.len(), cols, |r| {
        let id = ids[r] as usize;
        // SAFETY: each row is one job's; both rows are of `cols` elements.
        unsafe {
            let to = to.part(r, 0..cols);
            match table {
                Weight::Dense(table) => (cpu.table.rows.convert)(Matrix::of(table).row(id), to),
                Weight::Quantized(table) => cpu.table.decode(&QuantRows::of(table).row(id), 0..cols, to),
                Weight::Int8(_) => unreachable!("ops refuses tables of rotated rows"),
            }
        }
    })
}

pub(super) fn concat_rows(cpu: &Cpu, parts: &[&Tensor], out: &mut Tensor) -> Result<()> {
    let to = MatrixMut::of(out);
    let mut first = 0;
    for part in parts {
        let part = Matrix::of(part);
        let row_bytes = part.cols() * part.dtype().size_bytes();
        cpu.threads.rows(part.rows(), row_bytes.div_ceil(BYTES_PER_NS), |r| {
            // SAFETY: each row is one job's.
            let to = unsafe { to.part_bytes(first + r, 0..part.cols()) };
            to.copy_from_slice(part.part_bytes(r, 0..part.cols()));
        })?;
        first += part.rows();
    }
    Ok(())
}
