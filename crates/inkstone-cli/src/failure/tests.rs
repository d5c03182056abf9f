use std::collections::BTreeSet;

use clap::Parser as _;
use inkstone::error::{
    FileFormat, Found, GgufProblem, HeaderProblem, JsonProblem, LoraProblem, NoteProblem, PictureProblem,
    PlaceProblem, ShardProblem, TensorReport, TokenizerProblem,
};
use inkstone::memory::{Alternative, Limit, LimitOf, Shortage};
use inkstone::weights::Component;
use inkstone_tensor::Error as TensorError;

use super::*;
use crate::args::Cli;

fn told(args: &[&str]) -> Told {
    let error = Cli::try_parse_from([&["inkstone"], args].concat()).unwrap_err();
    let command =
        Some(args[0]).filter(|word| ["plan", "bench", "convert", "info", "lora", "config"].contains(word));
    match Failure::arguments(&error, command) {
        Failure::Told(told) => told,
        other => panic!("{args:?} gives {other:?}"),
    }
}

#[test]
fn wrong_arguments_have_three_lines() {
    for (args, what, why) in [
        (&["x", "--steps", "1.5"][..], "steps is \"1.5\"", "allowed is a whole number, 1 to 200"),
        (&["x", "--steps", "-1"], "steps is \"-1\"", "allowed is a whole number, 1 to 200"),
        (
            &["x", "--size", "1024x"],
            "size is \"1024x\"",
            "allowed is width x height in pixels, such as 512x768",
        ),
        (&["x", "--size", "65x64"], "size is 65x64", "allowed is 64 to 4096 px in multiples of 16"),
        (&["x", "-W", "64.0"], "width is \"64.0\"", "allowed is 64 to 4096 px in multiples of 16"),
        (&["x", "--cfg-scale", "four"], "true-cfg-scale is \"four\"", "allowed is a number, 0 to 100"),
        (&["x", "--device", "gpu"], "device is \"gpu\"", "allowed is auto, cpu"),
        (&["x", "--stepz", "4"], "there is no --stepz", "a similar flag is --steps"),
        (&["x", "-s", "4"], "there is no -s", "other programs have it, or later versions"),
        (
            &["x", "--lora-paths", "a.safetensors"],
            "there is no --lora-paths",
            "other programs have it, or later versions",
        ),
        (
            &["a", "red", "apple"],
            "the prompt has several words without quotes",
            "\"red\" follows it: the prompt is one argument",
        ),
        (
            &["draw", "a red apple"],
            "the prompt has several words without quotes",
            "\"a red apple\" follows it: the prompt is one argument",
        ),
    ] {
        let told = told(args);
        assert_eq!((told.what.as_str(), told.why.as_str()), (what, why), "{args:?}");
        assert_eq!((told.code, told.exit), ("INK-0250", 2));
        assert_eq!(told.to_string().lines().count(), 3, "{told}");
    }
}

