//! What decoders take, told from a picture's head: never less than they do.

use crate::request::Size;

/// Tables, windows, and what allocators round up, of any decoder.
pub(super) const OF_ANY: usize = 3 << 20;

/// What decoding a JPEG takes with its result.
///
/// The decoder keeps a copy of the file. It decodes rows of blocks, except where a scan has not all of the picture: of
/// progressive files and of those with a scan for each component it keeps the coefficients of all blocks, 16 bits each.
///
/// # Source
/// `zune-jpeg` 0.5.15, `mcu.rs` and `mcu_prog.rs`.
pub(super) fn jpeg(file: &[u8], size: Size) -> usize {
    let Size { width_px, height_px } = size;
    let frame = Frame::of(file);
    let coefficients = if frame.is_buffered {
        let along = |px: usize, most: usize| px.div_ceil(8 * most) * most * 8;
        let plane = along(width_px, frame.most[0]) * along(height_px, frame.most[1]);
        // Each component has its share of the largest one.
        let shares: usize = frame.samplings.iter().map(|[across, down]| across * down).sum();
        2 * (plane * shares).div_ceil(frame.most[0] * frame.most[1])
    } else {
        0
    };
    // Of each component a row of blocks, the same at full resolution, and rows between them.
    let rows = ROW_BYTES * frame.samplings.len() * (width_px + 64);
    let result = if frame.samplings.len() == 1 { 1 } else { 3 } * width_px * height_px;
    OF_ANY + 2 * file.len() + result + coefficients + rows
}

/// Of a column of a component's row of blocks: 8 rows, at most four times as many at full resolution, of 16 bits, and
/// some more.
const ROW_BYTES: usize = 2 * (4 * 8 + 4 * 8 + 8 + 16);

/// What a JPEG says of its components before its first scan.
struct Frame {
    /// For each component how many of its blocks a unit has, across and down.
    samplings: Vec<[usize; 2]>,
    /// The most of these.
    most: [usize; 2],
    /// Whether the coefficients of the whole picture are kept.
    is_buffered: bool,
}

impl Frame {
    fn of(file: &[u8]) -> Self {
        // What cannot be found out takes the most that there is: four components at full resolution.
        let mut frame = Self { samplings: vec![[1, 1]; 4], most: [1, 1], is_buffered: true };
        let mut is_progressive = false;
        let mut rest = file.get(2..).unwrap_or_default();
        while let Some((marker, body, behind)) = segment(rest) {
            match (marker, body) {
                // Behind the sizes: for each component its number, samplings and table.
                (0xc0..=0xc2, [_, _, _, _, _, _, components @ ..]) => {
                    is_progressive |= marker == 0xc2;
                    let sampling = |c: &[u8]| [usize::from(c[1] >> 4).max(1), usize::from(c[1] & 15).max(1)];
                    frame.samplings = components.chunks_exact(3).map(sampling).collect();
                    let most = |i: usize| frame.samplings.iter().map(|s| s[i]).max().unwrap_or(1);
                    frame.most = [most(0), most(1)];
                }
                (0xda, [scanned, ..]) => {
                    frame.is_buffered = is_progressive || usize::from(*scanned) != frame.samplings.len();
                    break;
                }
                _ => {}
            }
            rest = behind;
        }
        frame
    }
}

/// A marker, what it holds, and what is behind it.
fn segment(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let start = bytes.iter().position(|byte| *byte == 0xff)?;
    let start = start + bytes[start..].iter().position(|byte| *byte != 0xff)?;
    match bytes[start..] {
        // Markers without a length.
        [marker @ (0 | 1 | 0xd0..=0xd8), ref behind @ ..] => Some((marker, &[], behind)),
        [marker, high, low, ..] => {
            let len = usize::from(u16::from_be_bytes([high, low]));
            Some((marker, bytes.get(start + 3..start + 1 + len)?, &bytes[start + 1 + len..]))
        }
        _ => None,
    }
}

/// What decoding a WebP takes with its result, of `channels` bytes a pixel.
///
/// # Source
/// `image-webp` 0.2.4: `decoder.rs`, `extended.rs`, `lossless.rs`, `vp8.rs`.
pub(super) fn webp(file: &[u8], size: Size, channels: usize, is_animated: bool) -> usize {
    let pixels = size.width_px * size.height_px;
    let has_alpha = channels == 4;
    // Luma in whole blocks and two planes of half the resolution.
    let lossy = 3 * size.width_px.next_multiple_of(16) * size.height_px.next_multiple_of(16) / 2;
    // For each 4 x 4 pixels those of two predictions and the numbers of codes, twice.
    let tables = 16 * pixels.div_ceil(16) + codes(file.len(), pixels);
    // The decoder makes RGBA, beside the result where that is RGB.
    let lossless = tables + if has_alpha { 0 } else { 4 * pixels };
    // An alpha channel of its own is the green one of a lossless picture.
    let alpha = if has_alpha { 5 * pixels + tables } else { 0 };
    let frame = match chunk_of_pixels(file) {
        Some(b"VP8 ") => lossy + alpha,
        Some(b"VP8L") => lossless,
        _ => (lossy + alpha).max(lossless),
    };
    // What moves is drawn on a canvas, from a frame of its own.
    let canvas = if is_animated { 8 * pixels } else { 0 };
    OF_ANY + 2 * file.len() + channels * pixels + frame + canvas
}

/// The name of the chunk that holds a still picture.
fn chunk_of_pixels(file: &[u8]) -> Option<&[u8]> {
    let mut rest = file.get(12..)?;
    loop {
        let (name, len) = (rest.get(..4)?, rest.get(4..8)?);
        if matches!(name, b"VP8 " | b"VP8L") {
            return Some(name);
        }
        let len = usize::try_from(u32::from_le_bytes(len.try_into().ok()?)).ok()?;
        rest = rest.get(8 + len.next_multiple_of(2)..)?;
    }
}

/// Tables of codes of a lossless WebP: five for each group, of which a block of 4 x 4 pixels can have its own. A table of 4 KiB
/// takes ten bytes of the file at least: 42 bits for the lengths of lengths, eleven lengths.
fn codes(file_bytes: usize, pixels: usize) -> usize {
    const TABLE_BYTES: usize = 4608;
    let groups = pixels.div_ceil(16).min(1 << 16);
    TABLE_BYTES * (5 * groups).min(file_bytes / 10)
}
