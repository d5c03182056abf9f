//! Quantized weights: every format's decoder against a plain definition of one element, alone and inside a product.

use inkstone_tensor::ops::{self, Activation};
use inkstone_tensor::{
    Affine, AffineBits, AlignedBuffer, BlockFormat, Blocks, ConvRot, DType, Device, Error, Float8, Quantized,
    Shape, Storage, Tensor, Weight, bf16, f16,
};

use crate::host::{ACTIVATIONS, Host, Layout, devices};
use crate::tolerance::{U, check, dot};

/// Bytes that look random, the same for a seed.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    (0..n).map(|_| next()).collect()
}

pub(crate) fn tensor(device: &Device, dtype: DType, rows: usize, cols: usize, bytes: &[u8]) -> Tensor {
    let mut buffer = AlignedBuffer::zeroed(bytes.len()).unwrap();
    buffer.as_mut_slice().copy_from_slice(bytes);
    Tensor::from_storage(device, Storage::Owned(buffer), dtype, Shape::matrix(rows, cols)).unwrap()
}

fn half(bytes: &[u8]) -> f64 {
    f64::from(f16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
}

/// Where a block's halves lie.
fn halves(format: BlockFormat) -> &'static [usize] {
    use BlockFormat::*;
    match format {
        Q4_0 | Q5_0 | Q8_0 => &[0],
        Q4_1 | Q5_1 | Q4K | Q5K => &[0, 2],
        Q2K => &[80, 82],
        Q3K => &[108],
        Q6K => &[208],
    }
}

/// Scale and minimum of the 32 elements `j` of a q4_K or q5_K block.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f64, f64) {
    let (scale, minimum) = if j < 4 {
        (packed[j] % 64, packed[j + 4] % 64)
    } else {
        (packed[j + 4] % 16 + 16 * (packed[j - 4] / 64), packed[j + 4] / 16 + 16 * (packed[j] / 64))
    };
    (f64::from(scale), f64::from(minimum))
}

