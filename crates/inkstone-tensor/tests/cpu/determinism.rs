//! The same bytes for any number of threads, and for a row alone or among others.

use inkstone_tensor::ops::{
    self, Activation, Attention, ConvWeight, Mask, Padding, PixelNorm, Qkv, Term, Window,
};
use inkstone_tensor::{DType, Device, Int8Weight, Shape, Tensor, Weight, cpu};

use crate::host::{ACTIVATIONS, Host, Layout, device, make, random, vector};

/// Instruction sets of this machine, each with 1, 2 and 3 threads.
fn by_threads() -> Vec<Vec<Device>> {
    let names = cpu::Cpu::available();
    names.into_iter().map(|isa| (1..=3).map(|n| device(Some(isa.into()), n)).collect()).collect()
}

fn same_for_all(devices: &[Device], run: impl Fn(&Device) -> Vec<u8>) {
    let want = run(&devices[0]);
    for device in &devices[1..] {
        assert!(run(device) == want, "{} differs from one thread", device.name());
    }
}

/// A random weight of 8 bits.
/// Bytes whose rotation stays within each `span` inputs.
fn int8(device: &Device, [n_out, n_in]: [usize; 2], span: usize) -> Weight {
    let matrix = Host::random(2, n_out, n_in, DType::Bf16).tensor(device, Layout::Plain);
    Weight::Int8(ops::quantize_int8(&matrix, Int8Weight::group_of(span)).unwrap().weight)
}

#[test]
fn threads_change_no_byte() {
    for devices in by_threads() {
        for dtype in ACTIVATIONS {
            same_for_all(&devices, |device| {
                let x = Host::random(1, 97, 700, dtype).tensor(device, Layout::Plain);
                let weight = Weight::Dense(Host::random(2, 333, 700, dtype).tensor(device, Layout::Plain));
                let bias = vector(device, &random(3, 333));
                ops::linear(&x, &weight, Some(&bias), Activation::GeluTanh, dtype).unwrap().to_bytes()
            });
            same_for_all(&devices, |device| {
                let x = Host::random(1, 97, 1400, dtype).tensor(device, Layout::Plain);
                let weight = int8(device, [333, 1400], 1400);
                ops::linear(&x, &weight, None, Activation::GeluTanh, dtype).unwrap().to_bytes()
            });
            same_for_all(&devices, |device| attention(device, dtype, &[300, 45]).to_bytes());
            same_for_all(&devices, |device| {
                let x = Host::random(1, 20 * 130, 24, dtype);
                let x = make(device, &x.values, dtype, Shape::nhwc(1, 20, 130, 24));
                let matrix = Weight::Dense(Host::random(2, 40, 9 * 24, dtype).tensor(device, Layout::Plain));
                let bias = vector(device, &random(3, 40));
                let weight = ConvWeight { matrix, kernel: 3 };
                let window = Window::whole(Padding::all(1));
                let plain = ops::conv2d(&x, &weight, &bias, window, dtype).unwrap().to_bytes();
                let weight = ConvWeight { matrix: int8(device, [40, 9 * 24], 24), kernel: 3 };
                let gamma = vector(device, &random(4, 24));
                let norm = PixelNorm { gamma: &gamma, activation: Activation::Silu };
                let bytes = ops::conv2d_of(&x, Some(norm), &weight, &bias, window, dtype).unwrap().to_bytes();
                [plain, bytes].concat()
            });
        }
    }
}

#[test]
fn a_row_of_a_linear_layer_does_not_depend_on_the_others() {
    for devices in by_threads() {
        let device = &devices[1];
        for dtype in ACTIVATIONS {
            let x = Host::random(1, 600, 1111, dtype).tensor(device, Layout::Plain);
            let dense = Weight::Dense(Host::random(2, 70, 1111, DType::Bf16).tensor(device, Layout::Plain));
            for weight in [dense, int8(device, [70, 1111], 1111)] {
                let run = |x: &Tensor| {
                    ops::linear(x, &weight, None, Activation::Silu, DType::F32).unwrap().to_bytes()
                };
                let all = run(&x);
                for rows in [0..1, 13..14, 599..600, 5..18, 100..117, 300..600] {
                    let alone = run(&x.rows_range(rows.clone()).unwrap());
                    let among = &all[rows.start * 280..rows.end * 280];
                    assert!(alone == among, "{} {dtype} {} {rows:?}", device.name(), weight.dtype());
                }
            }
        }
    }
}