/// Each names what is wrong in words of the command that was typed.
#[test]
fn wrong_arguments_of_commands_are_named() {
    for (args, what, why, cure) in [
        (
            &["convert"][..],
            "--output <FOLDER>, <MODEL> are missing",
            "the command needs them",
            "inkstone convert --output <FOLDER> <MODEL>",
        ),
        (&["info"], "<IMAGE> is missing", "the command needs it", "inkstone info <IMAGE>"),
        (&["lora", "inspect"], "<FILE> is missing", "the command needs it", "inkstone lora inspect <FILE>"),
        (
            &["lora"],
            "inkstone lora needs a word behind it",
            "allowed is inspect",
            "inkstone lora inspect --help",
        ),
        (
            &["config"],
            "inkstone config needs a word behind it",
            "allowed is show, path",
            "inkstone config show --help",
        ),
        (
            &["lora", "inspekt"],
            "there is no command inspekt",
            "a similar one is inspect",
            "inkstone lora --help lists the flags",
        ),
        (
            &["plan", "extra"],
            "\"extra\" is one word too many",
            "the command takes no more",
            "inkstone plan [FLAGS]",
        ),
        (
            &["plan", "--stepz", "4"],
            "there is no --stepz",
            "a similar flag is --steps",
            "inkstone plan --help lists the flags; text that begins with - goes behind --",
        ),
        (
            &["x", "--max-memory", "-1G"],
            "max-memory is \"-1G\"",
            "allowed is a number with M, G or T behind it, such as 12G or 800M, at least 1M",
            "inkstone --help lists the flags",
        ),
        // Before anything is measured.
        (
            &["bench", "--size", "65"],
            "size is \"65\"",
            "allowed is 64 to 4096 px in multiples of 16",
            "--size 64",
        ),
        (
            &["completions", "foo"],
            "shell is \"foo\"",
            "allowed is bash, elvish, fish, powershell, zsh",
            "inkstone --help lists the flags",
        ),
        (
            &["x", "--overwrite=yes"],
            "--overwrite takes no value",
            "\"yes\" is behind it",
            "inkstone --help lists the flags",
        ),
    ] {
        let told = told(args);
        assert_eq!(
            (told.what.as_str(), told.why.as_str(), told.cure.as_str()),
            (what, why, cure),
            "{args:?}"
        );
        assert_eq!((told.code, told.exit), ("INK-0250", 2));
    }
}

#[test]
fn numbers_out_of_range_are_told_the_range() {
    for (flag, value, most) in [("--blocks", "61", 60), ("--runs", "abc", 1000), ("--layers", "-1", 28)] {
        let told = told(&["bench", flag, value]);
        assert_eq!(told.what, format!("{} is {value:?}", &flag[2..]));
        assert_eq!(told.why, format!("allowed is a whole number, 1 to {most}"));
        assert_eq!(told.cure, "inkstone bench --help lists the flags");
    }
}

#[test]
fn a_scale_is_a_number_behind_a_file() {
    for (arg, word) in [("--lora", "SCALE"), ("--image", "STRENGTH")] {
        for value in ["x=abc", "=0.5", "", "x=", "a.safetensors=0,5", "a.safetensors=0.5x"] {
            let told = told(&["x", arg, value]);
            assert_eq!(told.what, format!("{} is {value:?}", &arg[2..]));
            assert!(told.why.starts_with("allowed is a file") && told.why.contains(word), "{told}");
        }
    }
}

#[test]
fn the_nearest_allowed_value_is_named() {
    for (args, cure) in [
        (&["x", "--size", "63x64"][..], "--size 64x64"),
        (&["x", "--size", "520x9999"], "--size 528x4096"),
        (&["x", "--size", "512X770 "], "--size 512x768"),
        (&["x", "--size", "500"], "--size 496x496"),
        (&["x", "--aspect", "16x9"], "--aspect 16:9"),
        (&["x", "-W", "100.4"], "--width 96"),
        (&["x", "-H", "-1"], "--height 64"),
        (&["x", "--steps", "1.5"], "--steps 2"),
        (&["x", "--steps", "-1"], "--steps 1"),
        (&["x", "--count", "1e9"], "--count 10"),
        (&["x", "--size", "big"], "inkstone --help lists the flags"),
        (&["x", "--size", "1024x"], "inkstone --help lists the flags"),
    ] {
        assert_eq!(told(args).cure, cure, "{args:?}");
    }
    let refused = |param, got: &str| Error::InvalidParam { param, got: got.into(), allowed: String::new() };
    assert_eq!(of_library(refused("width", "65")).cure, "--width 64");
    assert_eq!(of_library(refused("steps", "201")).cure, "--steps 200");
    assert_eq!(of_library(refused("true-cfg-scale", "inf")).cure, "--true-cfg-scale 100");
    assert_eq!(of_library(refused("true-cfg-scale", "NaN")).cure, "give a value that is allowed");
}

#[test]
fn flags_of_other_programs_name_ours() {
    assert!(told(&["x", "--image-strength", "0.4"]).cure.contains("--image PATH=STRENGTH"));
    assert!(told(&["x", "--lora-paths", "a"]).cure.contains("--lora PATH=SCALE"));
    assert!(told(&["x", "-n", "blurry"]).cure.contains("--negative-prompt"));
}

