//! Measures kernels against a register-only peak taken right before and after, on one thread, in processor time.
//!
//! `cargo run --release -p inkstone-tensor --example kernel_speed [-- NAME..]`; `INKSTONE_CPU` chooses the table.
//! Prints, per case, the median over runs of the rate, of the peak's rate and of their ratio, and the ratio's range.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for engineers")]

use std::collections::VecDeque;

use inkstone_tensor::ops::{self, Activation, Attention, ConvWeight, Mask, Padding, PixelNorm, Qkv, Window};
use inkstone_tensor::{
    Affine, AffineBits, AlignedBuffer, BlockFormat, Blocks, ConvRot, DType, Device, Float8, Int8Weight,
    Quantized, Shape, Storage, Tensor, Weight, cpu,
};

const RUNS: usize = 9;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    println!("{}; median of {RUNS} runs", device.name());
    for (name, dtype, run) in cases() {
        let title = format!("{name} {dtype}");
        if wanted.is_empty() || wanted.iter().any(|w| title.contains(w.as_str())) {
            let case = run(&device, dtype);
            measure(&title, &device, dtype, case);
        }
    }
}

/// Products that a call makes, and the call. The type is that of the operands: bytes are made of bf16 activations.
type Case = (f64, Box<dyn FnMut()>);
type Make = fn(&Device, DType) -> Case;