/// A path of groups, wider and narrower than a tile, beside weights of both kinds of products.
#[test]
fn a_path_of_groups_changes_no_byte_with_threads_or_rows() {
    for devices in by_threads() {
        for (dtype, groups) in ACTIVATIONS.into_iter().flat_map(|dtype| [3, 42].map(|groups| (dtype, groups)))
        {
            let size = 210 / groups;
            let run = |device: &Device, rows: std::ops::Range<usize>, is_int8: bool| {
                let x = Host::random(1, 600, 3 * 96, dtype).tensor(device, Layout::Plain);
                let x = x.rows_range(rows).unwrap();
                let left = Host::random(2, groups, 3, DType::F32).tensor(device, Layout::Plain);
                let right = Weight::Dense(Host::random(3, size, 96, dtype).tensor(device, Layout::Plain));
                let dense = || Host::random(4, 210, 3 * 96, DType::Bf16).tensor(device, Layout::Plain);
                let weight =
                    if is_int8 { int8(device, [210, 3 * 96], 3 * 96) } else { Weight::Dense(dense()) };
                let mixed = ops::mix(&x, 96, &left, 0.5, dtype).unwrap();
                let terms = [Term { x: &mixed, weight: &right, groups }];
                let sum = ops::linear_with(&x, &weight, None, &terms, Activation::Silu, DType::F32);
                sum.unwrap().to_bytes()
            };
            for is_int8 in [false, true] {
                same_for_all(&devices, |device| run(device, 0..600, is_int8));
                let all = run(&devices[1], 0..600, is_int8);
                for rows in [0..1, 13..27, 300..589] {
                    let among = &all[rows.start * 840..rows.end * 840];
                    let alone = run(&devices[1], rows.clone(), is_int8);
                    assert!(alone == among, "{} {dtype} {groups} {rows:?}", devices[1].name());
                }
            }
        }
    }
}

/// Up to 288 rows of bf16 may have a kernel of their own, with panels of 16 to 64 rows of activations: the bits are those
/// of the one for many rows. The weight has more than one block of k, and rows that are no words.
#[test]
fn few_rows_of_a_linear_layer_have_the_bits_of_many() {
    const OUTS: usize = 53;
    for devices in by_threads() {
        let device = &devices[1];
        for k in [6, 1111, 3100, 6400] {
            let x = Host::random(1, 600, k, DType::Bf16).tensor(device, Layout::Plain);
            let weight = Weight::Dense(Host::random(2, OUTS, k, DType::Bf16).tensor(device, Layout::Plain));
            let bias = vector(device, &random(3, OUTS));
            let run = |x: &Tensor| {
                ops::linear(x, &weight, Some(&bias), Activation::GeluTanh, DType::F32).unwrap().to_bytes()
            };
            let all = run(&x);
            for rows in
                [1, 8, 9, 16, 17, 24, 25, 32, 33, 40, 41, 48, 49, 56, 57, 64, 65, 73, 128, 129, 257, 288, 289]
            {
                let first = rows % 7;
                let alone = run(&x.rows_range(first..first + rows).unwrap());
                let among = &all[first * OUTS * 4..(first + rows) * OUTS * 4];
                assert!(alone == among, "{} {rows} rows of {k}", device.name());
            }
        }
    }
}

#[test]
fn a_picture_of_a_convolution_does_not_depend_on_the_others() {
    for devices in by_threads() {
        let device = &devices[1];
        for dtype in ACTIVATIONS {
            let x = Host::random(1, 3 * 9 * 17, 8, dtype).values;
            let bias = vector(device, &random(3, 33));
            let plain = Weight::Dense(Host::random(2, 33, 72, dtype).tensor(device, Layout::Plain));
            for matrix in [plain, int8(device, [33, 72], 8)] {
                let weight = ConvWeight { matrix, kernel: 3 };
                let run = |values: &[f32], n: usize| {
                    let x = make(device, values, dtype, Shape::nhwc(n, 9, 17, 8));
                    ops::conv2d(&x, &weight, &bias, Window::whole(Padding::all(1)), DType::F32)
                        .unwrap()
                        .to_bytes()
                };
                let (all, one) = (run(&x, 3), 9 * 17 * 8);
                for (i, picture) in x.chunks(one).enumerate() {
                    let bytes = 9 * 17 * 33 * 4;
                    let alone = run(picture, 1);
                    assert!(alone == all[i * bytes..(i + 1) * bytes], "{} {dtype}", device.name());
                }
            }
        }
    }
}

