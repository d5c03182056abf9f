//! Measures products with weights of every format against the same product with a dense one in bf16.
//!
//! `cargo run --release -p inkstone-tensor --example format_speed [-- [ROWS]x[N_IN]x[N_OUT].. [NAME..]]`, by default
//! `256x3072x3072 256x3072x12288`; `THREADS=2` takes two threads and the wall clock, otherwise it is one thread and
//! processor time; `ROUNDS` are 15, with 61 medians are steadier. `INKSTONE_CPU` chooses the table. `decode` instead of sizes decodes rows alone, from a cache. Every round calls each product once, the dense one before each other;
//! so a call finds its weight in memory and not in a cache. Prints the median time, its range, and the median of the
//! ratios to the dense product just before.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for engineers")]

use std::time::Instant;

use inkstone_tensor::ops::{self, Activation};
use inkstone_tensor::{
    Affine, AffineBits, AlignedBuffer, BlockFormat, Blocks, ConvRot, DType, Device, Float8, Int8Weight,
    Quantized, Shape, Storage, Tensor, Weight, cpu, f16,
};

fn main() {
    let (sizes, wanted): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| size(arg).is_some());
    let mut sizes: Vec<[usize; 3]> = sizes.iter().filter_map(|arg| size(arg)).collect();
    if sizes.is_empty() {
        sizes = vec![[256, 3072, 3072], [256, 3072, 12288]];
    }
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |n| n.parse().unwrap());
    let (threads, rounds) = (number("THREADS", 1), number("ROUNDS", 15));
    let device = Device::cpu(&cpu::Options { threads: Some(threads), isa: None }).unwrap();
    println!("{}, {threads} thread(s), {rounds} rounds", device.name());
    if std::env::args().nth(1).is_some_and(|arg| arg == "decode") {
        return decode(&device, rounds);
    }
    for [rows, n_in, n_out] in sizes {
        let x = floats(&device, rows, n_in, DType::Bf16);
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
        let formats: Vec<(String, Weight)> = formats(&device, n_out, n_in, &is_wanted);
        let dense = Weight::Dense(floats(&device, n_out, n_in, DType::Bf16));
        let time = |weight: &Weight| {
            let before = seconds(threads);
            drop(ops::linear(&x, weight, None, Activation::None, x.dtype()).unwrap());
            1e3 * (seconds(threads) - before)
        };
        let mut times = vec![(Vec::new(), Vec::new()); formats.len()];
        let mut alone = Vec::new();
        for _ in 0..rounds {
            for ((_, weight), (times, ratios)) in formats.iter().zip(&mut times) {
                alone.push(time(&dense));
                times.push(time(weight));
                ratios.push(times.last().unwrap() / alone.last().unwrap());
            }
        }
        println!("{rows}x{n_in}x{n_out} dense bf16 {}", spread(&mut alone));
        for ((name, _), (times, ratios)) in formats.iter().zip(&mut times) {
            ratios.sort_by(f64::total_cmp);
            println!("  {name:16} {}, ratio {:.3}", spread(times), ratios[ratios.len() / 2]);
        }
    }
}

/// Rows of 3072 to bf16: nanoseconds an element, the best round.
fn decode(device: &Device, rounds: usize) {
    const ROWS: u32 = 8;
    const TIMES: usize = 40;
    const N_IN: usize = 3072;
    let ids: Vec<u32> = (0..ROWS).collect();
    for (name, weight) in formats(device, 8, N_IN, &|name| !name.ends_with("int8")) {
        let once = || {
            let before = seconds(1);
            for _ in 0..TIMES {
                drop(ops::embedding(&weight, &ids, DType::Bf16).unwrap());
            }
            seconds(1) - before
        };
        let best = (0..rounds).map(|_| once()).fold(f64::INFINITY, f64::min);
        let elements = f64::from(ROWS) * 3072.0 * TIMES as f64;
        println!("{name:16} {:.4} ns an element", 1e9 * best / elements);
    }
}

fn size(arg: &str) -> Option<[usize; 3]> {
    let sizes: Option<Vec<usize>> = arg.split('x').map(|n| n.parse().ok()).collect();
    sizes?.try_into().ok()
}

fn spread(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times[(times.len() - 1) * part / 4];
    format!("{:8.3} ms ({:.3}..{:.3})", at(2), at(1), at(3))
}

