//! Measures operations on rows against a loop over memory in the same run, on one thread, in processor time.
//!
//! `cargo run --release -p inkstone-tensor --example row_speed [-- ROWS]`; `INKSTONE_CPU` chooses the table. 4096 rows lie in
//! memory, 16 in the L2 cache: those show what the arithmetic takes.
//! Prints, per operation, the median over runs of the bytes that it reads and writes a second, of those of a loop that reads
//! and writes as many and does next to nothing, and of their ratio.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for engineers")]

use std::hint::black_box;

use inkstone_tensor::ops::{self, Rope, RopeLayout, RowTable, Run};
use inkstone_tensor::{DType, Device, Shape, Tensor, cpu};

const RUNS: usize = 9;
/// Tokens of the transformer at 1024 px, where no matrix fits a cache, and its width.
const ROWS: usize = 4096;
const WIDTH: usize = 3072;
const HEAD: usize = 128;
/// Of a measurement.
const LEAST_BYTES: usize = 100 << 20;
const EPS: f32 = 1e-6;

type Call = Box<dyn Fn()>;

fn main() {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let rows = std::env::args().nth(1).map_or(ROWS, |rows| rows.parse().unwrap());
    println!("{}; {rows} rows of {WIDTH}; median of {RUNS} runs", device.name());
    let (plain, half) = (matrix(&device, rows, DType::F32), matrix(&device, rows, DType::Bf16));
    let vector = |len: usize| Tensor::from_f32(&device, &vec![1.0; len], Shape::vector(len)).unwrap();
    let table = || RowTable {
        table: Tensor::from_f32(&device, &[0.5; WIDTH], Shape::matrix(1, WIDTH)).unwrap(),
        runs: [Run { rows, entry: 0 }].into(),
    };
    let angles =
        || Tensor::from_f32(&device, &vec![0.7; rows * HEAD / 2], Shape::matrix(rows, HEAD / 2)).unwrap();
    let rope = Rope { cos: angles(), sin: angles(), layout: RopeLayout::Interleaved };
    // Bytes an element that are read and written.
    let cases: [(&str, usize, Call); 4] = [
        ("layer norm, modulated: f32 to bf16", 4 + 2, {
            let (x, scale, shift) = (plain.clone(), table(), table());
            Box::new(move || drop(ops::layer_norm(&x, EPS, &scale, &shift, DType::Bf16).unwrap()))
        }),
        ("RMS norm: f32 to bf16", 4 + 2, {
            let (x, weight) = (plain.clone(), vector(WIDTH));
            Box::new(move || drop(ops::rms_norm(&x, &weight, EPS, DType::Bf16).unwrap()))
        }),
        ("norm and rotation of heads: bf16", 2 + 2, {
            let (x, weight) = (half, vector(HEAD));
            Box::new(move || drop(ops::rope_norm(&x, Some((&weight, EPS)), &rope, DType::Bf16).unwrap()))
        }),
        ("sum: f32", 4 + 4 + 4, {
            let (a, b) = (plain, matrix(&device, rows, DType::F32));
            Box::new(move || drop(ops::add(&a, &b, DType::F32).unwrap()))
        }),
    ];
    for (title, bytes, call) in cases {
        measure(title, bytes * rows * WIDTH, &call);
    }
}

fn matrix(device: &Device, rows: usize, dtype: DType) -> Tensor {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16).to_le_bytes()[0]) / 256.0 - 0.5
    };
    let values: Vec<f32> = (0..rows * WIDTH).map(|_| next()).collect();
    ops::convert(&Tensor::from_f32(device, &values, Shape::matrix(rows, WIDTH)).unwrap(), dtype).unwrap()
}

/// Not a copy, for which there are stores that leave caches alone.
fn add_one(from: &[u32], to: &mut [u32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.wrapping_add(1);
    }
}

fn measure(title: &str, bytes: usize, call: &Call) {
    let (from, mut to) = (vec![1u32; bytes / 8], vec![0u32; bytes / 8]);
    let repeats = (LEAST_BYTES / bytes).max(1);
    let rate = |call: &mut dyn FnMut()| {
        let before = cpu::process_seconds().unwrap();
        (0..repeats).for_each(|_| call());
        1e-9 * (bytes * repeats) as f64 / (cpu::process_seconds().unwrap() - before)
    };
    call();
    let (mut rates, mut loops, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let ours = rate(&mut || call());
        let plain = rate(&mut || add_one(black_box(&from), black_box(&mut to)));
        rates.push(ours);
        loops.push(plain);
        ratios.push(ours / plain);
    }
    for list in [&mut rates, &mut loops, &mut ratios] {
        list.sort_by(f64::total_cmp);
    }
    println!(
        "{title:36} {:6.1} GB/s, plain loop {:6.1}, {:.2} ({:.2}..{:.2})",
        rates[RUNS / 2],
        loops[RUNS / 2],
        ratios[RUNS / 2],
        ratios[0],
        ratios[RUNS - 1],
    );
}
