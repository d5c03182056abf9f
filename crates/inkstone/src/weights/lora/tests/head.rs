//! What is known of a file before its numbers are read.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::weights::lora::layers::Delta;

fn head(path: &Path) -> Lora {
    Lora::open_head(path, &device()).unwrap()
}

/// All but numbers: names, shapes, types, alphas.
#[test]
fn a_head_has_all_but_numbers() {
    let kind = |delta: &Delta| match delta {
        Delta::LowRank(_) => "product",
        Delta::Kronecker(..) => "kronecker",
        Delta::Hadamard(..) => "hadamard",
        Delta::Whole(_) => "whole",
    };
    let told = |lora: &Lora| -> Vec<String> {
        let layers = lora.layers().by_name.iter();
        let told = layers.map(|(flat, layer)| {
            let (kind, size, rank) = (kind(&layer.delta), layer.size(), layer.rank());
            format!(
                "{flat} {} {kind} {size:?} {rank:?} {} {:?} {}",
                layer.name, layer.stored, layer.alpha, layer.factor
            )
        });
        told.chain([format!("{} {}", lora.layers().dialect, lora.layers().has_alphas)]).collect()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/lora");
    let mut files = 0;
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(whole) = Lora::open(&path, &device()) else { continue };
        files += 1;
        let head = head(&path);
        assert_eq!(told(&head), told(&whole), "{}", path.display());
        head.read(&device()).unwrap();
        assert_eq!(head.sha256().unwrap(), whole.sha256().unwrap());
    }
    assert!(files >= 10, "{files} LoRAs");
}

/// What a LoRA takes is what its numbers take: 8-bit floats are kept with what they become.
#[test]
fn a_head_tells_what_the_file_takes() {
    let (a, b) = (format!("{LAYER}.lora_A.weight"), format!("{LAYER}.lora_B.weight"));
    for (dtype, size, more, passing) in
        [("BF16", 2, 0, 0), ("F32", 4, 0, 0), ("F8_E4M3", 1, 2, 0), ("F64", 8, 4, 12)]
    {
        let tensors =
            [(&*a, dtype, &[2, 4][..], vec![0; 8 * size]), (&*b, dtype, &[6, 2][..], vec![0; 12 * size])];
        let file = Made::stored("bytes", &tensors);
        let file_bytes = std::fs::metadata(&file.0).unwrap().len();
        assert_eq!(head(&file.0).memory_bytes(), file_bytes + 20 * more + 12 * passing, "{dtype}");
    }
}

/// Alphas are part of the head, other numbers are not.
#[test]
fn wrong_numbers_are_found_where_they_are_read() {
    let alpha = Lora::open_head(&with("nan-alpha", &[(ALPHA, &[], f32::NAN)]).0, &device());
    assert_eq!(alpha.unwrap_err().code(), "INK-0211");
    let down = format!("{LAYER}.lora_A.weight");
    let up = format!("{LAYER}.lora_B.weight");
    let file = Made::new("nan", &[(&down, &[2, 4], f32::NAN), (&up, &[6, 2], 1.0)], &[]);
    let lora = head(&file.0);
    for _ in 0..2 {
        assert_eq!(lora.read(&device()).unwrap_err().code(), "INK-0211");
    }
}

#[test]
fn fault_27_a_file_that_is_removed_or_written_to_before_its_numbers_are_read() {
    let file = with("removed-early", &[]);
    let want = format!("{:x}", Sha256::digest(std::fs::read(&file.0).unwrap()));
    let lora = head(&file.0);
    std::fs::remove_file(&file.0).unwrap();
    assert_eq!(lora.sha256().unwrap(), want, "read through");
    lora.read(&device()).unwrap();
    assert_eq!(lora.sha256().unwrap(), want, "as it was read");

    for change in ["cut", "longer", "rewritten"] {
        let file = with("changed", &[]);
        let (lora, bytes) = (head(&file.0), std::fs::read(&file.0).unwrap());
        // Clocks of file systems tick every few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let new = match change {
            "cut" => bytes[..bytes.len() - 4].to_vec(),
            "longer" => [&bytes[..], &[0; 4]].concat(),
            _ => bytes,
        };
        std::fs::write(&file.0, new).unwrap();
        assert_eq!(lora.read(&device()).unwrap_err().code(), "INK-0312", "{change}");
        assert_eq!(lora.sha256().unwrap_err().code(), "INK-0312", "{change}");
    }
}
