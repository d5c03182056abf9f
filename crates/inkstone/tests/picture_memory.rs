//! What reading a picture takes is told from its head: never less than it takes, and not much more.
#![allow(clippy::unwrap_used)] // as in tests

use image::ExtendedColorType;
use image::ImageEncoder as _;
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use inkstone::Error;
use inkstone::codec::read_image_sized;
use inkstone::memory::{Limit, LimitOf, Limits, Usage};
use inkstone::request::Size;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const SIZE: Size = Size { width_px: 128, height_px: 64 };
/// Tables and windows.
const EXACT_BYTES: usize = 6 << 20;

/// What the head tells that reading takes: on top of the address space that the process has, which only the process itself
/// changes, and nobody does between two equal ones. What is resident the system may change at any time.
fn told(file: &[u8]) -> usize {
    let nothing =
        Limits { address_space: Some(Limit { bytes: 1, of: LimitOf::AddressSpace }), ..Limits::default() };
    let has_bytes = || Usage::now().address_space_bytes;
    let mut tries = (0..100).filter_map(|_| {
        let before = has_bytes();
        let read = read_image_sized(file, SIZE, &nothing);
        let Err(Error::InsufficientMemory { shortage, .. }) = read else {
            panic!("{:?}", read.map(|pixels| pixels.rgb.len()))
        };
        (has_bytes() == before).then(|| usize::try_from(shortage.needed_bytes - before).unwrap())
    });
    tries.next().unwrap()
}

/// What reading takes; it need not succeed.
fn taken(file: &[u8]) -> usize {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let _ = read_image_sized(file, SIZE, &Limits::default());
    ALLOCATOR.peak_usage() - before
}

/// The same file with a frame header of another size, which is as far as memory goes.
fn jpeg_of(name: &str, marker: u8, side_px: u16) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/data/pictures");
    let mut jpeg = std::fs::read(format!("{folder}/{name}")).unwrap();
    let frame = jpeg.windows(2).position(|w| w == [0xff, marker]).unwrap();
    let side = side_px.to_be_bytes();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
    jpeg
}

#[test]
fn what_reading_takes_is_told_from_the_head() {
    let (w, h) = (1536_u32, 1024_u32);
    let samples = |channels: usize| -> Vec<u8> {
        (0..channels * (w * h) as usize).map(|i| ((i * 7919) >> 9).to_le_bytes()[0]).collect()
    };
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut add = |name, encode: &dyn Fn(&mut Vec<u8>)| {
        let mut file = Vec::new();
        encode(&mut file);
        files.push((name, file));
    };
    let (rgb, rgba) = (ExtendedColorType::Rgb8, ExtendedColorType::Rgba8);
    let png = |f: &mut Vec<u8>, color, depth, samples: &[u8]| {
        let mut encoder = png::Encoder::new(f, w, h);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(samples).unwrap();
    };
    add("png", &|f| png(f, png::ColorType::Rgb, png::BitDepth::Eight, &samples(3)));
    add("png with 16 bits", &|f| png(f, png::ColorType::Rgba, png::BitDepth::Sixteen, &samples(8)));
    add("jpeg", &|f| JpegEncoder::new(f).write_image(&samples(3), w, h, rgb).unwrap());
    add("gray jpeg", &|f| JpegEncoder::new(f).write_image(&samples(1), w, h, ExtendedColorType::L8).unwrap());
    add("webp", &|f| WebPEncoder::new_lossless(f).write_image(&samples(3), w, h, rgb).unwrap());
    add("webp with alpha", &|f| WebPEncoder::new_lossless(f).write_image(&samples(4), w, h, rgba).unwrap());
    files.push(("progressive jpeg", jpeg_of("progressive.jpg", 0xc2, 2000)));
    files.push(("subsampled jpeg", jpeg_of("subsampled.jpg", 0xc0, 2000)));
    files.push(("cmyk jpeg", jpeg_of("cmyk.jpg", 0xc0, 2000)));
    for (name, file) in &files {
        let (told, taken) = (told(file), taken(file));
        assert!(taken <= told, "{name}: {taken} bytes are taken, {told} are told");
        // Codes of a lossless WebP may take much more than those of an honest one.
        let codes = if name.starts_with("webp") { 460 * file.len() } else { 0 };
        assert!(told <= taken + taken / 7 + EXACT_BYTES + codes, "{name}: {told} for {taken}");
    }
    // 8 bytes for each pixel would be 12 MiB.
    assert!(told(&files[1].1) < 8 << 20, "rows are read one by one");
}