fn seconds(threads: usize) -> f64 {
    thread_local! { static START: Instant = Instant::now(); }
    if threads == 1 { cpu::process_seconds().unwrap() } else { START.with(|s| s.elapsed().as_secs_f64()) }
}

fn formats(
    device: &Device,
    n_out: usize,
    n_in: usize,
    wanted: &dyn Fn(&str) -> bool,
) -> Vec<(String, Weight)> {
    let mut all: Vec<(String, Weight)> = Vec::new();
    let mut add = |name: &str, make: &dyn Fn() -> Weight| {
        if wanted(name) {
            all.push((name.to_owned(), make()));
        }
    };
    add("f16", &|| Weight::Dense(halves(device, n_out, n_in)));
    for format in BlockFormat::ALL {
        add(format.name(), &|| {
            let data = bytes(device, DType::U8, n_out, format.row_bytes(n_in).unwrap(), Some(format));
            Quantized::Blocks(Blocks::new(format, data).unwrap()).into()
        });
    }
    for bits in [3, 4, 5, 6, 8] {
        add(&format!("affine {bits}"), &|| {
            let packed = bytes(device, DType::U32, n_out, n_in * usize::from(bits) / 32, None);
            let [scales, biases] = [(); 2].map(|()| floats(device, n_out, n_in / 64, DType::Bf16));
            let bits = AffineBits::new(bits).unwrap();
            Quantized::Affine(Affine::new(bits, 64, packed, scales, biases).unwrap()).into()
        });
    }
    let scales = |n| floats(device, 1, n, DType::F32).reshape(Shape::vector(n)).unwrap();
    for (name, dtype) in [("fp8 e4m3", DType::F8E4m3), ("fp8 e5m2", DType::F8E5m2)] {
        add(name, &|| {
            let values = bytes(device, dtype, n_out, n_in, None);
            Quantized::Float8(Float8::new(values, Some(scales(1))).unwrap()).into()
        });
    }
    let rotated =
        |group| ConvRot::new(bytes(device, DType::I8, n_out, n_in, None), scales(n_out), group).unwrap();
    for group in [1, 256] {
        add(&format!("convrot {group}"), &|| Quantized::ConvRot(rotated(group)).into());
    }
    add("convrot as int8", &|| Weight::Int8((&rotated(256)).into()));
    add("int8", &|| {
        let values = bytes(device, DType::U8, n_out, n_in, None);
        Weight::Int8(Int8Weight::new(values, scales(n_out), Int8Weight::group_of(n_in)).unwrap())
    });
    all
}

/// Bytes of every kind, where the format has halves, halves of the size of real ones.
fn bytes(device: &Device, dtype: DType, rows: usize, cols: usize, format: Option<BlockFormat>) -> Tensor {
    let mut buffer = AlignedBuffer::zeroed(rows * cols * dtype.size_bytes()).unwrap();
    let mut state = 1u32;
    for byte in buffer.as_mut_slice() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 16).to_le_bytes()[0];
    }
    if let Some(format) = format {
        for block in buffer.as_mut_slice().chunks_mut(format.block_bytes()) {
            for at in format.halves() {
                block[*at..at + 2].copy_from_slice(&f16::from_f32(0.01).to_le_bytes());
            }
        }
    }
    Tensor::from_storage(device, Storage::Owned(buffer), dtype, Shape::matrix(rows, cols)).unwrap()
}

fn halves(device: &Device, rows: usize, cols: usize) -> Tensor {
    let mut buffer = AlignedBuffer::zeroed(rows * cols * 2).unwrap();
    for (i, half) in buffer.as_mut_slice().chunks_mut(2).enumerate() {
        half.copy_from_slice(
            &f16::from_f32(f32::from((i % 251).to_le_bytes()[0]) / 256.0 - 0.5).to_le_bytes(),
        );
    }
    let shape = Shape::matrix(rows, cols);
    Tensor::from_storage(device, Storage::Owned(buffer), DType::F16, shape).unwrap()
}

fn floats(device: &Device, rows: usize, cols: usize, dtype: DType) -> Tensor {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16).to_le_bytes()[0]) / 256.0 - 0.5
    };
    let values: Vec<f32> = (0..rows * cols).map(|_| next()).collect();
    let floats = Tensor::from_f32(device, &values, Shape::matrix(rows, cols)).unwrap();
    ops::convert(&floats, dtype).unwrap()
}
