//! The noise that `torch.randn` draws on a CPU, to the bit.
//!
//! # Source
//! torch 2.15: the Mersenne twister, 24-bit uniforms and the eight-lane Box-Muller transform of its x86-64 builds
//! (machines with AVX2 and above). Builds for other processors differ from it in last bits.

mod normal;
mod twister;

use half::{bf16, f16};
use twister::Twister;

/// Values that the vectorised transform makes at once, from as many uniforms.
const BLOCK: usize = 16;

/// What `torch.Generator("cpu").manual_seed(seed)` is: draws follow one another in one stream.
///
/// Only the low 32 bits of the seed count, as in torch: seeds that differ by 2^32 give the same noise.
#[derive(Clone, Debug)]
pub struct Generator {
    twister: Twister,
    /// Small draws make normals in pairs; this is the one that was not used yet.
    second_normal: Option<f64>,
}

impl Generator {
    /// A generator at the start of its stream.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // what torch does: the upper half is not used
        let twister = Twister::new(seed as u32);
        Self { twister, second_normal: None }
    }

    /// `torch.randn(n, dtype=torch.float32)`: `n` values with mean 0 and standard deviation 1.
    #[must_use]
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.one()).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(normal::box_muller);
        if !rest.is_empty() {
            values[n - BLOCK..].copy_from_slice(&self.block());
        }
        values
    }

    /// `torch.randn(n, dtype=torch.bfloat16)`. For a count below 16 or a multiple of 16, so for all latents, this is
    /// [`Self::randn`] rounded; in other cases the last values and the rest of the stream differ.
    #[must_use]
    pub fn randn_bf16(&mut self, n: usize) -> Vec<bf16> {
        self.randn_half(n).into_iter().map(bf16::from_f32).collect()
    }

    /// `torch.randn(n, dtype=torch.float16)`; see [`Self::randn_bf16`].
    #[must_use]
    pub fn randn_f16(&mut self, n: usize) -> Vec<f16> {
        self.randn_half(n).into_iter().map(f16::from_f32).collect()
    }

    /// What a draw in a 16-bit type rounds: block after block, without uniforms for an incomplete last one.
    fn randn_half(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.one()).collect();
        }
        let mut values = vec![0.0; n];
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        for block in blocks {
            *block = self.block();
        }
        if !rest.is_empty() {
            values[n - BLOCK..].copy_from_slice(&self.block());
        }
        values
    }

    fn block(&mut self) -> [f32; BLOCK] {
        let mut block = std::array::from_fn(|_| self.uniform());
        normal::box_muller(&mut block);
        block
    }

    /// In `[0, 1)`, 24 bits.
    fn uniform(&mut self) -> f32 {
        const UNIT: f32 = 1.0 / (1 << 24) as f32;
        (self.twister.next() & 0xff_ffff) as f32 * UNIT
    }

    /// In `[0, 1)`, 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
        let bits = u64::from(self.twister.next()) << 32 | u64::from(self.twister.next());
        (bits & ((1 << 53) - 1)) as f64 * UNIT
    }

    /// One normal of a small draw, computed in double precision.
    fn one(&mut self) -> f32 {
        let value = self.second_normal.take().unwrap_or_else(|| {
            let (turn, level) = (self.uniform_f64(), self.uniform_f64());
            let radius = (-2.0 * (-level).ln_1p()).sqrt();
            let angle = 2.0 * std::f64::consts::PI * turn;
            self.second_normal = Some(radius * angle.sin());
            radius * angle.cos()
        });
        #[allow(clippy::cast_possible_truncation)] // rounding to f32 is meant
        let value = value as f32;
        value
    }
}

#[cfg(test)]
mod tests;
