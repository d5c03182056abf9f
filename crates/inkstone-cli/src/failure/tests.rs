use clap::Parser as _;

use super::*;
use crate::args::Cli;

fn told(args: &[&str]) -> Told {
    let error = Cli::try_parse_from([&["inkstone"], args].concat()).unwrap_err();
    match Failure::from(error) {
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
            &["x", "--lora", "a.safetensors"],
            "there is no --lora",
            "other programs have it, or later versions",
        ),
        (
            &["a", "red", "apple"],
            "the prompt has several words without quotes",
            "\"red\" follows it: the prompt is one argument",
        ),
    ] {
        let told = told(args);
        assert_eq!((told.what.as_str(), told.why.as_str()), (what, why), "{args:?}");
        assert_eq!((told.code, told.exit), ("INK-0250", 2));
        assert_eq!(told.to_string().lines().count(), 3, "{told}");
    }
}

#[test]
fn flags_of_other_programs_name_ours() {
    assert!(told(&["x", "--image-strength", "0.4"]).cure.contains("--image PATH=STRENGTH"));
    assert!(told(&["x", "--lora-paths", "a"]).cure.contains("LoRA"));
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