/// Every way to cut a picture in two, for all windows that the networks have: lines of the first part stay above the
/// second.
#[test]
fn a_convolution_of_a_strip_is_a_part_of_the_whole_one() {
    const SIZE: [usize; 4] = [1, 12, 115, 6];
    let [_, h, w, c] = SIZE;
    for devices in by_threads() {
        let device = &devices[1];
        let whole = Window::whole(Padding::all(1));
        let halving = Window { stride: 2, ..Window::whole(Padding::behind(1)) };
        let windows = [(whole, 3), (whole, ConvWeight::DOUBLING), (halving, 3)];
        for (dtype, (window, kernel)) in
            ACTIVATIONS.into_iter().flat_map(|dtype| windows.map(|window| (dtype, window)))
        {
            let zoom = if kernel == ConvWeight::DOUBLING { 2 } else { 1 };
            let [rows, cols] = [zoom * zoom * 35, kernel * kernel * c];
            let values = Host::random(1, h * w * c, c, dtype).values;
            let lines = |lines: std::ops::Range<usize>| {
                let shape = Shape::nhwc(1, lines.len(), w, c);
                make(device, &values[lines.start * w * c..lines.end * w * c], dtype, shape)
            };
            let plain = Weight::Dense(Host::random(2, rows, cols, dtype).tensor(device, Layout::Plain));
            let (bias, gamma) = (vector(device, &random(3, 35)), vector(device, &random(4, c)));
            let norm = PixelNorm { gamma: &gamma, activation: Activation::Silu };
            for matrix in [plain, int8(device, [rows, cols], c)] {
                let weight = ConvWeight { matrix, kernel };
                let run = |above: Option<&Tensor>, x: &Tensor, padding: Padding| {
                    let window = Window { above, padding, ..window };
                    ops::conv2d_of(x, Some(norm), &weight, &bias, window, dtype).unwrap().to_bytes()
                };
                let whole = run(None, &lines(0..h), window.padding);
                for cut in 2..h {
                    // The first line of the input that the second part's first output sees, and that output's line.
                    let (first, begun) = match (zoom, window.stride) {
                        (1, 1) => (cut - 2, cut - 1),
                        (1, _) => ((cut - 1) / 2 * 2, (cut - 1) / 2),
                        _ => (cut - 1, 2 * cut - 1),
                    };
                    let padding = Padding { above: 0, ..window.padding };
                    let strip = run(Some(&lines(first..cut)), &lines(cut..h), padding);
                    let line_bytes = whole.len() / (h * zoom / window.stride);
                    assert!(
                        strip == whole[begun * line_bytes..],
                        "{} {dtype} {kernel} {window:?} {cut}",
                        device.name()
                    );
                }
            }
        }
    }
}

/// Causal attention over sequences of these lengths, one behind the other in one stream.
fn attention(device: &Device, dtype: DType, lens: &[usize]) -> Tensor {
    let rows = lens.iter().sum();
    // Rows are made from the end backwards, so that the last sequences are the same whatever is before them.
    let host = |seed, cols: usize| {
        let mut values = random(seed, rows * cols);
        values.reverse();
        Host::new(rows, cols, dtype, &values).tensor(device, Layout::Plain)
    };
    let (q, k, v) = (host(1, 4 * 24), host(2, 2 * 24), host(3, 2 * 24));
    let streams = [Qkv { q: &q, k: &k, v: &v }];
    let mut start = 0;
    let mut sequences: Vec<Vec<std::ops::Range<usize>>> = Vec::new();
    for len in lens {
        sequences.push(std::iter::once(start..start + len).collect());
        start += len;
    }
    let args = Attention {
        streams: &streams,
        sequences: &sequences,
        n_heads: 4,
        n_kv_heads: 2,
        scale: 0.2,
        mask: Mask::Causal,
    };
    ops::attention(&args, DType::F32).unwrap().remove(0)
}

#[test]
fn a_sequence_of_attention_does_not_depend_on_the_others() {
    for devices in by_threads() {
        for dtype in ACTIVATIONS {
            let alone = attention(&devices[1], dtype, &[301]).to_bytes();
            for before in [1, 45, 113, 256] {
                let all = attention(&devices[1], dtype, &[before, 301]).to_bytes();
                assert!(all[before * 96 * 4..] == alone, "{} {dtype} behind {before}", devices[1].name());
            }
        }
    }
}