#[test]
fn flags_that_lack_a_value_or_exclude_each_other() {
    assert_eq!(told(&["x", "--steps"]).what, "--steps lacks its value");
    assert!(told(&["x", "-p", "y"]).what.contains("cannot be used"));
    assert!(told(&["x", "--size", "64x64", "-W", "64"]).what.contains("cannot be used"));
    assert!(told(&["x", "-Q", "-v"]).what.contains("cannot be used"));
}

#[test]
fn library_errors_keep_their_code() {
    let error = Error::InvalidParam { param: "steps", got: "0".into(), allowed: "1 to 200".into() };
    let Failure::Told(told) = Failure::from(error) else { panic!() };
    assert_eq!((told.code, told.exit, told.what.as_str()), ("INK-0201", 2, "steps is 0"));
    let Failure::Told(told) = Failure::from(Error::Interrupted) else { panic!() };
    assert_eq!(told.exit, 130);
}

/// One error of every code that the library has.
fn library_errors() -> Vec<Error> {
    let path = || PathBuf::from("model/vae/config.json");
    let tensors = TensorReport { missing: vec!["conv.weight".into()], ..TensorReport::default() };
    let field = ("z_dim".to_owned(), "0".to_owned(), "1 to 9".to_owned());
    vec![
        Error::InvalidParam { param: "steps", got: "0".into(), allowed: "1 to 200".into() },
        Error::Interrupted,
        Error::NotFinite { step: 3 },
        Error::ModelRead { path: path(), source: std::io::ErrorKind::PermissionDenied.into() },
        Error::ModelNotFound { path: path() },
        Error::UnsupportedModel { path: path(), found: Found::EmptyFolder },
        Error::MissingFile { path: path() },
        Error::ForeignFormat { path: path(), format: FileFormat::Html },
        Error::OutsideModel { path: path(), target: "/etc/passwd".into(), boundary: "model".into() },
        Error::Json { path: path(), problem: JsonProblem::ByteOrderMark },
        Error::Shards { path: path(), problem: ShardProblem::BadName { name: "../x".into() } },
        Error::Tokenizer { path: path(), problem: TokenizerProblem::DuplicateId { id: 7 } },
        Error::WeightsNotFinite { component: "VAE".into(), count: 1, first: vec!["conv".into()] },
        Error::ModelChanged { path: path(), was_bytes: 2, is_bytes: 1 },
        Error::Gguf { path: path(), problem: Box::new(GgufProblem::NotGguf) },
        too_large(vec!["--offload stream", "--size 512x512"]),
        Error::Lora { path: path(), problem: Box::new(LoraProblem::NoLora { holds: "a language model" }) },
        Error::Safetensors { path: path(), problem: HeaderProblem::TooShort { file_bytes: 3 } },
        Error::Tensors { component: "VAE".into(), report: Box::new(tensors) },
        Error::ModelConfig { component: "vae", field: field.0, got: field.1, allowed: field.2 },
        Error::AlreadyQuantized { component: "VAE".into(), layer: "proj".into(), format: "q4_K".into() },
        Error::Note { component: "VAE", layer: "proj".into(), problem: NoteProblem::Missing },
        Error::NothingToQuantize { path: path() },
        Error::Note { component: "VAE", layer: "proj".into(), problem: NoteProblem::Missing },
        Error::MissingParts { missing: vec![Component::TextEncoder, Component::Vae] },
        Error::MissingTokenizer { path: path() },
        Error::ConvertPlace { path: path(), problem: PlaceProblem::Exists },
        Error::DiskFull { path: path(), needed_bytes: 2, free_bytes: 1 },
        Error::Write { path: path(), source: std::io::ErrorKind::PermissionDenied.into() },
        Error::Picture(PictureProblem::NotAPicture { what: "a PDF" }),
        Error::Tensor(TensorError::OutOfMemory { device: "cpu".into(), wanted_bytes: 4096 }),
        Error::Tensor(TensorError::Device { device: "cpu".into(), reason: "it has no avx512".into() }),
        Error::Tensor(TensorError::Range {
            op: "rope",
            what: "pos",
            allowed: "0 to 9".into(),
            got: "10".into(),
        }),
    ]
}

