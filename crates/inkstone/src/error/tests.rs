use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::memory::{Limit, LimitOf, Shortage};
use crate::weights::Component;

use inkstone_tensor::{DType, Error as TensorError, Shape, regular};

use super::{
    Error, FileFormat, Found, GgufProblem, HeaderProblem, JsonProblem, LoraProblem, NoteProblem,
    PictureProblem, PlaceProblem, ShardProblem, TensorReport, TokenizerProblem, WrongTensor,
};

fn path() -> PathBuf {
    "model/transformer/file".into()
}

/// One error of every variant, and of those whose facts differ inside of a variant each kind.
fn examples() -> Vec<Error> {
    let io = || std::io::Error::from(ErrorKind::PermissionDenied);
    let mut all = vec![
        Error::InvalidParam { param: "steps", got: "0".into(), allowed: "1 to 200".into() },
        Error::Interrupted,
        Error::Picture(PictureProblem::NotAPicture { what: "a PDF" }),
        Error::Lora {
            path: path(),
            problem: Box::new(LoraProblem::OtherModel { layers: 7, family: Some("FLUX.1") }),
        },
        Error::Lora { path: path(), problem: Box::new(LoraProblem::NotSafetensors) },
        Error::Lora {
            path: path(),
            problem: Box::new(LoraProblem::Misfit { layer: "a".into(), have: [2, 3], want: [4, 5] }),
        },
        Error::NotFinite { step: 3 },
        Error::ModelRead { path: path(), source: io() },
        Error::ModelRead { path: path(), source: regular::open(&std::env::temp_dir()).unwrap_err() },
        Error::ModelNotFound { path: path() },
        Error::MissingFile { path: path() },
        Error::OutsideModel { path: path(), target: "/etc/passwd".into(), boundary: "model".into() },
        Error::Json { path: path(), problem: JsonProblem::ByteOrderMark },
        Error::Shards { path: path(), problem: ShardProblem::BadName { name: "../x".into() } },
        Error::Shards {
            path: path(),
            problem: ShardProblem::Alone { of: 2, count: 1, first: vec!["b".into()] },
        },
        Error::Tokenizer { path: path(), problem: TokenizerProblem::DuplicateId { id: 7 } },
        Error::WeightsNotFinite { component: "VAE".into(), count: 1, first: vec!["conv".into()] },
        Error::ModelChanged { path: path(), was_bytes: 2, is_bytes: 1 },
        Error::Safetensors { path: path(), problem: HeaderProblem::TooShort { file_bytes: 3 } },
        Error::Gguf { path: path(), problem: Box::new(GgufProblem::NotGguf) },
        Error::Gguf { path: path(), problem: Box::new(GgufProblem::Split { number: 1, count: 2 }) },
        Error::Tensors { component: "VAE".into(), report: Box::new(report()) },
        Error::ModelConfig {
            component: "vae",
            field: "z_dim".into(),
            got: "0".into(),
            allowed: "1 to 9".into(),
        },
        Error::AlreadyQuantized { component: "VAE".into(), layer: "proj".into(), format: "q4_K".into() },
        Error::AlreadyQuantized { component: "VAE".into(), layer: "proj".into(), format: "f8_e4m3".into() },
        Error::MissingParts { missing: vec![Component::TextEncoder, Component::Vae] },
        Error::MissingTokenizer { path: path() },
        Error::Note { component: "VAE", layer: "proj".into(), problem: NoteProblem::Missing },
        Error::NothingToQuantize { path: path() },
        Error::ConvertPlace { path: path(), problem: PlaceProblem::Exists },
        Error::ConvertPlace { path: path(), problem: PlaceProblem::Source },
        Error::ConvertPlace { path: path(), problem: PlaceProblem::Link },
        Error::DiskFull { path: path(), needed_bytes: 2, free_bytes: 1 },
        Error::Write { path: path(), source: io() },
        Error::Tensors { component: "transformer".into(), report: Box::new(types()) },
    ];
    let limits =
        [LimitOf::MaxMemory, LimitOf::Free, LimitOf::ControlGroup, LimitOf::AddressSpace, LimitOf::Data];
    all.extend(limits.map(too_large));
    all.extend(of_tensors().map(Error::Tensor));
    let formats = [FileFormat::Pickle, FileFormat::LfsPointer, FileFormat::Html];
    all.extend(formats.map(|format| Error::ForeignFormat { path: path(), format }));
    let found = [
        Found::EmptyFolder,
        Found::NoWeights { wanted: Component::Vae, usual: "model.safetensors".into() },
        Found::Pipeline { class: "FluxPipeline".into(), family: Some("FLUX.1") },
        Found::Pipeline { class: "MysteryPipeline".into(), family: None },
        Found::Part { component: "vae", class: "AutoencoderKL".into(), want: "AutoencoderKLQwenImage" },
        Found::Component { class: "UNet2DConditionModel".into() },
        Found::LoneFile { holds: "a LoRA" },
        Found::OtherPart { wanted: Component::Vae },
        Found::NamedTwice,
        Found::NoPart { wanted: Component::Transformer, holds: "a LoRA" },
        Found::NoPart { wanted: Component::Vae, holds: "a language model" },
        Found::OtherFile,
        Found::NoIndex { entries: vec!["a".into()] },
    ];
    all.extend(found.map(|found| Error::UnsupportedModel { path: path(), found }));
    all
}

