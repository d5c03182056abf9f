//! LoHas: elementwise products of two matrices, each of which is a product of low rank.
//!
//! `(A B) * (C D)` with ranks `r` and `s` is itself a product of rank `r s`: its element at `o, i` is the sum of
//! `A[o, k] C[o, l] * B[k, i] D[l, i]` over all pairs `k, l`. So it is a path like any other LoRA's, through `r s` columns. Where
//! both of its matrices would have more numbers than the weight, as around 64 inputs, the path is the elementwise product itself.

use inkstone_tensor::{DType, Device, Result, Shape, Tensor, Weight, bf16};

use super::SidePath;
use super::layers::Product;

/// The path of `first * second`, its matrices made on a device in f32 or bf16. One that only counts has no numbers.
///
/// # Errors
/// No memory.
pub(super) fn path(
    [first, second]: [&Product; 2],
    factor: f32,
    device: &Device,
    dtype: DType,
) -> Result<SidePath> {
    let ([n_out, n_in], [r, s]) = (first.size(), [first.rank(), second.rank()]);
    if r * s * (n_out + n_in) >= n_out * n_in {
        let parts = [&first.up, &first.down, &second.up, &second.down];
        let mut other = vec![0.0; n_in];
        let product = filled(device, dtype, [n_out, n_in], parts, |row, out, [a, b, c, d]| {
            sum_of_rows(&a[row * r..][..r], b, out);
            sum_of_rows(&c[row * s..][..s], d, &mut other);
            out.iter_mut().zip(&other).for_each(|(out, other)| *out *= factor * other);
        })?;
        return Ok(SidePath { left: Vec::new(), down: None, up: Weight::Dense(product), factor: 1.0 });
    }
    let up = filled(device, dtype, [n_out, r * s], [&first.up, &second.up], |row, out, [a, c]| {
        let c = &c[row * s..][..s];
        for (out, a) in out.chunks_mut(s).zip(&a[row * r..][..r]) {
            out.iter_mut().zip(c).for_each(|(out, c)| *out = a * c);
        }
    })?;
    let down = filled(device, dtype, [r * s, n_in], [&first.down, &second.down], |row, out, [b, d]| {
        let (b, d) = (&b[row / s * n_in..][..n_in], &d[row % s * n_in..][..n_in]);
        out.iter_mut().zip(b).zip(d).for_each(|((out, b), d)| *out = b * d);
    })?;
    Ok(SidePath { left: Vec::new(), down: Some(Weight::Dense(down)), up: Weight::Dense(up), factor })
}

/// A row times a matrix as wide as the result.
fn sum_of_rows(factors: &[f32], matrix: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (factor, row) in factors.iter().zip(matrix.chunks(out.len().max(1))) {
        out.iter_mut().zip(row).for_each(|(out, value)| *out += factor * value);
    }
}

/// A matrix whose rows a function makes, in order, of the values of others.
fn filled<const N: usize>(
    device: &Device,
    dtype: DType,
    [rows, cols]: [usize; 2],
    from: [&Tensor; N],
    mut make: impl FnMut(usize, &mut [f32], &[Vec<f32>; N]),
) -> Result<Tensor> {
    let mut matrix = Tensor::empty(device, dtype, Shape::matrix(rows, cols))?;
    let stride = (matrix.row_stride() * dtype.size_bytes()).max(1);
    if matrix.is_counted() {
        return Ok(matrix);
    }
    let mut values = [const { Vec::new() }; N];
    for (values, tensor) in values.iter_mut().zip(from) {
        *values = tensor.to_f32()?;
    }
    let mut row = vec![0.0; cols];
    for (i, bytes) in matrix.bytes_mut().into_iter().flat_map(|bytes| bytes.chunks_mut(stride)).enumerate() {
        make(i, &mut row, &values);
        if dtype == DType::Bf16 {
            let words = bytes.as_chunks_mut().0;
            words.iter_mut().zip(&row).for_each(|(to, v)| *to = bf16::from_f32(*v).to_le_bytes());
        } else {
            let words = bytes.as_chunks_mut().0;
            words.iter_mut().zip(&row).for_each(|(to, v)| *to = v.to_le_bytes());
        }
    }
    Ok(matrix)
}
