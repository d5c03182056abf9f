use super::pack::pack;
use super::{size_bytes, unpack};

fn there_and_back(bytes: &[u8]) -> usize {
    let packed = pack(bytes);
    assert_eq!(size_bytes(&packed), bytes.len());
    let mut out = vec![0; bytes.len()];
    unpack(&packed, &mut out);
    assert!(out == bytes, "{} bytes changed", bytes.len());
    packed.len()
}

/// The lowest one.
fn byte(of: usize) -> u8 {
    of.to_le_bytes()[0]
}

/// Low and high bytes of bf16-like values: any low byte, the high byte one of `highs`.
fn values(count: usize, highs: &[u8]) -> Vec<u8> {
    (0..count).flat_map(|i| [byte(i * 89 + 3), highs[i * i % highs.len()]]).collect()
}

#[test]
fn every_size_and_every_byte_comes_back() {
    for size in 0..70 {
        there_and_back(&vec![0; size]);
        there_and_back(&(0..size).map(|i| byte(i * 37 + 1)).collect::<Vec<_>>());
        let sparse: Vec<u8> = (0..size).map(|i| if i % 23 == 22 { 7 } else { 0 }).collect();
        there_and_back(&sparse);
    }
    let all: Vec<u8> = (0..=255).collect();
    there_and_back(&values(10_000, &all));
}

#[test]
fn weights_take_twelve_bits_and_zeros_a_quarter_of_one() {
    let (groups, head) = (9_000 / 4 / 8 + 1, 64);
    let packed = there_and_back(&values(9_000, &[0x3c, 0x3d, 0xbc, 0xbd, 0x3b, 0xbb]));
    assert!(packed <= 9_000 * 12 / 8 + groups + head, "{packed}");
    let packed = there_and_back(&vec![0; 18_000]);
    assert!(packed <= groups + head, "{packed}");
}