fn of_tensors() -> [TensorError; 4] {
    [
        TensorError::OutOfMemory { device: "cpu".into(), wanted_bytes: 1 },
        TensorError::Device { device: "cpu".into(), reason: "it has no avx512".into() },
        TensorError::DType { op: "add", what: "a", expected: "f32", got: DType::U8 },
        TensorError::Shape { op: "add", what: "a", expected: "[1]".into(), got: Shape::vector(2) },
    ]
}

fn too_large(of: LimitOf) -> Error {
    let shortage = Shortage { needed_bytes: 2, limit: Limit { bytes: 1, of }, is_least: false };
    Error::InsufficientMemory { shortage, alternatives: Vec::new() }
}

fn report() -> TensorReport {
    TensorReport { missing: (0..60).map(|i| format!("t{i}")).collect(), ..Default::default() }
}

/// The number of an error's variant. A new variant needs a line here, an example above and a row in the docs.
fn variant(error: &Error) -> usize {
    match error {
        Error::InvalidParam { .. } => 0,
        Error::Interrupted => 1,
        Error::InsufficientMemory { .. } => 29,
        Error::NotFinite { .. } => 2,
        Error::ModelRead { .. } => 3,
        Error::ModelNotFound { .. } => 4,
        Error::UnsupportedModel { .. } => 5,
        Error::MissingFile { .. } => 6,
        Error::ForeignFormat { .. } => 7,
        Error::OutsideModel { .. } => 8,
        Error::Json { .. } => 9,
        Error::Shards { .. } => 10,
        Error::Tokenizer { .. } => 11,
        Error::WeightsNotFinite { .. } => 12,
        Error::ModelChanged { .. } => 13,
        Error::Safetensors { .. } => 14,
        Error::Tensors { .. } => 15,
        Error::ModelConfig { .. } => 16,
        Error::Tensor(_) => 17,
        Error::Picture(_) => 18,
        Error::Gguf { .. } => 19,
        Error::Lora { .. } => 20,
        Error::AlreadyQuantized { .. } => 21,
        Error::NothingToQuantize { .. } => 22,
        Error::ConvertPlace { .. } => 23,
        Error::DiskFull { .. } => 24,
        Error::Write { .. } => 25,
        Error::Note { .. } => 26,
        Error::MissingParts { .. } => 27,
        Error::MissingTokenizer { .. } => 28,
    }
}
const VARIANTS: usize = 30;

#[test]
fn every_variant_has_an_example() {
    let seen: BTreeSet<usize> = examples().iter().map(variant).collect();
    assert_eq!(seen, (0..VARIANTS).collect());
}

#[test]
fn facts_agree_with_the_code() {
    for error in examples() {
        let facts = error.facts();
        let number: u32 = facts.code.strip_prefix("INK-").unwrap().parse().unwrap();
        let (exit_code, http) = match number / 100 {
            _ if matches!(error, Error::Interrupted) => (130, 499..500),
            // The request is at fault: a smaller one fits.
            4 if matches!(error, Error::InsufficientMemory { .. }) => (4, 400..401),
            2 => (2, 400..500),
            3 => (3, 500..600),
            4 => (4, 500..600),
            5 => (1, 500..600),
            6 => (5, 500..600),
            _ => panic!("{}", facts.code),
        };
        assert_eq!(facts.exit_code, exit_code, "{}", facts.code);
        assert!(http.contains(&facts.http_status), "{}", facts.code);
        assert_eq!(facts.code.len(), "INK-0000".len());
    }
}

