//! Writes what `src/weights/embedded/packed.rs` reads; the format is described there.

/// Values of two bytes in a group that is left out when all of them are zero.
const GROUP: usize = 4;
/// The code of a high byte that is not among the most frequent ones.
const ESCAPE: u8 = 15;

/// Packs any bytes; bf16 weights become smaller.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let kept: Vec<bool> = pairs.chunks(GROUP).map(|group| group.iter().any(|pair| *pair != [0, 0])).collect();
    let values: Vec<[u8; 2]> = pairs
        .chunks(GROUP)
        .zip(&kept)
        .filter(|(_, kept)| **kept)
        .flat_map(|(group, _)| group)
        .copied()
        .collect();
    let frequent = frequent(&values);
    let codes: Vec<u8> = values
        .iter()
        .map(|[_, high]| (0..ESCAPE).find(|code| frequent[usize::from(*code)] == *high).unwrap_or(ESCAPE))
        .collect();
    let escaped: Vec<u8> =
        values.iter().zip(&codes).filter(|(_, code)| **code == ESCAPE).map(|([_, high], _)| *high).collect();

    let mut out = Vec::with_capacity(bytes.len());
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend((escaped.len() as u64).to_le_bytes());
    out.extend(frequent);
    out.extend(odd.first().copied().unwrap_or(0).to_le_bytes());
    out.extend(kept.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))));
    out.extend(codes.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4));
    out.extend(escaped);
    out.extend(values.iter().map(|[low, _]| *low));
    out
}

/// The most frequent high bytes, each once.
fn frequent(values: &[[u8; 2]]) -> [u8; ESCAPE as usize] {
    let mut counts = [0usize; 256];
    values.iter().for_each(|[_, high]| counts[usize::from(*high)] += 1);
    let mut order: Vec<u8> = (0..=255).collect();
    order.sort_by_key(|byte| std::cmp::Reverse(counts[usize::from(*byte)]));
    std::array::from_fn(|i| order[i])
}
