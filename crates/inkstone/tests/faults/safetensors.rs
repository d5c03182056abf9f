//! Rows 1 to 11: safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use inkstone::Error;
use inkstone::error::HeaderProblem;
use inkstone::weights::{Loader, SafeTensors, Strictness};
use inkstone_tensor::{DType, Device};

fn device() -> Device {
    Device::cpu(&Default::default()).unwrap()
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.resize(out.len() + data_bytes, 0);
    out
}

fn read(bytes: &[u8]) -> Result<SafeTensors, Error> {
    SafeTensors::from_bytes(Path::new("weights.safetensors"), bytes, &device())
}

fn problem(bytes: &[u8]) -> HeaderProblem {
    match read(bytes) {
        Err(error @ Error::Safetensors { .. }) => {
            assert!(error.code().starts_with("INK-03"), "{}", error.code());
            assert!(error.to_string().starts_with("weights.safetensors is not"), "{error}");
            match error {
                Error::Safetensors { problem, .. } => problem,
                _ => unreachable!(),
            }
        }
        other => panic!("{other:?}"),
    }
}

/// A tensor's entry in a header.
fn f32_entry(name: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

#[test]
fn sound_files_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/qwen_te_single.safetensors");
    for residence in [inkstone::weights::Residence::Mapped, inkstone::weights::Residence::Owned] {
        let file = SafeTensors::open(&golden, &device(), residence).unwrap();
        assert!(file.metadata["about"].contains("a photo of a cat"));
        assert!(file.tensors.len() > 3);
        let ids = file.tensors.iter().find(|(_, t)| t.dtype() == DType::I64).unwrap().0;
        assert!(file.i64s(ids).unwrap().iter().all(|id| (0..200_000).contains(id)));
    }
    let empty = read(&file("{}", 0)).unwrap();
    assert!(empty.tensors.is_empty());
    let scalar = read(&file(&format!("{{{}}}", f32_entry("a", "[]", 0, 4)), 4)).unwrap();
    assert_eq!(scalar.tensors["a"].to_f32().unwrap(), [0.0]);
}

#[test]
fn row_01_short_files() {
    for bytes in [&b""[..], b"1234567"] {
        let file_bytes = bytes.len() as u64;
        assert_eq!(problem(bytes), HeaderProblem::TooShort { file_bytes });
    }
    assert!(matches!(problem(&[0; 8]), HeaderProblem::Json { .. }));
}

#[test]
fn row_02_header_length_lies() {
    for length in [u64::MAX, 1 << 63, 1 << 40, 3] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        let want = HeaderProblem::HeaderOutsideFile { header_bytes: length, file_bytes: 10 };
        assert_eq!(problem(&bytes), want);
    }
}

#[test]
fn row_03_header_over_the_limit() {
    let mut header = String::from("{}");
    header.extend(std::iter::repeat_n(' ', 25_000_001 - 2));
    let got = problem(&file(&header, 0));
    assert_eq!(got, HeaderProblem::HeaderTooLarge { header_bytes: 25_000_001, limit_bytes: 25_000_000 });
    let many: Vec<String> = (0..100_001).map(|i| f32_entry(&i.to_string(), "[0]", 0, 0)).collect();
    let got = problem(&file(&format!("{{{}}}", many.join(",")), 0));
    assert_eq!(got, HeaderProblem::TooMany { what: "tensors", limit: 100_000 });
}

#[test]
fn row_04_trailing_hole_overlap() {
    let two =
        |begin, end| format!("{{{},{}}}", f32_entry("a", "[2]", 0, 8), f32_entry("b", "[1]", begin, end));
    assert!(read(&file(&two(8, 12), 12)).is_ok());
    assert_eq!(problem(&file(&two(8, 12), 13)), HeaderProblem::Trailing { trailing_bytes: 1 });
    let layout =
        |begin, previous_end, name: &str| HeaderProblem::Layout { name: name.into(), begin, previous_end };
    assert_eq!(problem(&file(&two(12, 16), 16)), layout(12, 8, "b"));
    assert_eq!(problem(&file(&two(4, 8), 8)), layout(4, 8, "b"));
    assert_eq!(problem(&file(&two(0, 4), 8)), layout(0, 4, "a"));
}

