//! Matrices of the tests: values on the host, tensors made from them, devices to try.

use inkstone_tensor::{AlignedBuffer, DType, Device, Shape, Storage, Tensor, bf16, cpu, f16};

/// A device for each instruction set of this machine (all, or the one that `INKSTONE_CPU` names), two threads each.
pub(crate) fn devices() -> Vec<Device> {
    let forced = std::env::var("INKSTONE_CPU").ok().filter(|name| !name.is_empty());
    let names =
        forced.map_or_else(|| cpu::Cpu::available().into_iter().map(String::from).collect(), |n| vec![n]);
    names.into_iter().map(|isa| device(Some(isa), 2)).collect()
}

pub(crate) fn device(isa: Option<String>, threads: usize) -> Device {
    Device::cpu(&cpu::Options { threads: Some(threads), isa }).unwrap()
}

/// Values from -1 to 1, the same for a seed: a 64-bit linear congruential generator.
pub(crate) fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = u16::try_from(state >> 48).unwrap();
        f32::from(bits) / 32768.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A matrix on the host, its values exact in `dtype`.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) dtype: DType,
    pub(crate) values: Vec<f32>,
}

/// How a tensor lies in memory.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Layout {
    /// Rows follow each other.
    Plain,
    /// A view of some columns of a wider matrix whose other columns are NaN; rows start anywhere.
    View,
}

pub(crate) const LAYOUTS: [Layout; 2] = [Layout::Plain, Layout::View];
pub(crate) const ACTIVATIONS: [DType; 2] = [DType::F32, DType::Bf16];

impl Host {
    pub(crate) fn new(rows: usize, cols: usize, dtype: DType, values: &[f32]) -> Self {
        let values = values.iter().map(|v| rounded(*v, dtype)).collect();
        Self { rows, cols, dtype, values }
    }

    pub(crate) fn random(seed: u64, rows: usize, cols: usize, dtype: DType) -> Self {
        Self::new(rows, cols, dtype, &random(seed, rows * cols))
    }

    /// A value as f64.
    pub(crate) fn at(&self, r: usize, c: usize) -> f64 {
        f64::from(self.values[r * self.cols + c])
    }

    pub(crate) fn row(&self, r: usize) -> Vec<f64> {
        (0..self.cols).map(|c| self.at(r, c)).collect()
    }

    pub(crate) fn tensor(&self, device: &Device, layout: Layout) -> Tensor {
        if layout == Layout::Plain || self.cols == 0 {
            return make(device, &self.values, self.dtype, Shape::matrix(self.rows, self.cols));
        }
        let mut wide = vec![f32::NAN; self.rows * (self.cols + 3)];
        for (to, from) in wide.chunks_mut(self.cols + 3).zip(self.values.chunks(self.cols)) {
            to[1..=self.cols].copy_from_slice(from);
        }
        let shape = Shape::matrix(self.rows, self.cols + 3);
        make(device, &wide, self.dtype, shape).cols_range(1..1 + self.cols).unwrap()
    }
}

fn rounded(v: f32, dtype: DType) -> f32 {
    match dtype {
        DType::Bf16 => bf16::from_f32(v).to_f32(),
        DType::F16 => f16::from_f32(v).to_f32(),
        _ => v,
    }
}

/// A tensor with these values, made without any operation of the crate.
pub(crate) fn make(device: &Device, values: &[f32], dtype: DType, shape: Shape) -> Tensor {
    let bytes: Vec<u8> = match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
    };
    let mut buffer = AlignedBuffer::zeroed(bytes.len()).unwrap();
    buffer.as_mut_slice().copy_from_slice(&bytes);
    Tensor::from_storage(device, Storage::Owned(buffer), dtype, shape).unwrap()
}

/// An f32 vector.
pub(crate) fn vector(device: &Device, values: &[f32]) -> Tensor {
    make(device, values, DType::F32, Shape::vector(values.len()))
}

pub(crate) fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// A pixel behind its channel norm, before the function behind that.
pub(crate) fn channel_norm(pixel: &[f64], gamma: &[f32]) -> Vec<f64> {
    let length = pixel.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    let root = f64::from(u32::try_from(pixel.len()).unwrap()).sqrt();
    pixel.iter().zip(gamma).map(|(v, g)| v / length * root * f64::from(*g)).collect()
}

pub(crate) fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
}