fn cases() -> Vec<(&'static str, DType, Make)> {
    let mut cases: Vec<(&'static str, DType, Make)> = Vec::new();
    for dtype in [DType::I8, DType::Bf16, DType::F32] {
        cases.push(("gemm 1088x3072x12288", dtype, |d, t| gemm(d, t, 1088, 3072, 12288)));
        cases.push(("gemm 1088x12288x3072", dtype, |d, t| gemm(d, t, 1088, 12288, 3072)));
        cases.push(("gemm 256x3072x3072", dtype, |d, t| gemm(d, t, 256, 3072, 3072)));
        cases.push(("gemm 40x3072x3072", dtype, |d, t| gemm(d, t, 40, 3072, 3072)));
        cases.push(("gemm 1x3072x3072", dtype, |d, t| gemm(d, t, 1, 3072, 3072)));
        cases.push(("gemm 256x3072x3072 memory", dtype, |d, t| from_memory(d, t, 256, 3072, 3072)));
        cases.push(("gemm 40x3072x3072 memory", dtype, |d, t| from_memory(d, t, 40, 3072, 3072)));
        cases.push(("gemm 1x3072x3072 memory", dtype, |d, t| from_memory(d, t, 1, 3072, 3072)));
        cases.push(("gemm 16x192x768", dtype, |d, t| gemm(d, t, 16, 192, 768)));
        if dtype != DType::I8 {
            cases.push(("attention 4136x24x128", dtype, |d, t| attention(d, t, 4136, 24, 128)));
            cases.push(("attention 1064x24x128", dtype, |d, t| attention(d, t, 1064, 24, 128)));
            cases.push(("attention 1024x1x384", dtype, |d, t| attention(d, t, 1024, 1, 384)));
        }
        cases.push(("conv3x3 192x256x256", dtype, |d, t| conv(d, t, 192, 192, 256)));
        cases.push(("conv3x3 96x256x256", dtype, |d, t| conv(d, t, 96, 96, 256)));
        cases.push(("conv3x3 384x64x64", dtype, |d, t| conv(d, t, 384, 384, 64)));
        cases.push(("conv3x3 96to3 256x256", dtype, |d, t| conv(d, t, 96, 3, 256)));
    }
    for (name, make) in QUANTIZED {
        cases.push((name, DType::Bf16, make));
    }
    cases
}

/// The bf16 product with weights that are decoded on the way: what it takes longer is the decoder.
const QUANTIZED: [(&str, Make); 15] = [
    ("gemm 1088x3072x3072 dense", |d, t| gemm(d, t, 1088, 3072, 3072)),
    ("gemm 1088x3072x3072 q4_0", |d, _| blocks(d, 1088, BlockFormat::Q4_0)),
    ("gemm 1088x3072x3072 q5_1", |d, _| blocks(d, 1088, BlockFormat::Q5_1)),
    ("gemm 1088x3072x3072 q8_0", |d, _| blocks(d, 1088, BlockFormat::Q8_0)),
    ("gemm 1088x3072x3072 q2_K", |d, _| blocks(d, 1088, BlockFormat::Q2K)),
    ("gemm 1088x3072x3072 q3_K", |d, _| blocks(d, 1088, BlockFormat::Q3K)),
    ("gemm 1088x3072x3072 q4_K", |d, _| blocks(d, 1088, BlockFormat::Q4K)),
    ("gemm 1088x3072x3072 q5_K", |d, _| blocks(d, 1088, BlockFormat::Q5K)),
    ("gemm 1088x3072x3072 q6_K", |d, _| blocks(d, 1088, BlockFormat::Q6K)),
    ("gemm 1x3072x3072 q8_0", |d, _| blocks(d, 1, BlockFormat::Q8_0)),
    ("gemm 1x3072x3072 q4_K", |d, _| blocks(d, 1, BlockFormat::Q4K)),
    ("gemm 1088x3072x3072 affine4", |d, _| affine(d, 4)),
    ("gemm 1088x3072x3072 affine6", |d, _| affine(d, 6)),
    ("gemm 1088x3072x3072 fp8", |d, _| {
        let values = bytes(d, DType::F8E4m3, SIDE, SIDE);
        product(d, 1088, Quantized::Float8(Float8::new(values, None).unwrap()))
    }),
    ("gemm 1088x3072x3072 convrot", |d, _| {
        let (values, scales) = (bytes(d, DType::I8, SIDE, SIDE), bytes(d, DType::F32, 1, SIDE));
        product(d, 1088, Quantized::ConvRot(ConvRot::new(values, scales, 256).unwrap()))
    }),
];
const SIDE: usize = 3072;

/// Zeros take as long as anything else.
fn bytes(device: &Device, dtype: DType, rows: usize, cols: usize) -> Tensor {
    let buffer = AlignedBuffer::zeroed(rows * cols * dtype.size_bytes()).unwrap();
    Tensor::from_storage(device, Storage::Owned(buffer), dtype, Shape::matrix(rows, cols)).unwrap()
}

fn product(device: &Device, rows: usize, weight: Quantized) -> Case {
    let (x, weight) = (matrix(device, rows, SIDE, DType::Bf16), Weight::from(weight));
    let run = move || drop(ops::linear(&x, &weight, None, Activation::None, x.dtype()).unwrap());
    (products(&[rows, SIDE, SIDE]), Box::new(run))
}

fn blocks(device: &Device, rows: usize, format: BlockFormat) -> Case {
    let data = bytes(device, DType::U8, SIDE, format.row_bytes(SIDE).unwrap());
    product(device, rows, Quantized::Blocks(Blocks::new(format, data).unwrap()))
}

fn affine(device: &Device, bits: u8) -> Case {
    let packed = bytes(device, DType::U32, SIDE, SIDE * usize::from(bits) / 32);
    let [scales, biases] = [(); 2].map(|()| bytes(device, DType::Bf16, SIDE, SIDE / 64));
    let matrix = Affine::new(AffineBits::new(bits).unwrap(), 64, packed, scales, biases).unwrap();
    product(device, 1088, Quantized::Affine(matrix))
}

fn matrix(device: &Device, rows: usize, cols: usize, dtype: DType) -> Tensor {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16).to_le_bytes()[0]) / 256.0 - 0.5
    };
    let values: Vec<f32> = (0..rows * cols).map(|_| next()).collect();
    ops::convert(&Tensor::from_f32(device, &values, Shape::matrix(rows, cols)).unwrap(), dtype).unwrap()
}

fn products(sizes: &[usize]) -> f64 {
    sizes.iter().map(|n| f64::from(u32::try_from(*n).unwrap())).product()
}

/// The type of activations: bytes are made of bf16.
fn activations(dtype: DType) -> DType {
    if dtype == DType::I8 { DType::Bf16 } else { dtype }
}

fn weight(device: &Device, dtype: DType, n: usize, k: usize) -> Weight {
    weight_of(matrix(device, n, k, activations(dtype)), dtype)
}

fn weight_of(plain: Tensor, dtype: DType) -> Weight {
    let group = Int8Weight::group_of(plain.cols());
    match dtype {
        DType::I8 => Weight::Int8(ops::quantize_int8(&plain, group).unwrap().weight),
        _ => Weight::Dense(plain),
    }
}

