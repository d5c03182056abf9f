//! Row 22: GGUF files in which every field lies.

use std::fs;

use inkstone::Error;
use inkstone::error::GgufProblem;
use inkstone::weights::{Component, Loader};

use crate::dir::{Dir, WEIGHTS, open, transformer};

/// A GGUF file, field by field.
pub(crate) struct File(Vec<u8>);

impl File {
    pub(crate) fn new(version: u32, tensors: u64, pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(pairs)
    }
    fn u32(mut self, v: u32) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn u64(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text(self, text: &[u8]) -> Self {
        self.u64(text.len() as u64).bytes(text)
    }
    pub(crate) fn tensor(self, name: &[u8], dims: &[u64], kind: u32, offset: u64) -> Self {
        let rank = u32::try_from(dims.len()).unwrap();
        let dims = dims.iter().fold(self.text(name).u32(rank), |file, dim| file.u64(*dim));
        dims.u32(kind).u64(offset)
    }
    /// The data: so many bytes behind the alignment.
    pub(crate) fn data(mut self, alignment: usize, bytes: usize) -> Vec<u8> {
        let start = self.0.len().next_multiple_of(alignment);
        self.0.resize(start + bytes, 0);
        self.0
    }
}

const F32: u32 = 0;
const Q4_0: u32 = 2;
const Q4_K: u32 = 12;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Opens a transformer with these bytes as its weights.
fn read(bytes: &[u8]) -> Result<Loader<'static>, Error> {
    // One folder a thread: tests run side by side.
    let dir = Dir::model(&format!("gguf-{:?}", std::thread::current().id()));
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    dir.write("transformer/model.gguf", bytes);
    dir.open()?.loader(Component::Transformer, &crate::dir::device(), inkstone_tensor::DType::F32)
}

fn problem(bytes: &[u8]) -> GgufProblem {
    match read(bytes) {
        Err(Error::Gguf { path, problem }) => {
            assert!(path.ends_with("model.gguf"));
            let error = Error::Gguf { path, problem: problem.clone() };
            assert_eq!((error.code(), error.exit_code()), ("INK-0311", 3), "{error}");
            *problem
        }
        other => panic!("{other:?}"),
    }
}

fn one(dims: &[u64], kind: u32, offset: u64) -> File {
    File::new(3, 1, 0).tensor(b"a", dims, kind, offset)
}

fn name() -> String {
    "a".into()
}

#[test]
fn sound_files_are_read() {
    for version in [2, 3] {
        let file = File::new(version, 3, 3)
            .text(b"general.architecture")
            .u32(TEXT)
            .text(b"qwen_image")
            .text(b"general.alignment")
            .u32(4)
            .u32(64)
            .text(b"tokens")
            .u32(LIST)
            .u32(TEXT)
            .u64(2)
            .text(b"x")
            .text(b"\xff is no UTF-8, which tokens may be")
            .tensor(b"a", &[3, 2], F32, 0)
            .tensor(b"q", &[64, 2], Q4_0, 64)
            .tensor(b"i", &[256], 17, 192)
            .data(64, 192 + 74);
        let loader = read(&file).unwrap();
        assert_eq!(loader.left_over(), ["a", "i", "q"], "version {version}");
    }
    let golden = fs::read(crate::dir::golden().join("../gguf/qwen_tiny_q4_K.gguf")).unwrap();
    assert_eq!(read(&golden).unwrap().left_over().len(), 77);
}

#[test]
fn row_22_gguf_magic_and_version() {
    let dir = Dir::model("gguf-short");
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    // Without its magic it is taken for safetensors, and refused as that.
    dir.write("transformer/model.gguf", b"GGU");
    assert!(matches!(dir.loader_error(), Error::Safetensors { .. }));
    for version in [0, 1, 4, u32::MAX] {
        assert_eq!(problem(&File::new(version, 0, 0).0), GgufProblem::Version { version, big_endian: false });
    }
    let version = 3u32.swap_bytes();
    assert_eq!(problem(&File::new(version, 0, 0).0), GgufProblem::Version { version, big_endian: true });
    assert!(matches!(problem(b"GGUF"), GgufProblem::CutShort { wanted: 4, left: 0, .. }));
}

