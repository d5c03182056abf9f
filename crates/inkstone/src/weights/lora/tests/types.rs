//! Numbers in all the types that files have.

use inkstone_tensor::DType;

use super::{ALPHA, LAYER, Made, paths, with};
use crate::Error;
use crate::error::LoraProblem;

/// 0.5 in each type of matrices.
fn halves() -> [(&'static str, Vec<u8>); 6] {
    [
        ("F64", 0.5f64.to_le_bytes().to_vec()),
        ("F32", 0.5f32.to_le_bytes().to_vec()),
        ("BF16", vec![0x00, 0x3f]),
        ("F16", vec![0x00, 0x38]),
        ("F8_E4M3", vec![0x30]),
        ("F8_E5M2", vec![0x38]),
    ]
}

/// A layer of rank 2 from 4 to 6 whose matrices are of these types, with an alpha.
fn made(test: &str, down: &(&str, Vec<u8>), up: &(&str, Vec<u8>), alpha: (&str, &[usize], Vec<u8>)) -> Made {
    let names = ["A", "B"].map(|part| format!("{LAYER}.lora_{part}.weight"));
    let (dtype, dims, bytes) = alpha;
    Made::stored(
        test,
        &[
            (&names[0], down.0, &[2, 4], down.1.repeat(8)),
            (&names[1], up.0, &[6, 2], up.1.repeat(12)),
            (ALPHA, dtype, dims, bytes),
        ],
    )
}

#[test]
fn matrices_of_all_types_beside_each_other() {
    for down in halves() {
        for up in halves() {
            let file = made("types", &down, &up, ("F32", &[], 3f32.to_le_bytes().to_vec()));
            let path = paths(&file, [4, 6], DType::F32).unwrap().remove(0);
            assert!((path.factor - 0.75).abs() < 1e-6, "{down:?} {up:?}");
            for weight in [path.down.as_ref().unwrap(), &path.up] {
                let values = weight.tensors()[0].to_f32().unwrap();
                assert!(values.iter().all(|value| *value == 0.5), "{down:?} {up:?}: {values:?}");
            }
            let stored = file.open().unwrap().summary().unwrap().dtypes;
            assert_eq!(stored.keys().collect::<Vec<_>>(), [&down.0.to_lowercase()], "as the file has it");
        }
    }
}

#[test]
fn alphas_of_all_types() {
    let half = &halves()[1];
    let alphas: [(&str, &[usize], Vec<u8>); 13] = [
        ("I64", &[], 3i64.to_le_bytes().to_vec()),
        ("I32", &[1], 3i32.to_le_bytes().to_vec()),
        ("I16", &[], 3i16.to_le_bytes().to_vec()),
        ("I8", &[], vec![3]),
        ("U64", &[1], 3u64.to_le_bytes().to_vec()),
        ("U32", &[], 3u32.to_le_bytes().to_vec()),
        ("U16", &[], vec![3, 0]),
        ("U8", &[1, 1], vec![3]),
        ("F64", &[], 3f64.to_le_bytes().to_vec()),
        ("F16", &[1], vec![0x00, 0x42]),
        ("BF16", &[], vec![0x40, 0x40]),
        ("F8_E4M3", &[], vec![0x44]),
        ("F8_E5M2", &[1], vec![0x42]),
    ];
    for (dtype, dims, bytes) in alphas {
        let file = made("alphas", half, half, (dtype, dims, bytes));
        let path = paths(&file, [4, 6], DType::F32).unwrap().remove(0);
        assert!((path.factor - 0.75).abs() < 1e-6, "{dtype}: {}", path.factor);
        assert_eq!(file.open().unwrap().sha256().unwrap().len(), 64, "{dtype}");
    }
}

/// The hash is of all bytes, of those too that are no number of ours.
#[test]
fn a_whole_alpha_is_part_of_the_hash() {
    use sha2::{Digest as _, Sha256};
    let half = &halves()[1];
    let file = made("hash", half, half, ("I32", &[], 3i32.to_le_bytes().to_vec()));
    let bytes = std::fs::read(&file.0).unwrap();
    let lora = file.open().unwrap();
    assert_eq!(lora.sha256().unwrap(), format!("{:x}", Sha256::digest(&bytes)));
    assert_eq!(lora.summary().unwrap().bytes, bytes.len() as u64);
}

#[test]
fn fault_24_types_that_are_no_numbers() {
    let (half, three) = (&halves()[1], || 3f32.to_le_bytes().to_vec());
    for (dtype, bytes) in [("I8", vec![1]), ("U8", vec![1]), ("I32", vec![1, 0, 0, 0]), ("BOOL", vec![1])] {
        let problem = made("int", half, &(dtype, bytes), ("F32", &[], three())).problem();
        let LoraProblem::Type { tensor, have } = &problem else { panic!("{problem}") };
        assert_eq!((tensor.ends_with("lora_B.weight"), have), (true, &dtype.to_lowercase()));
    }
    let alphas: [(&str, &[usize], Vec<u8>); 4] = [
        ("BOOL", &[], vec![1]),
        ("F8_E8M0", &[], vec![127]),
        ("I64", &[2], vec![1; 16]),
        ("I32", &[0], Vec::new()),
    ];
    for (dtype, dims, bytes) in alphas {
        let problem = made("alpha", half, half, (dtype, dims, bytes)).problem();
        assert!(
            matches!(&problem, LoraProblem::Type { tensor, .. } if tensor == ALPHA),
            "{dtype}: {problem}"
        );
    }
    for value in [0i64, -200_000, i64::MAX] {
        let problem = made("range", half, half, ("I64", &[], value.to_le_bytes().to_vec())).problem();
        assert!(matches!(problem, LoraProblem::Alpha { .. }), "{value}: {problem}");
    }
}

#[test]
fn fault_24_numbers_that_are_none_in_other_types() {
    let half = &halves()[1];
    let three = || 3f32.to_le_bytes().to_vec();
    for (dtype, bytes) in [
        ("F8_E4M3", vec![0x7f]),
        ("F8_E5M2", vec![0x7c]),
        ("F64", f64::NAN.to_le_bytes().to_vec()),
        // Beyond f32.
        ("F64", 1e300f64.to_le_bytes().to_vec()),
    ] {
        let problem = made("nan", &(dtype, bytes), half, ("F32", &[], three())).problem();
        assert!(matches!(problem, LoraProblem::NotFinite { .. }), "{dtype}: {problem}");
    }
    let problem = made("f64", half, half, ("F64", &[], f64::INFINITY.to_le_bytes().to_vec())).problem();
    assert!(matches!(problem, LoraProblem::Alpha { .. }), "{problem}");
}

#[test]
fn a_type_that_is_not_read_is_named() {
    let error = made("name", &halves()[0], &("U8", vec![1]), ("F32", &[], vec![0; 4])).open().unwrap_err();
    let Error::Lora { .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains("has the type u8; allowed is f64, f32, bf16, f16 or an 8-bit float"));
    with("sound", &[]).open().unwrap();
}