/// Element `e` of a block, as ggml's description of the format has it.
fn element(format: BlockFormat, b: &[u8], e: usize) -> f64 {
    use BlockFormat::*;
    let nibble = |at: usize| f64::from(if e < 16 { b[at + e] % 16 } else { b[at + e - 16] / 16 });
    let fifth = |at: usize| f64::from((b[at + e / 8] >> (e % 8)) & 1) * 16.0;
    let d = half(&b[halves(format)[0]..]);
    let second = || half(&b[halves(format)[1]..]);
    // Of 256 elements: the half of 128, the quarter of 32 in it, the place in that.
    let (h, part, l) = (e / 128, e % 128 / 32, e % 32);
    let two_bits = |at: usize| f64::from((b[at + 32 * h + l] >> (2 * part)) & 3);
    let four_bits = |at: usize| {
        let byte = b[at + 32 * (e / 64) + l];
        f64::from(if e % 64 < 32 { byte % 16 } else { byte / 16 })
    };
    match format {
        Q4_0 => d * (nibble(2) - 8.0),
        Q4_1 => d * nibble(4) + second(),
        Q5_0 => d * (nibble(6) + fifth(2) - 16.0),
        Q5_1 => d * (nibble(8) + fifth(4)) + second(),
        Q8_0 => d * f64::from(b[2 + e].cast_signed()),
        Q2K => {
            let scale = b[e / 16];
            d * f64::from(scale % 16) * two_bits(16) - second() * f64::from(scale / 16)
        }
        Q3K => {
            let (packed, i) = (&b[96..108], e / 16);
            let low = if i < 8 { packed[i] % 16 } else { packed[i - 8] / 16 };
            let high = (packed[8 + i % 4] >> (2 * (i / 4))) % 4;
            let bit = f64::from((b[l] >> (4 * h + part)) & 1);
            d * (f64::from(low + 16 * high) - 32.0) * (two_bits(32) + 4.0 * bit - 4.0)
        }
        Q4K | Q5K => {
            let (scale, minimum) = scale_and_minimum(&b[4..16], e / 32);
            let code = if format == Q4K {
                four_bits(16)
            } else {
                four_bits(48) + 16.0 * f64::from((b[16 + l] >> (e / 32)) & 1)
            };
            d * scale * code - second() * minimum
        }
        Q6K => {
            let byte = b[64 * h + 32 * (part % 2) + l];
            let low = if part < 2 { byte % 16 } else { byte / 16 };
            let high = (b[128 + 32 * h + l] >> (2 * part)) % 4;
            let scale = f64::from(b[192 + e / 16].cast_signed());
            d * scale * (f64::from(low + 16 * high) - 32.0)
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
fn nearest(v: f64) -> f32 {
    v as f32
}

/// A quantized matrix and its values.
struct Case {
    name: String,
    n_out: usize,
    n_in: usize,
    values: Vec<f64>,
    /// Of rotated rows, how many elements together, and the values as they lie.
    rotated: Option<(usize, Vec<f64>)>,
    make: Box<dyn Fn(&Device) -> Quantized>,
}

fn blocks(format: BlockFormat, n_out: usize, n_in: usize) -> Case {
    let (len, size) = (format.block_len(), format.block_bytes());
    let row_bytes = format.row_bytes(n_in).unwrap();
    let mut bytes = noise(n_in as u64, n_out * row_bytes);
    for (i, block) in bytes.chunks_mut(size).enumerate() {
        for (k, at) in halves(format).iter().enumerate() {
            // Scales of both signs over many powers of two, one of them below the normal halves.
            let sign = if i % 3 == 0 { -1.0 } else { 1.0 };
            let power = [-9, -4, -17, -1][(i + k) % 4];
            let scale = f16::from_f32(sign * (1.0 + f32::from(block[3]) / 300.0) * 2f32.powi(power));
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    let rows = bytes.chunks(row_bytes.max(1));
    let values =
        rows.flat_map(|row| (0..n_in).map(|i| element(format, &row[i / len * size..], i % len))).collect();
    let make = move |device: &Device| {
        let data = tensor(device, DType::U8, n_out, row_bytes, &bytes);
        Quantized::Blocks(Blocks::new(format, data).unwrap())
    };
    Case { name: format.name().into(), n_out, n_in, values, rotated: None, make: Box::new(make) }
}

fn affine(bits: u8, group: usize, dtype: DType, n_out: usize, n_in: usize) -> Case {
    let width = usize::from(bits);
    let packed = noise(u64::from(bits), n_out * n_in * width / 8);
    let scales = Host::random(5, n_out, n_in / group, dtype);
    let biases = Host::random(6, n_out, n_in / group, dtype);
    let value = |i: usize| {
        let (row, col) = (i / n_in, i % n_in);
        // The bits of a row follow each other, the lowest of each byte first.
        let bit = |at: usize| (packed[row * n_in * width / 8 + at / 8] >> (at % 8)) & 1;
        let code: u32 = (0..width).map(|b| u32::from(bit(col * width + b)) << b).sum();
        scales.at(row, col / group) * f64::from(code) + biases.at(row, col / group)
    };
    let values = (0..n_out * n_in).map(value).collect();
    let name = format!("affine {bits} bits, groups of {group}, {dtype}");
    let make = move |device: &Device| {
        let codes = tensor(device, DType::U32, n_out, n_in * width / 32, &packed);
        let [scales, biases] = [&scales, &biases].map(|host| host.tensor(device, Layout::View));
        let bits = AffineBits::new(bits).unwrap();
        Quantized::Affine(Affine::new(bits, group, codes, scales, biases).unwrap())
    };
    Case { name, n_out, n_in, values, rotated: None, make: Box::new(make) }
}

fn float8(dtype: DType, scales: Option<Vec<f32>>, n_out: usize, n_in: usize) -> Case {
    let (exponent_bits, bias) = if dtype == DType::F8E4m3 { (4, 7) } else { (5, 15) };
    let mantissa_bits = 7 - exponent_bits;
    let bytes: Vec<u8> = noise(8, n_out * n_in)
        .into_iter()
        // No NaN and no infinity here.
        .map(|b| if b & 0x7f >= if exponent_bits == 4 { 0x7f } else { 0x7c } { b & 0x8f } else { b })
        .collect();
    let value = |(i, byte): (usize, &u8)| {
        let (sign, magnitude) = (if byte & 0x80 == 0 { 1.0 } else { -1.0 }, i32::from(byte & 0x7f));
        let (exponent, mantissa) = (magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1));
        let fraction = f64::from(mantissa) / f64::from(1 << mantissa_bits);
        let number = match exponent {
            0 => fraction * 2f64.powi(1 - bias),
            _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
        };
        let scale = scales.as_ref().map_or(1.0, |s| if s.len() == 1 { s[0] } else { s[i / n_in.max(1)] });
        sign * number * f64::from(scale)
    };
    let values = bytes.iter().enumerate().map(value).collect();
    let name = format!("{dtype} with {:?} scales", scales.as_ref().map(Vec::len));
    let make = move |device: &Device| {
        let scales = scales.as_ref().map(|s| crate::host::vector(device, s));
        Quantized::Float8(Float8::new(tensor(device, dtype, n_out, n_in, &bytes), scales).unwrap())
    };
    Case { name, n_out, n_in, values, rotated: None, make: Box::new(make) }
}

/// Row `i`, column `j` of the rotation of a group, times the root of its order: of each digit in base 4, -1 where the digits
/// of both add up to 3.
pub(crate) fn rotation(group: usize, i: usize, j: usize) -> f64 {
    let digits = group.ilog2() / 2;
    let negative = (0..digits).filter(|d| (i >> (2 * d)) % 4 + (j >> (2 * d)) % 4 == 3).count();
    if negative % 2 == 0 { 1.0 } else { -1.0 }
}

/// Each group of the values times the rotation, whole groups.
fn rotated(values: &[f64], group: usize) -> Vec<f64> {
    let root = f64::from(u32::try_from(group).unwrap()).sqrt();
    let of = |x: &[f64], i: usize| (0..group).map(|j| rotation(group, i, j) * x[j]).sum::<f64>() / root;
    values.chunks(group).flat_map(|x| (0..group).map(move |i| of(x, i))).collect()
}

fn convrot(group: usize, scales: Vec<f32>, n_out: usize, n_in: usize) -> Case {
    let mut bytes = noise(9, n_out * n_in);
    // The largest sums that there can be: -128 where the rotation's first row has 1, 127 where it has -1, and the reverse.
    for (i, byte) in bytes[..n_in].iter_mut().enumerate() {
        let sign = rotation(group, 0, i % group) * if i < group { 1.0 } else { -1.0 };
        *byte = if sign > 0.0 { 128 } else { 127 };
    }
    let scale = |i: usize| f64::from(if scales.len() == 1 { scales[0] } else { scales[i / n_in] });
    let whole: Vec<f64> = bytes.iter().map(|byte| f64::from(byte.cast_signed())).collect();
    let values = rotated(&whole, group).into_iter().enumerate().map(|(i, v)| v * scale(i)).collect();
    let as_they_lie = whole.iter().enumerate().map(|(i, v)| v * scale(i)).collect();
    let name = format!("convrot, groups of {group}, {} scales", scales.len());
    let make = move |device: &Device| {
        let values = tensor(device, DType::I8, n_out, n_in, &bytes);
        let scales = crate::host::vector(device, &scales);
        Quantized::ConvRot(ConvRot::new(values, scales, group).unwrap())
    };
    let rotated = (group > 1).then_some((group, as_they_lie));
    Case { name, n_out, n_in, values, rotated, make: Box::new(make) }
}

/// All formats, `n_in` about as wanted.
fn cases(n_out: usize, n_in: usize) -> Vec<Case> {
    let mut cases: Vec<Case> = BlockFormat::ALL
        .into_iter()
        .map(|format| blocks(format, n_out, n_in.next_multiple_of(format.block_len())))
        .collect();
    for (i, bits) in [3, 4, 5, 6, 8].into_iter().enumerate() {
        for (k, group) in [32, 64, 128].into_iter().enumerate() {
            let dtype = [DType::F32, DType::Bf16, DType::F16][(i + k) % 3];
            cases.push(affine(bits, group, dtype, n_out, n_in.next_multiple_of(group)));
        }
    }
    cases.push(float8(DType::F8E4m3, None, n_out, n_in));
    cases.push(float8(DType::F8E4m3, Some(vec![0.013]), n_out, n_in));
    let by_row: Vec<f32> = (0..n_out).map(|r| 1.0 + f32::from(u8::try_from(r).unwrap()) / 7.0).collect();
    for group in ConvRot::GROUPS {
        let n_in = n_in.next_multiple_of(group);
        let scales = if group == 16 { vec![0.013] } else { by_row.clone() };
        cases.push(convrot(group, scales, n_out, n_in));
    }
    cases.push(float8(DType::F8E5m2, Some(by_row), n_out, n_in));
    cases
}

#[test]
fn decoders_match_their_definitions() {
    for device in devices() {
        for (n_out, n_in) in [(1, 32), (3, 512), (2, 1024)] {
            for case in cases(n_out, n_in) {
                let weight = Weight::from((case.make)(&device));
                assert_eq!((weight.n_out(), weight.n_in()), (case.n_out, case.n_in), "{}", case.name);
                let ids: Vec<u32> = (0..u32::try_from(n_out).unwrap()).collect();
                let what = format!("{} {} {n_out}x{n_in}", device.name(), case.name);
                // One rounding at the end is all there is: a scale and a code multiply exactly, or fused.
                let want = |v: &f64| nearest(*v);
                let got = ops::embedding(&weight, &ids, DType::F32).unwrap().to_f32().unwrap();
                assert!(got.iter().zip(&case.values).all(|(g, v)| *g == want(v)), "{what} f32");
                let got = ops::embedding(&weight, &ids, DType::Bf16).unwrap().to_f32().unwrap();
                let rounded = |v: &f64| bf16::from_f32(want(v)).to_f32();
                assert!(got.iter().zip(&case.values).all(|(g, v)| *g == rounded(v)), "{what} bf16");
            }
        }
    }
}

/// Zeros have their signs too.
#[test]
fn decoders_give_the_same_bytes_on_every_table() {
    let devices = devices();
    for case in cases(3, 800) {
        for dtype in [DType::F32, DType::Bf16] {
            let bytes = |device: &Device| {
                let weight = Weight::from((case.make)(device));
                ops::embedding(&weight, &[2, 0, 1], dtype).unwrap().to_bytes()
            };
            let want = bytes(&devices[0]);
            for device in &devices[1..] {
                assert!(bytes(device) == want, "{} {} {dtype}", device.name(), case.name);
            }
        }
    }
}

#[test]
fn products_with_quantized_weights_match_their_definition() {
    for device in devices() {
        for (rows, n_out, n_in) in [(1, 1, 32), (15, 33, 96), (2, 31, 1300), (37, 70, 288)] {
            for case in cases(n_out, n_in) {
                let weight = Weight::from((case.make)(&device));
                for dtype in ACTIVATIONS {
                    let x = Host::random(1, rows, case.n_in, dtype);
                    let (activations, values, edges) = operands(&case, &x, dtype);
                    // Operands have the precision of the activations.
                    let stored: Vec<f32> = values.iter().map(|v| nearest(*v)).collect();
                    let w = Host::new(n_out, case.n_in, dtype, &stored);
                    let places = |i: usize| (0..case.n_in).map(move |k| (i / n_out, i % n_out, k));
                    let terms =
                        |i: usize| places(i).map(|(r, c, k)| activations[r * case.n_in + k] * w.at(c, k));
                    let edge = |i: usize| -> f64 {
                        places(i).map(|(r, c, k)| edges[r * case.n_in + k] * w.at(c, k).abs()).sum()
                    };
                    let want: Vec<f64> = (0..rows * n_out).map(|i| terms(i).sum()).collect();
                    let got = ops::linear(
                        &x.tensor(&device, Layout::View),
                        &weight,
                        None,
                        Activation::None,
                        DType::F32,
                    );
                    let what = format!("{} {} {dtype} {rows}x{n_out}x{n_in}", device.name(), case.name);
                    check(&what, &got.unwrap().to_f32().unwrap(), &want, |i| {
                        dot(case.n_in, terms(i).map(f64::abs).sum()) + edge(i)
                    });
                }
            }
        }
    }
}

/// What is multiplied: activations, the weight's values, and how far each activation may be off.
///
/// Activations of bf16 are rotated where the weight was, and rounded again. A rotated value is 8 rounds of sums of at most 256
/// elements, the root of 256 taken from it, which is exact: it is off by at most 8 U times the sum of their magnitudes over that
/// root. Where the rounding of all that it may be is not the same, it may be either.
fn operands(case: &Case, x: &Host, dtype: DType) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let Some((group, as_they_lie)) = case.rotated.as_ref().filter(|_| dtype == DType::Bf16) else {
        return (
            x.values.iter().map(|v| f64::from(*v)).collect(),
            case.values.clone(),
            vec![0.0; x.values.len()],
        );
    };
    let values: Vec<f64> = x.values.iter().map(|v| f64::from(*v)).collect();
    let root = f64::from(u32::try_from(*group).unwrap()).sqrt();
    let off = values.chunks(*group).flat_map(|x| {
        let sum: f64 = x.iter().map(|v| v.abs()).sum();
        vec![8.0 * U * sum / root; *group]
    });
    let round = |v: f64| f64::from(bf16::from_f32(nearest(v)).to_f32());
    let turned = rotated(&values, *group);
    let edges = turned.iter().zip(off).map(|(v, off)| round(v + off) - round(v - off)).collect();
    (turned.into_iter().map(round).collect(), as_they_lie.clone(), edges)
}

/// Blocks of rows that share panels, over several blocks of k and of columns: each row is the product of that row alone,
/// which the definition above is for.
#[test]
fn many_rows_share_what_is_decoded_for_them() {
    const ROWS: usize = 1100;
    for device in devices() {
        let case = blocks(BlockFormat::Q4K, 150, 1024);
        let weight = Weight::from((case.make)(&device));
        for dtype in ACTIVATIONS {
            let x = Host::random(1, ROWS, case.n_in, dtype).tensor(&device, Layout::Plain);
            let product = |x: &Tensor| {
                let y = ops::linear(x, &weight, None, Activation::None, DType::F32).unwrap();
                y.to_f32().unwrap()
            };
            let all = product(&x);
            for row in [0, 1, 279, 280, 549, 550, 551, 560, 1099] {
                let alone = product(&x.rows_range(row..row + 1).unwrap());
                assert_eq!(all[row * 150..][..150], alone, "{} {dtype} row {row}", device.name());
            }
        }
    }
}

/// Few rows of bf16 may be multiplied with decoded rows that never become a panel: each has the bits that it has among many. The
/// last weight's rows are no whole words.
#[test]
fn few_rows_have_the_bits_of_many() {
    const ROWS: usize = 300;
    const OUTS: usize = 19;
    for device in devices() {
        for case in cases(OUTS, 3300).into_iter().chain([float8(DType::F8E4m3, None, OUTS, 3301)]) {
            let weight = Weight::from((case.make)(&device));
            let x = Host::random(1, ROWS, case.n_in, DType::Bf16).tensor(&device, Layout::Plain);
            let product = |x: &Tensor| {
                ops::linear(x, &weight, None, Activation::None, DType::F32).unwrap().to_f32().unwrap()
            };
            let all = product(&x);
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 40, 64, 70] {
                let few = product(&x.rows_range(5..5 + rows).unwrap());
                let what = format!("{} {} {rows} rows", device.name(), case.name);
                assert_eq!(all[5 * OUTS..(5 + rows) * OUTS], few, "{what}");
            }
        }
    }
}

#[test]
fn nan_codes_of_8_bit_floats_stay_nan() {
    for device in devices() {
        let values = tensor(&device, DType::F8E4m3, 1, 3, &[0x7f, 0xff, 0x7e]);
        let weight = Weight::from(Quantized::Float8(Float8::new(values, None).unwrap()));
        let got = ops::embedding(&weight, &[0], DType::F32).unwrap().to_f32().unwrap();
        assert!(got[0].is_nan() && got[1].is_nan(), "{}: {got:?}", device.name());
        assert_eq!(got[2], 448.0);
        let values = tensor(&device, DType::F8E5m2, 1, 3, &[0x7f, 0xfc, 0x7b]);
        let weight = Weight::from(Quantized::Float8(Float8::new(values, None).unwrap()));
        let got = ops::embedding(&weight, &[0], DType::F32).unwrap().to_f32().unwrap();
        assert!(got[0].is_nan() && got[1] == f32::NEG_INFINITY && got[2] == 57344.0, "{got:?}");
    }
}

/// A scale of 0.5, then scales that are not finite: what is rounded without looking for NaN must not be these.
#[test]
fn scales_that_are_not_finite_give_nan() {
    const LEN: usize = 32;
    // The NaN that all ones are would become zero by rounding.
    let scales = [[0x00, 0x38], [0xff, 0x7f], [0xff, 0xff], [0x00, 0x7c]];
    let block = |scale: [u8; 2]| [&scale[..], &[0x21; LEN / 2]].concat();
    for device in devices() {
        let data = tensor(&device, DType::U8, 1, 18 * scales.len(), &scales.map(block).concat());
        let weight = Weight::from(Quantized::Blocks(Blocks::new(BlockFormat::Q4_0, data).unwrap()));
        for dtype in [DType::F32, DType::Bf16] {
            let got = ops::embedding(&weight, &[0], dtype).unwrap().to_f32().unwrap();
            let (finite, others) = got.split_at(LEN);
            // 0.5 * (1 - 8) and 0.5 * (2 - 8)
            let want = [[-3.5; LEN / 2], [-3.0; LEN / 2]].concat();
            assert_eq!(finite, want, "{} {dtype}", device.name());
            assert!(others.iter().all(|v| v.is_nan()), "{} {dtype}: {others:?}", device.name());
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let device = devices().pop().unwrap();
    let u8s = |cols| tensor(&device, DType::U8, 2, cols, &vec![0; 2 * cols]);
    assert!(matches!(Blocks::new(BlockFormat::Q4_0, u8s(19)), Err(Error::Shape { .. })));
    let floats = |rows, cols| Host::random(1, rows, cols, DType::F32).tensor(&device, Layout::Plain);
    assert!(matches!(Blocks::new(BlockFormat::Q4_0, floats(2, 18)), Err(Error::DType { .. })));
    let words = |cols| tensor(&device, DType::U32, 2, cols, &vec![0; 8 * cols]);
    let four = AffineBits::new(4).unwrap();
    assert!(Affine::new(four, 64, words(8), floats(2, 1), floats(2, 1)).is_ok());
    assert!(Affine::new(four, 64, words(9), floats(2, 1), floats(2, 1)).is_err());
    assert!(Affine::new(four, 64, words(8), floats(3, 1), floats(3, 1)).is_err());
    assert!(Affine::new(four, 64, words(8), floats(2, 1), floats(2, 2)).is_err());
    assert!(Affine::new(four, 48, words(8), floats(2, 1), floats(2, 1)).is_err());
    assert!(Affine::new(four, 64, u8s(8), floats(2, 1), floats(2, 1)).is_err());
    assert!([0, 1, 2, 7, 9, 16].map(AffineBits::new).iter().all(Option::is_none));
    let eights = |cols| tensor(&device, DType::F8E4m3, 2, cols, &vec![0; 2 * cols]);
    assert!(Float8::new(eights(5), Some(floats(1, 3))).is_err());
    assert!(matches!(Float8::new(floats(2, 2), None), Err(Error::DType { .. })));
    let signed = |cols| tensor(&device, DType::I8, 2, cols, &vec![0; 2 * cols]);
    assert!(ConvRot::new(signed(64), floats(1, 2), 16).is_ok());
    assert!(ConvRot::new(signed(64), floats(1, 1), 1).is_ok());
    assert!(matches!(ConvRot::new(u8s(64), floats(1, 2), 16), Err(Error::DType { .. })));
    assert!(matches!(ConvRot::new(signed(64), u8s(1), 16), Err(Error::DType { .. })));
    assert!(matches!(ConvRot::new(signed(64), floats(1, 3), 16), Err(Error::Shape { .. })));
    assert!(matches!(ConvRot::new(signed(64), floats(2, 1), 16), Err(Error::Shape { .. })));
    for (cols, group) in [(64, 0), (64, 2), (64, 32), (64, 128), (64, 256), (1024, 1024), (72, 16)] {
        assert!(
            matches!(ConvRot::new(signed(cols), floats(1, 2), group), Err(Error::Range { .. })),
            "{group}"
        );
    }
}