#[test]
fn row_22_gguf_counts() {
    for got in [100_001, 1 << 40, u64::MAX] {
        let limit = 100_000;
        assert_eq!(problem(&File::new(3, got, 0).0), GgufProblem::TooMany { what: "tensors", got, limit });
        let (what, limit) = ("key-value pairs", 4_096);
        assert_eq!(problem(&File::new(3, 0, got).0), GgufProblem::TooMany { what, got, limit });
    }
    // Within the limits, but not there.
    assert!(matches!(problem(&File::new(3, 100_000, 0).0), GgufProblem::CutShort { left: 0, .. }));
    assert!(matches!(problem(&File::new(3, 0, 4_096).0), GgufProblem::CutShort { left: 0, .. }));
}

#[test]
fn row_22_gguf_lengths_of_texts_and_lists() {
    let pair = |key: &[u8]| File::new(3, 0, 1).text(key);
    for length in [u64::MAX, 1 << 62, 3] {
        let cut = |what, left| GgufProblem::CutShort { what, wanted: length, left };
        assert_eq!(problem(&pair(b"k").u32(TEXT).u64(length).0), cut("a text", 0));
        let limit = 512;
        let want = if length > limit { GgufProblem::NameTooLong { length, limit } } else { cut("a key", 0) };
        assert_eq!(problem(&File::new(3, 0, 1).u64(length).0), want);
        let list = pair(b"k").u32(LIST).u32(TEXT).u64(length).text(b"x");
        assert!(matches!(problem(&list.0), GgufProblem::CutShort { left: 0, .. }));
        let list = pair(b"k").u32(LIST).u32(10).u64(length).bytes(&[0; 7]);
        assert!(matches!(problem(&list.0), GgufProblem::CutShort { what: "a list", left: 7, .. }));
    }
    let nested = pair(b"k").u32(LIST).u32(LIST).u64(1).u32(0).u64(1).bytes(&[0]);
    assert_eq!(problem(&nested.0), GgufProblem::NestedList { key: "k".into() });
    assert_eq!(problem(&pair(b"k").u32(TEXT).text(b"\xff").0), GgufProblem::NotUtf8 { key: "k".into() });
}

#[test]
fn row_22_gguf_types_of_values() {
    for kind in [13, 255, u32::MAX] {
        let want = GgufProblem::ValueType { key: "k".into(), kind };
        assert_eq!(problem(&File::new(3, 0, 1).text(b"k").u32(kind).u64(0).0), want);
        let list = File::new(3, 0, 1).text(b"k").u32(LIST).u32(kind).u64(0);
        assert_eq!(problem(&list.0), want);
    }
    let switch = |value| File::new(3, 0, 1).text(b"k").u32(7).bytes(&[value]);
    assert!(read(&switch(1).0).is_ok());
    assert_eq!(problem(&switch(2).0), GgufProblem::ValueType { key: "k".into(), kind: 7 });
}

#[test]
fn row_22_gguf_alignment() {
    let aligned = |alignment| File::new(3, 0, 1).text(b"general.alignment").u32(4).u32(alignment);
    for alignment in [0, 3, 48, 1 << 17, u32::MAX] {
        let want = GgufProblem::Alignment { got: u64::from(alignment), limit: 1 << 16 };
        assert_eq!(problem(&aligned(alignment).0), want);
    }
    assert!(read(&aligned(1 << 16).0).is_ok());
    let text = File::new(3, 0, 1).text(b"general.alignment").u32(TEXT).text(b"32");
    assert_eq!(problem(&text.0), GgufProblem::Alignment { got: 0, limit: 1 << 16 });
}