#[test]
fn row_05_duplicate_names() {
    let twice = format!("{{{},{}}}", f32_entry("a", "[1]", 0, 4), f32_entry("a", "[1]", 4, 8));
    assert_eq!(problem(&file(&twice, 8)), HeaderProblem::Duplicate { name: "a".into() });
    let escaped = format!("{{{},{}}}", f32_entry("a", "[1]", 0, 4), f32_entry("\\u0061", "[1]", 4, 8));
    assert_eq!(problem(&file(&escaped, 8)), HeaderProblem::Duplicate { name: "a".into() });
    let metadata = r#"{"__metadata__":{"k":"1","k":"2"}}"#;
    assert_eq!(problem(&file(metadata, 0)), HeaderProblem::Duplicate { name: "k".into() });
    let metadata = r#"{"__metadata__":{},"__metadata__":{}}"#;
    assert_eq!(problem(&file(metadata, 0)), HeaderProblem::Duplicate { name: "__metadata__".into() });
    let field = r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(matches!(problem(&file(field, 4)), HeaderProblem::Json { .. }));
}

#[test]
fn row_06_shapes_that_overflow() {
    let max = u64::MAX;
    let shapes = [
        format!("[{max}]"),
        format!("[0,{max}]"),
        format!("[{max},0]"),
        "[4294967296,4294967296]".into(),
        "[4611686018427387904]".into(),
    ];
    for shape in shapes {
        let header = format!("{{{}}}", f32_entry("a", &shape, 0, 0));
        assert_eq!(problem(&file(&header, 0)), HeaderProblem::Overflow { name: "a".into() }, "{shape}");
    }
    for shape in ["[-1]", "[1.5]", "[18446744073709551616]", "[1e2]", "[null]", "7"] {
        let header = format!("{{{}}}", f32_entry("a", shape, 0, 4));
        assert!(matches!(problem(&file(&header, 4)), HeaderProblem::Json { .. }), "{shape}");
    }
    let header = format!("{{{}}}", f32_entry("a", "[1,1,1,1,1,1]", 0, 4));
    assert_eq!(problem(&file(&header, 4)), HeaderProblem::Rank { name: "a".into(), rank: 6, limit: 5 });
}

#[test]
fn row_07_offsets_outside_the_file() {
    for end in [1004, u64::MAX - 3] {
        let header = format!("{{{}}}", f32_entry("a", "[1]", end - 4, end));
        let want = HeaderProblem::OutsideFile { name: "a".into(), end, data_bytes: 4 };
        assert_eq!(problem(&file(&header, 4)), want);
    }
    let header = format!("{{{}}}", f32_entry("a", "[1]", 4, 0));
    assert_eq!(problem(&file(&header, 4)), HeaderProblem::Backwards { name: "a".into(), begin: 4, end: 0 });
    let header = format!("{{{}}}", f32_entry("a", "[2]", 0, 4));
    let want = HeaderProblem::Size { name: "a".into(), want_bytes: 8, got_bytes: 4 };
    assert_eq!(problem(&file(&header, 4)), want);
}

fn loader(header: &str, data_bytes: usize) -> Loader<'static> {
    let file = read(&file(header, data_bytes)).unwrap();
    Loader::new("transformer", &device(), DType::F32, file.tensors).with_foreign(file.foreign)
}

