//! Weights of several tensors whose parts do not belong together.

use inkstone::Error;
use inkstone::error::TensorReport;
use inkstone::weights::{Loader, ModelSource, Parts, SafeTensors, Strictness};
use inkstone_tensor::DType;

use crate::dir::{Dir, device, golden};

/// A tensor's name, type and shape.
type Entry<'a> = (&'a str, &'a str, &'a [usize]);

/// A file with tensors of zeros.
fn file(tensors: &[Entry<'_>]) -> SafeTensors {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape) in tensors {
        let size = match *dtype {
            "F64" | "I64" => 8,
            "U32" | "F32" => 4,
            "BF16" => 2,
            _ => 1,
        };
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        header.insert((*name).into(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + end, 0);
    SafeTensors::from_bytes("packed.safetensors".as_ref(), &bytes, &device()).unwrap()
}

/// What a loader says about a weight `x.weight [4, 128]` of these tensors.
fn report(tensors: &[(&str, &str, &[usize])]) -> Result<(), TensorReport> {
    let mut loader = Loader::new("test", &device(), DType::F32, file(tensors).tensors)
        .with_strictness(Strictness::RefuseExtra);
    let weight = loader.weight("x.weight", 4, 128);
    match loader.finish() {
        Ok(()) => {
            assert_eq!((weight.n_out(), weight.n_in()), (4, 128));
            Ok(())
        }
        Err(Error::Tensors { report, .. }) => Err(*report),
        Err(other) => panic!("{other}"),
    }
}

const PACKED: (&str, &str, &[usize]) = ("x.weight", "U32", &[4, 16]);
const SCALES: (&str, &str, &[usize]) = ("x.scales", "BF16", &[4, 2]);
const BIASES: (&str, &str, &[usize]) = ("x.biases", "BF16", &[4, 2]);

#[test]
fn parts_of_packed_weights_are_checked() {
    assert_eq!(report(&[PACKED, SCALES, BIASES]), Ok(()));
    let eight_bits: &[_] = &[("x.weight", "U32", &[4, 32][..]), SCALES, BIASES];
    assert_eq!(report(eight_bits), Ok(()));
    let bad: &[&[(&str, &str, &[usize])]] = &[
        &[PACKED],
        &[PACKED, SCALES],
        &[PACKED, SCALES, ("x.biases", "BF16", &[4, 1])],
        &[PACKED, SCALES, ("x.biases", "F32", &[4, 2])],
        &[PACKED, ("x.scales", "U8", &[4, 2]), ("x.biases", "U8", &[4, 2])],
        &[PACKED, ("x.scales", "BF16", &[3, 2]), ("x.biases", "BF16", &[3, 2])],
        // 7 bits, no bits, groups of 16, of 256 and of nothing.
        &[("x.weight", "U32", &[4, 28]), SCALES, BIASES],
        &[("x.weight", "U32", &[4, 0]), SCALES, BIASES],
        &[PACKED, ("x.scales", "BF16", &[4, 8]), ("x.biases", "BF16", &[4, 8])],
        &[("x.weight", "U32", &[4, 32]), ("x.scales", "BF16", &[4, 1]), ("x.biases", "BF16", &[4, 0])],
        &[PACKED, ("x.scales", "BF16", &[4, 0]), ("x.biases", "BF16", &[4, 0])],
        // Rows of another matrix.
        &[("x.weight", "U32", &[3, 16]), ("x.scales", "BF16", &[3, 2]), ("x.biases", "BF16", &[3, 2])],
    ];
    for tensors in bad {
        let report = report(tensors).expect_err("refused");
        assert_eq!(report.misshapen.len(), 1, "{tensors:?}: {report}");
        assert!(report.misshapen[0].want.starts_with("[4, 128], packed"), "{report}");
    }
}

#[test]
fn parts_of_8_bit_floats_are_checked() {
    let values: (&str, &str, &[usize]) = ("x.weight", "F8_E4M3", &[4, 128]);
    for scale in [&[][..], &[1], &[4], &[4, 1]] {
        for name in ["x.scale_weight", "x.weight_scale"] {
            assert_eq!(report(&[values, (name, "F32", scale)]), Ok(()));
        }
    }
    let others =
        [("x.input_scale", "F32", &[][..]), ("x.comfy_quant", "U8", &[5]), ("scaled_fp8", "F8_E4M3", &[2])];
    assert_eq!(report(&[&[values][..], &others].concat()), Ok(()));
    for scale in [&[3][..], &[4, 2], &[0]] {
        let report = report(&[values, ("x.scale_weight", "F32", scale)]).expect_err("refused");
        assert_eq!(report.misshapen.len(), 1, "{scale:?}");
    }
    let report = report(&[("x.weight", "F8_E5M2", &[128, 4])]).expect_err("refused");
    assert_eq!(report.misshapen[0].have, "[128, 4] in f8_e5m2");
}

#[test]
fn row_08_small_tensors_of_8_bit_floats_are_checked() {
    let load = |tensors: &[(&str, &str, &[usize])], dims: &[usize]| {
        let mut loader = Loader::new("test", &device(), DType::F32, file(tensors).tensors)
            .with_strictness(Strictness::RefuseExtra);
        let values = loader.tensor("x.weight", dims);
        loader.finish().map(|()| values.shape().dims().to_vec())
    };
    let kernel: (&str, &str, &[usize]) = ("x.weight", "F8_E4M3", &[4, 2, 3, 3]);
    for scale in [&[][..], &[1], &[4], &[4, 1, 1, 1]] {
        let tensors = [kernel, ("x.scale_weight", "F32", scale), ("x.scale_input", "F32", &[])];
        assert_eq!(load(&tensors, kernel.2).unwrap(), kernel.2);
    }
    let vector: (&str, &str, &[usize]) = ("x.weight", "F8_E5M2", &[4]);
    assert_eq!(load(&[vector, ("x.weight_scale", "F32", &[1])], &[4]).unwrap(), [4]);
    let bad: &[(&[Entry<'_>], &[usize])] = &[
        (&[kernel, ("x.scale_weight", "F32", &[2])], &[4, 2, 3, 3]),
        (&[kernel, ("x.scale_weight", "I64", &[])], &[4, 2, 3, 3]),
        (&[vector, ("x.scale_weight", "F32", &[2])], &[4]),
        (&[kernel], &[4, 2, 9]),
        (&[vector], &[5]),
        (&[("x.weight", "F64", &[4])], &[2, 2]),
        (&[("x.weight", "F8_E4M3", &[0, 3])], &[4, 3]),
    ];
    for (tensors, dims) in bad {
        let Err(Error::Tensors { report, .. }) = load(tensors, dims) else { panic!("{tensors:?}") };
        assert_eq!((report.misshapen.len(), report.mistyped.len()), (1, 0), "{tensors:?}: {report}");
    }
}

#[test]
fn row_08_packed_tensors_where_plain_ones_belong() {
    let tensors = file(&[("v", "I8", &[4]), ("w", "U32", &[4])]).tensors;
    let mut loader = Loader::new("test", &device(), DType::F32, tensors);
    loader.vector("v", 4);
    loader.tensor("w", &[4]);
    let Err(Error::Tensors { report, .. }) = loader.finish() else { panic!() };
    let types: Vec<&str> = report.mistyped.iter().map(|t| t.have.as_str()).collect();
    assert_eq!(types, ["i8", "u32"]);
}

#[test]
fn row_12_scales_that_are_not_finite() {
    use inkstone::weights::{Component, ModelFiles, ReadOptions, Scan};
    let dir = Dir::empty("gguf-nan");
    // A block of q4_0: a half, then codes.
    let mut bytes = crate::gguf::File::new(3, 1, 0).tensor(b"a", &[32], 2, 0).data(32, 18);
    let check = |bytes: &[u8]| {
        dir.write("x.gguf", bytes);
        let parts = Parts { transformer: Some(dir.0.join("x.gguf")), ..Default::default() };
        let source = ModelSource::Pieces { folder: golden(), parts };
        let options = ReadOptions { scan: Scan::NotFinite, ..Default::default() };
        let files = ModelFiles::open(&source, options).unwrap();
        files.loader(Component::Transformer, &device(), DType::F32)
    };
    assert!(check(&bytes).is_ok());
    let half = bytes.len() - 18;
    for not_finite in [0x7c00u16, 0x7e00, 0xfc00] {
        bytes[half..half + 2].copy_from_slice(&not_finite.to_le_bytes());
        assert!(matches!(check(&bytes), Err(Error::WeightsNotFinite { count: 1, .. })));
    }
}

#[test]
fn a_part_that_is_not_there_is_named() {
    let parts = Parts { vae: Some("/no/such/file.safetensors".into()), ..Default::default() };
    let source = ModelSource::Pieces { folder: golden(), parts };
    let files = inkstone::weights::ModelFiles::open(&source, Default::default()).unwrap();
    let error = files.loader(inkstone::weights::Component::Vae, &device(), DType::F32).unwrap_err();
    assert!(matches!(&error, Error::ModelRead { path, .. } if path.ends_with("file.safetensors")), "{error}");
}