#[test]
fn row_22_gguf_dimensions() {
    for rank in [0, 6, 9, u32::MAX] {
        let file = File::new(3, 1, 0).text(b"a").u32(rank);
        assert_eq!(problem(&file.0), GgufProblem::Rank { name: name(), rank, limit: 5 });
    }
    for dims in [&[1 << 63, 2][..], &[0, u64::MAX], &[u64::MAX, 0], &[1 << 32, 1 << 32], &[1 << 61]] {
        let file = one(dims, F32, 0).data(32, 64);
        assert_eq!(problem(&file), GgufProblem::Overflow { name: name() }, "{dims:?}");
    }
    let file = one(&[33, 2], Q4_0, 0).data(32, 64);
    assert_eq!(problem(&file), GgufProblem::NoWholeBlocks { name: name(), len: 33, block_len: 32 });
    let file = one(&[128], Q4_K, 0).data(32, 144);
    assert_eq!(problem(&file), GgufProblem::NoWholeBlocks { name: name(), len: 128, block_len: 256 });
    assert!(read(&one(&[0], F32, 0).data(32, 0)).is_ok());
}

#[test]
fn row_22_gguf_types_of_tensors() {
    for number in [4, 5, 31, 33, 38, 42, 255, u32::MAX] {
        let file = one(&[32], number, 0).data(32, 64);
        assert_eq!(problem(&file), GgufProblem::TensorType { name: name(), number });
    }
}

#[test]
fn row_22_gguf_offsets() {
    for (offset, data) in [(32, 64), (u64::MAX, 4), (u64::MAX - 31, 4), (1, 8)] {
        let want = GgufProblem::Offset { name: name(), offset, expected: 0 };
        assert_eq!(problem(&one(&[1], F32, offset).data(32, data)), want);
    }
    let two = |offset| {
        File::new(3, 2, 0).tensor(b"b", &[9], F32, 0).tensor(b"a", &[1], F32, offset).data(32, 64 + 4)
    };
    assert!(read(&two(64)).is_ok());
    for offset in [0, 36, 96] {
        let want = GgufProblem::Offset { name: name(), offset, expected: 64 };
        assert_eq!(problem(&two(offset)), want);
    }
    for data in [0, 31] {
        let file = one(&[8], F32, 0).data(32, data);
        let file_bytes = file.len() as u64;
        let end = file_bytes - data as u64 + 32;
        assert_eq!(problem(&file), GgufProblem::OutsideFile { name: name(), end, file_bytes });
    }
    let far = one(&[1 << 40], F32, 0).data(32, 64);
    assert!(matches!(problem(&far), GgufProblem::OutsideFile { .. }));
}

#[test]
fn row_22_gguf_names() {
    let long = vec![b'a'; 513];
    let tensor = |name: &[u8]| File::new(3, 1, 0).tensor(name, &[0], F32, 0).data(32, 0);
    assert_eq!(problem(&tensor(&long)), GgufProblem::NameTooLong { length: 513, limit: 512 });
    for bad in [&b""[..], b"a\nb", b"\x1b[2J", b"../../x", b"/etc/passwd", b"\xff\xfe"] {
        assert!(matches!(problem(&tensor(bad)), GgufProblem::BadName { .. }), "{bad:?}");
    }
    let twice = File::new(3, 2, 0).tensor(b"a", &[0], F32, 0).tensor(b"a", &[0], F32, 0).data(32, 0);
    assert_eq!(problem(&twice), GgufProblem::Duplicate { name: name() });
    let keys = File::new(3, 0, 2).text(b"k").u32(0).bytes(&[1]).text(b"k").u32(0).bytes(&[1]);
    assert_eq!(problem(&keys.0), GgufProblem::Duplicate { name: "k".into() });
}

#[test]
fn row_22_gguf_cut_at_every_byte() {
    let golden = fs::read(crate::dir::golden().join("../gguf/qwen_tiny_q8_0.gguf")).unwrap();
    let dir = Dir::model("gguf-cut");
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    // Every byte of the first kilobyte, then some all over the file.
    for length in (4..1024).chain((1024..golden.len()).step_by(9_973)) {
        dir.write("transformer/model.gguf", &golden[..length]);
        assert!(matches!(dir.loader_error(), Error::Gguf { .. }), "{length} bytes");
    }
}