fn gemm(device: &Device, dtype: DType, m: usize, k: usize, n: usize) -> Case {
    let (x, weight) = (matrix(device, m, k, activations(dtype)), weight(device, dtype, n, k));
    let run = move || drop(ops::linear(&x, &weight, None, Activation::None, x.dtype()).unwrap());
    (products(&[m, k, n]), Box::new(run))
}

/// A product with another weight each time, so that none is in a cache.
fn from_memory(device: &Device, dtype: DType, m: usize, k: usize, n: usize) -> Case {
    const LEAST_BYTES: usize = 300 << 20;
    let x = matrix(device, m, k, activations(dtype));
    let plain = matrix(device, n, k, activations(dtype));
    let another = || weight_of(ops::convert(&plain, plain.dtype()).unwrap(), dtype);
    let count = LEAST_BYTES.div_ceil(n * k * dtype.size_bytes());
    let mut weights: VecDeque<Weight> = (0..count).map(|_| another()).collect();
    let run = move || {
        drop(ops::linear(&x, &weights[0], None, Activation::None, x.dtype()).unwrap());
        weights.rotate_left(1);
    };
    (products(&[m, k, n]), Box::new(run))
}

fn attention(device: &Device, dtype: DType, rows: usize, n_heads: usize, dim: usize) -> Case {
    let [q, k, v] = [(); 3].map(|()| matrix(device, rows, n_heads * dim, dtype));
    let run = move || {
        let streams = [Qkv { q: &q, k: &k, v: &v }];
        let sequences = [std::iter::once(0..rows).collect()];
        let args = Attention {
            streams: &streams,
            sequences: &sequences,
            n_heads,
            n_kv_heads: n_heads,
            scale: 0.1,
            mask: Mask::Full,
        };
        drop(ops::attention(&args, q.dtype()).unwrap());
    };
    (products(&[2, rows, rows, n_heads * dim]), Box::new(run))
}

/// A convolution with a norm and silu in front.
fn conv(device: &Device, dtype: DType, c_in: usize, c_out: usize, side: usize) -> Case {
    let x = matrix(device, side * side, c_in, activations(dtype));
    let x = x.reshape(Shape::nhwc(1, side, side, c_in)).unwrap();
    let weight = ConvWeight { matrix: weight(device, dtype, c_out, 9 * c_in), kernel: 3 };
    let vector = |v: f32, len| Tensor::from_f32(device, &vec![v; len], Shape::vector(len)).unwrap();
    let (gamma, bias) = (vector(1.0, c_in), vector(0.0, c_out));
    let run = move || {
        let norm = Some(PixelNorm { gamma: &gamma, activation: Activation::Silu });
        let window = Window::whole(Padding::all(1));
        drop(ops::conv2d_of(&x, norm, &weight, &bias, window, x.dtype()).unwrap());
    };
    (products(&[side * side, 9 * c_in, c_out]), Box::new(run))
}

fn measure(title: &str, device: &Device, dtype: DType, (products, mut run): Case) {
    run();
    // At least 30 ms a run.
    let before = cpu_seconds();
    run();
    let one = (cpu_seconds() - before).max(1e-6);
    let mut repeats = 1u32;
    while f64::from(repeats) * one < 0.03 {
        repeats *= 2;
    }
    let (mut rates, mut peaks, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let peak_before = peak(device, dtype);
        let before = cpu_seconds();
        for _ in 0..repeats {
            run();
        }
        let rate = products * f64::from(repeats) / (cpu_seconds() - before);
        let peak = f64::midpoint(peak_before, peak(device, dtype));
        rates.push(rate * 2e-9);
        peaks.push(peak * 2e-9);
        ratios.push(100.0 * rate / peak);
    }
    for list in [&mut rates, &mut peaks, &mut ratios] {
        list.sort_by(f64::total_cmp);
    }
    println!(
        "{title:30} {:8.1} G/s, peak {:7.1}, {:5.1} % ({:.1}..{:.1}), {:.3} ms",
        rates[RUNS / 2],
        peaks[RUNS / 2],
        ratios[RUNS / 2],
        ratios[0],
        ratios[RUNS - 1],
        products * 2e-6 / rates[RUNS / 2],
    );
}

fn cpu_seconds() -> f64 {
    cpu::process_seconds().unwrap()
}

/// Products a second on registers alone.
fn peak(device: &Device, dtype: DType) -> f64 {
    const LOOPS: u32 = 1_000_000;
    let before = cpu_seconds();
    device.multiply_registers(dtype, LOOPS).unwrap() / (cpu_seconds() - before)
}