#[test]
fn row_08_unexpected_types() {
    let header = r#"{"f8":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},
        "f64":{"dtype":"F64","shape":[1],"data_offsets":[2,10]},
        "int":{"dtype":"I64","shape":[1],"data_offsets":[10,18]},
        "half":{"dtype":"U16","shape":[1],"data_offsets":[18,20]},
        "unused":{"dtype":"BOOL","shape":[1],"data_offsets":[20,21]}}"#;
    let mut loader = loader(header, 21);
    for (name, len) in [("int", 1), ("half", 1)] {
        loader.tensor(name, &[len]);
    }
    // What holds fractions is converted.
    assert_eq!(loader.vector("f8", 2).to_f32().unwrap(), [0.0, 0.0]);
    assert_eq!(loader.tensor("f64", &[1]).dtype(), DType::F32);
    let error = loader.finish().unwrap_err();
    assert_eq!(error.code(), "INK-0307");
    assert_eq!(
        error.to_string(),
        "the transformer does not fit its config: 1 in i64, which is not read: int; 1 in u16, which is not read: half"
    );
    assert!(error.cure().starts_with("get it in another format"), "{}", error.cure());
    let unknown = r#"{"a":{"dtype":"F3","shape":[1],"data_offsets":[0,1]}}"#;
    let want = HeaderProblem::UnknownType { name: "a".into(), stored: "F3".into() };
    assert_eq!(problem(&file(unknown, 1)), want);
}

#[test]
fn row_09_wrong_shape() {
    let mut loader = loader(&format!("{{{}}}", f32_entry("a", "[2,3]", 0, 24)), 24);
    loader.weight("a", 3, 2);
    let error = loader.finish().unwrap_err();
    assert!(error.to_string().ends_with("1 of another shape: a (want [3, 2], have [2, 3])"), "{error}");
}

#[test]
fn row_10_missing_and_extra() {
    let header = format!("{{{},{}}}", f32_entry("a", "[1]", 0, 4), f32_entry("b", "[1]", 4, 8));
    let mut lenient = loader(&header, 8);
    lenient.tensor("a", &[1]);
    assert_eq!(lenient.left_over(), ["b"]);
    lenient.finish().unwrap();

    let mut strict = loader(&header, 8).with_strictness(Strictness::RefuseExtra);
    strict.tensor("b", &[1]);
    for name in ["x", "y", "z"] {
        strict.vector(name, 4);
    }
    let error = strict.finish().unwrap_err();
    assert!(error.to_string().ends_with("3 missing: x, y, z; 1 not known: a"), "{error}");
}

#[test]
fn row_11_bad_names() {
    let long = "n".repeat(513);
    let huge = "n".repeat(1 << 20);
    for name in ["", "a\\u0000b", "a\\nb", "../../x", "a/../x", "..", "/etc/passwd", "..\\\\x", &long, &huge]
    {
        let got = problem(&file(&format!("{{{}}}", f32_entry(name, "[1]", 0, 4)), 4));
        assert!(matches!(&got, HeaderProblem::BadName { name } if name.len() <= 80), "{got:?}");
    }
}

#[test]
fn written_files_are_read_back() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/qwen_tr_mask.safetensors");
    let file = SafeTensors::open(&golden, &device(), Default::default()).unwrap();
    let metadata = BTreeMap::from([("k".to_string(), "v".to_string())]);
    let again = read(&inkstone::weights::safetensors::serialize(&file.tensors, &metadata)).unwrap();
    assert_eq!(again.metadata, metadata);
    assert_eq!(again.tensors.len(), file.tensors.len());
    for (name, tensor) in &file.tensors {
        let other = &again.tensors[name];
        assert_eq!((other.dtype(), other.shape()), (tensor.dtype(), tensor.shape()), "{name}");
        assert_eq!(other.to_bytes(), tensor.to_bytes(), "{name}");
    }
}

#[test]
fn elements_that_are_not_aligned_are_copied() {
    let header = r#"{"byte":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "float":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
    let mut bytes = file(header, 1);
    bytes.extend([1.5_f32, -2.0].into_iter().flat_map(f32::to_le_bytes));
    let bytes: &'static [u8] = bytes.leak();
    let read = SafeTensors::from_static(Path::new("odd.safetensors"), bytes, &device()).unwrap();
    assert_eq!(read.tensors["float"].to_f32().unwrap(), [1.5, -2.0]);
    assert!(read.tensors["float"].bytes().as_ptr().cast::<f32>().is_aligned());
    assert!(bytes.as_ptr_range().contains(&read.tensors["byte"].bytes().as_ptr()), "used in place");
}