#[test]
fn row_09_gguf_of_another_shape_or_type() {
    let mut loader = read(
        &File::new(3, 2, 0)
            .tensor(b"img_in.weight", &[64, 2], Q4_0, 0)
            .tensor(b"txt_norm.weight", &[256], 17, 96)
            .data(32, 96 + 74),
    )
    .unwrap();
    loader.weight("img_in.weight", 48, 64);
    loader.vector("txt_norm.weight", 256);
    let Err(Error::Tensors { report, .. }) = loader.finish() else { panic!() };
    assert_eq!((report.misshapen.len(), report.mistyped.len()), (1, 1));
    assert_eq!((&*report.misshapen[0].want, &*report.misshapen[0].have), ("[48, 64]", "[2, 64] in q4_0"));
    assert_eq!((&*report.mistyped[0].name, &*report.mistyped[0].have), ("txt_norm.weight", "iq2_xs"));
}

#[test]
fn row_22_gguf_shapes_that_are_noted() {
    const I32: u32 = 5;
    let noted = |kind: u32, dims: &[i32]| {
        let file = File::new(3, 1, 1).text(b"comfy.gguf.orig_shape.a").u32(LIST).u32(kind);
        let file = file.u64(dims.len() as u64);
        let file = dims.iter().fold(file, |file, dim| file.bytes(&dim.to_le_bytes()));
        file.tensor(b"a", &[64, 3], Q4_0, 0).data(32, 6 * 18)
    };
    // Rows of whole blocks, and others.
    for (dims, wanted) in [(&[6, 32][..], &[6, 32][..]), (&[2, 2, 48], &[2, 2, 48]), (&[192], &[192])] {
        let mut loader = read(&noted(I32, dims)).unwrap();
        assert_eq!(loader.tensor("a", wanted).shape().dims(), wanted);
        loader.finish().unwrap();
        let mut loader = read(&noted(I32, dims)).unwrap();
        loader.tensor("a", &[3, 64]);
        let Err(Error::Tensors { report, .. }) = loader.finish() else { panic!("{dims:?}") };
        assert_eq!(report.misshapen.len(), 1, "{report}");
    }
    let shapes: [(u32, &[i32]); 5] =
        [(I32, &[3, 63]), (I32, &[-3, -64]), (I32, &[]), (4, &[3, 64]), (I32, &[1, 1, 1, 1, 3, 64])];
    for (kind, dims) in shapes {
        assert_eq!(problem(&noted(kind, dims)), GgufProblem::NotedShape { name: name(), count: 192 });
    }
}

#[test]
fn a_lone_gguf_file_is_told_how_to_pair_it() {
    let file = crate::dir::golden().join("../gguf/qwen_tiny_q8_0.gguf");
    let error = open(&file).unwrap_err();
    assert!(error.cure().contains("--text-encoder, --vae"), "{}", error.cure());
    let others = [Component::TextEncoder, Component::Vae];
    assert!(matches!(&error, Error::MissingParts { missing } if *missing == others), "{error}");
    let dir = Dir::empty("gguf-lone");
    dir.write("a.gguf", File::new(9, 0, 0).0);
    assert!(matches!(open(&dir.0.join("a.gguf")), Err(Error::Gguf { .. })));
}

#[test]
fn a_gguf_file_in_a_models_folder_is_found() {
    let dir = Dir::model("gguf-found");
    let golden = crate::dir::golden().join("../gguf/qwen_tiny_q8_0.gguf");
    fs::copy(golden, dir.0.join("transformer/any-name.gguf")).unwrap();
    let sound = transformer(&dir.open().unwrap()).left_over();
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    assert_eq!(transformer(&dir.open().unwrap()).left_over(), sound);
    // Two are a choice that nobody made.
    dir.write("transformer/other.gguf", b"GGUF");
    assert!(matches!(dir.loader_error(), Error::MissingFile { .. }));
}
