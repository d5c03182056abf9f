//! Large pictures to start from, within limits of memory.

use std::fs;

use inkstone::Pixels;
use serde_json::Value;

use super::dir::{Dir, Run, finish, golden};
use super::group::Group;

/// Draws little, from a picture.
const DRAW: &str = "'a red apple' --seed 1 --steps 2 --size 64x64 --json --no-progress -o a.png";

/// A JPEG whose head says 8000 x 8000 pixels, progressive with three components at full or half resolution: decoding it
/// takes 3 bytes of result for each pixel and 2 of coefficients for each of its samples, which are one at least: 320 MB.
fn progressive(dir: &Dir) {
    let mut jpeg = fs::read(golden("pictures/progressive.jpg")).unwrap();
    // The frame header: marker, length, precision, height, width.
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc2]).unwrap();
    let side = 8000_u16.to_be_bytes();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[side, side].concat());
    dir.write("large.jpg", jpeg);
}

fn shell(dir: &Dir, limit: &str, arguments: &str) -> Run {
    finish(&mut dir.script("sh", &format!("{limit}; exec \"$0\" {arguments}")))
}

fn event(run: &Run, name: &str) -> Value {
    let lines = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.into_iter().find(|event| event["event"] == name).unwrap()
}

/// FAULTS row 77: what decoding a picture takes is known from its head, and refused where it is too much.
#[test]
fn row_77_a_picture_that_does_not_fit_is_refused_before_it_is_decoded() {
    let dir = Dir::new();
    progressive(&dir);
    let refused = |run: &Run, limit: &str, cure: &str| {
        let told = "error[INK-0401]: the picture large.jpg does not fit into memory\n  why: it needs ";
        assert!(run.code == Some(4) && run.stderr.contains(told), "{limit}: {run:#?}");
        assert!(run.stderr.contains(limit), "{limit}: {run:#?}");
        assert!(run.stderr.ends_with(&format!("  try: give a smaller picture, or {cure}\n")), "{run:#?}");
    };
    for more in ["", " --dry-run"] {
        let draw = format!("{DRAW} -i large.jpg=0.5{more}");
        let run = shell(&dir, "true", &format!("{draw} --max-memory 300M"));
        refused(&run, "--max-memory allows 300 MiB", "allow more with --max-memory");
        refused(&shell(&dir, "ulimit -v 600000", &draw), "(ulimit -v)", "raise ulimit -v");
        refused(&shell(&dir, "ulimit -d 300000", &draw), "(ulimit -d)", "raise ulimit -d");
        if let Some(group) = Group::new(300 << 20) {
            refused(&group.run(&dir, &draw), "the control group leaves", "give the container more memory");
        }
    }
    assert_eq!(dir.files(), ["large.jpg"]);
}

/// FAULTS row 77: a PNG with 96 MiB of pixels, as it is and to be turned. The first is read row by row and draws where
/// the other one, of which all pixels are decoded, is refused; that one is in the plan.
#[test]
fn row_77_a_large_png_takes_little_and_one_to_be_turned_is_planned() {
    let dir = Dir::new();
    let (width_px, height_px) = (8192, 4096);
    let rgb = (0..=250).cycle().take(3 * width_px * height_px).collect();
    let png = inkstone::codec::png::write(&Pixels { width_px, height_px, rgb }, None).unwrap();
    dir.write("large.png", &png);
    // The EXIF chunk of another file, behind the signature and the head: length, name, data, checksum.
    let other = fs::read(golden("pictures/orientation6.png")).unwrap();
    let name = other.windows(4).position(|w| w == b"eXIf").unwrap();
    let len = u32::from_be_bytes(other[name - 4..name].try_into().unwrap()) as usize;
    let chunk = &other[name - 4..name + 8 + len];
    dir.write("turned.png", [&png[..33], chunk, &png[33..]].concat());

    let limited = |name: &str| shell(&dir, "true", &format!("{DRAW} -i {name}=0.5 --max-memory 110M"));
    let drawn = limited("large.png");
    assert_eq!(drawn.code, Some(0), "{drawn:#?}");
    let peak = event(&drawn, "picture")["peak_bytes"].as_u64().unwrap();
    assert!(peak < 110 << 20, "{peak} bytes");
    let refused = limited("turned.png");
    assert!(refused.code == Some(4) && refused.stderr.contains("INK-0401"), "{refused:#?}");

    let draw = |more: &str| shell(&dir, "true", &format!("{DRAW} -i turned.png=0.5{more}"));
    let planned = event(&draw(" --dry-run"), "dry-run")["memory"]["resident_bytes"].as_u64().unwrap();
    let peak = event(&draw(""), "picture")["peak_bytes"].as_u64().unwrap();
    // Decoding takes the most: 96 MiB are not there later.
    assert!(peak > 110 << 20 && peak <= planned && planned * 100 <= peak * 115, "{planned} for {peak}");
}