fn too_large(flags: Vec<&str>) -> Error {
    let limit = Limit { bytes: 15 << 30, of: LimitOf::Free };
    let shortage = Shortage { needed_bytes: 20 << 30, limit, is_least: false };
    let fits = |flags: &str| Alternative { flags: flags.into(), bytes: 4 << 30 };
    Error::InsufficientMemory { shortage, alternatives: flags.into_iter().map(fits).collect() }
}

#[test]
fn what_does_not_fit_is_told_with_numbers_and_what_does() {
    let told = of_library(too_large(vec!["--offload stream", "--dtype bf16", "--size 512x512"]));
    assert_eq!((told.code, told.exit), ("INK-0401", 4));
    assert_eq!(told.why, "it needs 20.0 GiB, the machine has free 15.0 GiB");
    assert_eq!(told.cure, "--offload stream (4.0 GiB), --dtype bf16 (4.0 GiB) or --size 512x512 (4.0 GiB)");
    assert!(of_library(too_large(Vec::new())).cure.contains("close other programs"));
}

fn of_library(error: Error) -> Told {
    let Failure::Told(told) = Failure::from(error) else { panic!() };
    told
}

#[test]
fn errors_of_every_code_have_three_lines_with_a_reason() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let (library, _) = docs.split_once("## The command line").unwrap();
    let codes: BTreeSet<&str> = library_errors().iter().map(Error::code).collect();
    let documented = library.lines().filter_map(|row| row.strip_prefix("| ")?.split(' ').next());
    let documented: BTreeSet<&str> = documented.filter(|word| word.starts_with("INK-")).collect();
    assert_eq!(codes, documented);
    for error in library_errors() {
        let (code, told) = (error.code(), of_library(error));
        assert_eq!(told.to_string().lines().count(), 3, "{told}");
        assert!(!told.why.contains("nothing more is known") && !told.why.contains("docs/"), "{code}: {told}");
        assert!(!told.what.contains(&told.why), "{code} says it twice: {told}");
    }
}

#[test]
fn reasons_hold_the_numbers() {
    for (code, what, why) in [
        ("INK-0303", "model/vae/config.json is no Qwen-Image model", "it is an empty folder"),
        ("INK-0312", "model/vae/config.json changed while it was in use", "it had 2 bytes and has 1"),
        ("INK-0320", "z_dim of the vae is 0", "allowed is 1 to 9"),
        ("INK-0402", "out of memory", "cpu has no 4096 bytes left in one piece"),
        ("INK-0202", "the device cpu cannot be used", "it has no avx512"),
        ("INK-0310", "model/vae/config.json is refused", "it begins with a byte order mark"),
    ] {
        let error = library_errors().into_iter().find(|error| error.code() == code).unwrap();
        let told = of_library(error);
        assert_eq!((told.what.as_str(), told.why.as_str()), (what, why));
    }
}

#[test]
fn control_characters_are_written_out() {
    assert_eq!(printable("a\x1b[31mb\nc\u{9b}"), "a\\u{1b}[31mb\\nc\\u{9b}");
    assert_eq!(printable("漢 é"), "漢 é");
}

#[test]
fn docs_list_every_code() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let (_, ours) = docs.split_once("## The command line").unwrap();
    let io = std::io::Error::other("x");
    for failure in [
        Failure::no_prompt(),
        Failure::config("x", "", ""),
        Failure::output_place("x".as_ref(), "", ""),
        Failure::no_request("x".as_ref(), ""),
        Failure::write("x".as_ref(), &io),
        Failure::other_pixels("x".as_ref()),
    ] {
        let Failure::Told(told) = failure else { panic!() };
        let row = format!("| {} | {} |", told.code, told.exit);
        assert!(ours.contains(&row), "docs/errors.md lacks {row}");
    }
}
