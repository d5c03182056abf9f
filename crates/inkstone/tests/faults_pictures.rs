//! Pictures that are damaged, hostile or no pictures: rows 28 to 33 of the table of faults.
#![allow(clippy::unwrap_used)] // as in tests

use std::io::Write as _;
use std::path::PathBuf;

use flate2::{Compression, Crc, write::ZlibEncoder};
use inkstone::Error;
use inkstone::codec::{Metadata, read_image};
use inkstone::error::PictureProblem;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Everything in this file together stays below this.
const MEMORY_LIMIT_BYTES: usize = 200 << 20;

fn picture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/pictures");
    std::fs::read(folder.join(name)).unwrap()
}

fn problem(file: &[u8]) -> PictureProblem {
    match read_image(file) {
        Err(Error::Picture(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [name, data].concat();
    let mut crc = Crc::new();
    crc.update(&body);
    [&u32::try_from(data.len()).unwrap().to_be_bytes()[..], &body, &crc.sum().to_be_bytes()].concat()
}

fn header(width_px: u32, height_px: u32) -> Vec<u8> {
    chunk(b"IHDR", &[&width_px.to_be_bytes()[..], &height_px.to_be_bytes(), &[8, 2, 0, 0, 0]].concat())
}

/// A gray-blue picture of 2 x 2 pixels with chunks between its header and its pixels.
fn png(header: &[u8], extra: &[Vec<u8>]) -> Vec<u8> {
    let row = [0, 90, 90, 120, 90, 90, 120];
    let data = chunk(b"IDAT", &deflated(&[row, row].concat()));
    [b"\x89PNG\r\n\x1a\n", header, &extra.concat(), &data, &chunk(b"IEND", &[])].concat()
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// 512 MB of spaces, deflated.
fn bomb() -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(1));
    let part = vec![b' '; 1 << 20];
    for _ in 0..512 {
        encoder.write_all(&part).unwrap();
    }
    encoder.finish().unwrap()
}

fn assert_memory() {
    let peak = ALLOCATOR.peak_usage();
    assert!(peak < MEMORY_LIMIT_BYTES, "{} MB", peak >> 20);
}

#[test]
fn the_pictures_that_these_tests_damage_are_sound() {
    assert_eq!(read_image(&png(&header(2, 2), &[])).unwrap().rgb, [90, 90, 120].repeat(4));
    for name in ["rgba.png", "orientation6.jpg", "lossless.webp", "lossy.webp", "animated.png", "cmyk.jpg"] {
        assert!(read_image(&picture(name)).is_ok(), "{name}");
    }
}

#[test]
fn row_28_more_pixels_than_allowed_are_refused_before_they_are_decoded() {
    let too_large = |w, h| PictureProblem::TooLarge { width_px: w, height_px: h };
    for (w, h) in [(50_000, 50_000), (16_385, 1), (1, 16_385), (8193, 8193)] {
        assert_eq!(problem(&png(&header(w, h), &[])), too_large(w, h));
    }
    // The frame header of a JPEG: marker, length, precision, height, width.
    let mut jpeg = picture("gray.jpg");
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    assert_eq!(problem(&jpeg), too_large(65_535, 65_535));
    // The header of a lossless WebP: 14 bits of width - 1, 14 of height - 1, behind a signature of 0x2f.
    let mut webp = picture("lossless.webp");
    let start = webp.windows(4).position(|w| w == b"VP8L").unwrap() + 9;
    let sides = 0x3ffe | 0x3ffe << 14 | u32::from(webp[start + 3] & 0xf0) << 24;
    webp[start..start + 4].copy_from_slice(&sides.to_le_bytes());
    assert_eq!(problem(&webp), too_large(16_383, 16_383));
    // Rows that alone take 6 GB.
    assert!(read_image(&png(&header(0x7fff_ffff, 0x7fff_ffff), &[])).is_err());
    assert_memory();
}

#[test]
fn row_29_texts_and_profiles_that_swell_are_ignored_or_refused() {
    let bomb = bomb();
    let profile = chunk(b"iCCP", &[b"x\0\0", &bomb[..]].concat());
    let ztxt = chunk(b"zTXt", &[b"parameters\0\0", &bomb[..]].concat());
    let itxt = chunk(b"iTXt", &[b"inkstone\0\x01\0\0\0", &bomb[..]].concat());
    let other = chunk(b"zTXt", &[b"Comment\0\0", &bomb[..]].concat());
    for (extra, readable) in [(profile, true), (ztxt, false), (itxt, false), (other, true)] {
        let file = png(&header(2, 2), &[extra]);
        // The pixels are sound whatever the texts are.
        assert_eq!(read_image(&file).unwrap().rgb, [90, 90, 120].repeat(4));
        let read = Metadata::read_png(&file);
        assert_eq!(read.is_ok(), readable, "{} bytes: {read:?}", file.len());
    }
    let many = vec![chunk(b"tEXt", &[b"parameters\0", &[b'x'; 1 << 16][..]].concat()); 200];
    let _ = Metadata::read_png(&png(&header(2, 2), &many));
    assert_memory();
}

#[test]
fn row_30_of_many_frames_the_first_is_read() {
    // acTL: 100,000 frames, of which only the first is in the file; fcTL: 2 x 2 pixels at 0, 0.
    let control = chunk(b"acTL", &[&100_000_u32.to_be_bytes()[..], &[0; 4]].concat());
    let two = 2_u32.to_be_bytes();
    let frame = chunk(b"fcTL", &[&[0; 4][..], &two, &two, &[0; 8], &[0, 1, 0, 10], &[0, 0]].concat());
    assert_eq!(read_image(&png(&header(2, 2), &[control, frame])).unwrap().width_px, 2);
    assert_eq!(problem(b"GIF89a\x02\0\x02\0"), PictureProblem::NotAPicture { what: "a GIF" });
}

#[test]
fn row_31_pictures_that_break_off_are_refused() {
    for name in
        ["rgba.png", "gray16.png", "orientation6.jpg", "progressive.jpg", "lossless.webp", "lossy.webp"]
    {
        let whole = picture(name);
        // Every length up to the last bytes, which a decoder may do without.
        for len in 0..whole.len() - 16 {
            assert!(read_image(&whole[..len]).is_err(), "{name} cut to {len} of {} bytes", whole.len());
        }
        for len in whole.len() - 16..whole.len() {
            let _ = read_image(&whole[..len]);
        }
    }
}

#[test]
fn row_31_a_wrong_checksum_or_no_pixels_are_refused() {
    let mut file = png(&header(2, 2), &[]);
    let data = file.windows(4).position(|w| w == b"IDAT").unwrap();
    file[data + 8] ^= 1;
    assert!(matches!(problem(&file), PictureProblem::Damaged { .. }));
    for (w, h) in [(0, 0), (0, 4), (4, 0)] {
        assert!(matches!(problem(&png(&header(w, h), &[])), PictureProblem::Damaged { .. }), "{w} x {h}");
    }
}

#[test]
fn row_31_no_single_wrong_byte_ends_the_process() {
    for name in
        ["palette_alpha.png", "animated.png", "mflux.png", "cmyk.jpg", "progressive.jpg", "animated.webp"]
    {
        let mut file = picture(name);
        for at in 0..file.len() {
            for bits in [0x01, 0x80, 0xff] {
                file[at] ^= bits;
                let _ = read_image(&file);
                let _ = Metadata::read_png(&file);
                file[at] ^= bits;
            }
        }
    }
    assert_memory();
}

#[test]
fn row_33_other_files_are_refused_with_what_they_are() {
    for (file, want) in [
        (&b""[..], "empty"),
        (b" \n", "empty"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG, HTML or XML text"),
        (b"\xef\xbb\xbf <?xml version=\"1.0\"?><svg/>", "SVG, HTML or XML text"),
        (b"<!DOCTYPE html><html>", "SVG, HTML or XML text"),
        (b"%PDF-1.7\n\xff\xd8\xff", "a PDF"),
        (b"{\"error\":\"not found\"}", "JSON text"),
        (b"BM\0\0\0\0", "a BMP"),
        (b"II*\0\x08\0\0\0", "a TIFF"),
        (b"\0\0\0\x20ftypavif", "an AVIF, HEIC or video file"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"hello", "of no known format"),
        (b"RIFF\0\0\0\0WAVE", "of no known format"),
    ] {
        assert_eq!(problem(file), PictureProblem::NotAPicture { what: want });
    }
    let message = read_image(b"%PDF-1.7").unwrap_err().to_string();
    assert_eq!(message, "the picture cannot be used: it is a PDF; PNG, JPEG and WebP are read");
    // Only their start looks like pictures.
    for start in [&b"\x89PNG"[..], b"\xff\xd8\xff\xe0<html>", b"RIFF\xff\xff\xff\xffWEBPVP8 "] {
        assert!(matches!(problem(start), PictureProblem::Damaged { .. }));
    }
}
