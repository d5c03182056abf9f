//! Single operations, with weights stored as models store them.

use inkstone_tensor::ops::{self, Activation, Mask, Qkv};
use inkstone_tensor::{DType, Shape, Tensor};

use super::{Bench, Case, Clock};
use crate::Result;
use crate::nn::attention::score_scale;
use crate::nn::conv::{Conv, ConvShape};
use crate::nn::strips::StripWalk;

/// A run lasts this long at least: short operations are repeated.
const SHORTEST_S: f64 = 0.05;

/// Bytes of a kernel's operands and results: bf16 ones, and those of its first operand's stored values beside them.
pub(super) fn needed_bytes(case: Case) -> u64 {
    const BF16_BYTES: u64 = 2;
    let product = |sizes: &[usize]| sizes.iter().fold(BF16_BYTES, |all, n| all.saturating_mul(*n as u64));
    let (read, weights, written) = match case {
        Case::Linear { rows, n_in, n_out } => {
            (product(&[rows, n_in]), product(&[n_in, n_out]), product(&[rows, n_out]))
        }
        Case::Attention { tokens, n_heads, head_dim } => {
            let one = product(&[tokens, n_heads, head_dim]);
            (one.saturating_mul(3), 0, one)
        }
        Case::Conv { side_px, c_in, c_out } => {
            let pixels = side_px * side_px;
            (product(&[pixels, c_in]), product(&[9, c_in, c_out]), product(&[pixels, c_out]))
        }
        _ => return 0,
    };
    read.saturating_mul(2).saturating_add(weights).saturating_add(written)
}

pub(super) fn prepare(case: Case, bench: &Bench) -> Result<Box<dyn FnMut() -> Result<f64>>> {
    let (activations, clock) = (bench.activations, bench.options.clock);
    let mut loader = bench.loader("kernel");
    let convert = |stored: &Tensor| -> Result<Tensor> { Ok(ops::convert(stored, activations)?) };
    match case {
        Case::Linear { rows, n_in, n_out } => {
            let x = loader.tensor("x", &[rows, n_in]);
            let weight = loader.layer_weight("w", n_out, n_in);
            loader.finish()?;
            let x = convert(&x)?;
            repeated(clock, move || Ok(ops::linear(&x, &weight, None, Activation::None, activations)?))
        }
        Case::Attention { tokens, n_heads, head_dim } => {
            let width = n_heads * head_dim;
            let stored = ["q", "k", "v"].map(|name| loader.tensor(name, &[tokens, width]));
            loader.finish()?;
            let [q, k, v] = stored.map(|stored| convert(&stored));
            let (q, k, v) = (q?, k?, v?);
            repeated(clock, move || {
                let sequences = [std::iter::once(0..tokens).collect()];
                let args = ops::Attention {
                    streams: &[Qkv { q: &q, k: &k, v: &v }],
                    sequences: &sequences,
                    n_heads,
                    n_kv_heads: n_heads,
                    scale: score_scale(head_dim),
                    mask: Mask::Full,
                };
                Ok(ops::attention(&args, activations)?)
            })
        }
        Case::Conv { side_px, c_in, c_out } => {
            let x = loader.tensor("x", &[side_px * side_px, c_in]);
            let conv = Conv::load(&mut loader, "conv", ConvShape { c_in, c_out, kernel: 3 });
            loader.finish()?;
            // Rows that the device pads keep their padding: the columns stay.
            let x = convert(&x)?.reshape(Shape::nhwc(1, side_px, side_px, c_in))?;
            repeated(clock, move || conv.forward(&x, &mut StripWalk::whole()))
        }
        _ => unreachable!("stages are prepared elsewhere"),
    }
}

/// A norm of f32 rows, as in front of a layer: what stands for all operations that multiply no matrices.
pub(super) fn norm(bench: &Bench, rows: usize, width: usize) -> Result<Box<dyn FnMut() -> Result<f64>>> {
    const EPS: f32 = 1e-6;
    let mut loader = bench.loader("kernel");
    let (x, weight) = (loader.tensor("x", &[rows, width]), loader.vector("w", width));
    loader.finish()?;
    let (x, activations) = (ops::convert(&x, DType::F32)?, bench.activations);
    repeated(bench.options.clock, move || Ok(ops::rms_norm(&x, &weight, EPS, activations)?))
}

/// Runs often enough to be measured; the seconds are of one.
fn repeated<T>(
    clock: Clock,
    mut once: impl FnMut() -> Result<T> + 'static,
) -> Result<Box<dyn FnMut() -> Result<f64>>> {
    once()?;
    let (done, one_s) = clock.time(&mut once);
    done?;
    let mut repeats = 1u32;
    while f64::from(repeats) * one_s < SHORTEST_S && repeats < 1 << 16 {
        repeats *= 2;
    }
    Ok(Box::new(move || {
        let (done, seconds) = clock.time(|| (0..repeats).try_for_each(|_| once().map(drop)));
        done?;
        Ok(seconds / f64::from(repeats))
    }))
}