#[test]
fn what_changed_and_what_lacks_is_told_apart() {
    let changed = |is_bytes| Error::ModelChanged { path: path(), was_bytes: 7, is_bytes }.to_string();
    assert!(changed(3).ends_with("it had 7 bytes and has 3"), "{}", changed(3));
    assert!(changed(7).ends_with("something wrote to it, at its 7 bytes"), "{}", changed(7));
    let full = |needed_bytes| Error::DiskFull { path: path(), needed_bytes, free_bytes: 3 << 30 }.to_string();
    assert!(full(3_662_323_910).ends_with("3.5 GiB are needed, 3.0 GiB are free"), "{}", full(3_662_323_910));
    assert!(full((3 << 30) - 9).contains("3.0 GiB"), "{}", full((3 << 30) - 9));
    assert!(
        Error::DiskFull { path: path(), needed_bytes: (3 << 30) - 1, free_bytes: (3 << 30) - 8 }
            .to_string()
            .ends_with("3.0 GiB are needed, 7 bytes less are free")
    );
}

#[test]
fn messages_and_cures_are_one_short_line() {
    for error in examples() {
        let (text, cure) = (error.to_string(), error.cure());
        assert!(!text.contains('\n') && !text.ends_with('.'), "{text}");
        assert!(!cure.contains('\n') && !cure.ends_with('.') && (10..100).contains(&cure.len()), "{cure}");
    }
}

#[test]
fn a_code_belongs_to_one_variant() {
    for a in examples() {
        for b in examples() {
            assert!(a.code() != b.code() || variant(&a) == variant(&b), "{a:?} {b:?}");
        }
    }
}

/// docs/errors.md has a row for each code and cure, and no row for a code that the library does not have.
#[test]
fn docs_list_every_error() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let table = docs.split("\n## ").find(|part| part.starts_with("The library")).expect("## The library");
    let have: BTreeSet<&str> = table.lines().filter(|line| line.starts_with("| INK-")).collect();
    for error in examples() {
        let facts = error.facts();
        let start = format!("| {} | {} | {} |", facts.code, facts.exit_code, facts.http_status);
        let row = have.iter().find(|row| row.starts_with(&start) && row.contains(facts.cure));
        assert!(row.is_some(), "docs/errors.md lacks {start} ... {} |", facts.cure);
    }
    let codes: BTreeSet<&str> = examples().iter().map(Error::code).collect();
    for row in have {
        assert!(codes.iter().any(|code| row.contains(code)), "no error is as this row says: {row}");
    }
}

#[test]
fn long_reports_are_counted() {
    let text = report().to_string();
    assert_eq!(text, "60 missing: t0, t1, t2, t3, t4 and 55 more");
}

#[test]
fn types_that_are_not_read_are_told_together() {
    let of = |have: &str, names: std::ops::Range<usize>| -> Vec<WrongTensor> {
        names.map(|i| WrongTensor { name: format!("t{i}"), want: "f32".into(), have: have.into() }).collect()
    };
    let mut mixed = types();
    assert_eq!(mixed.to_string(), "720 in iq4_nl, which is not read: t0, t1, t2, t3, t4 and 715 more");
    mixed.mistyped = [of("mxfp4", 3..9), of("i64", 2..3), of("mxfp4", 0..1)].concat();
    mixed.extra = vec!["x".into()];
    let want = "1 in i64, which is not read: t2; 7 in mxfp4, which is not read: t3, t4, t5, t6, t7 and 2 more; \
                1 not known: x";
    assert_eq!(mixed.to_string(), want);
}

fn types() -> TensorReport {
    let wrong = |i| WrongTensor { name: format!("t{i}"), want: "f32".into(), have: "iq4_nl".into() };
    TensorReport { mistyped: (0..720).map(wrong).collect(), ..Default::default() }
}
