//! Pipes and devices in place of files: those that hold weights or pictures are refused before anybody waits for them;
//! text may come from them.

use std::process::Command;

use crate::dir::{Dir, finish, tiny};

/// A folder with a pipe that nobody ever writes to.
fn with_pipe() -> Dir {
    let dir = Dir::new();
    assert!(Command::new("mkfifo").arg(dir.path("ff.gguf")).status().unwrap().success());
    dir
}

#[test]
fn weights_are_read_from_files_only() {
    let dir = with_pipe();
    let model = tiny();
    let model = model.to_str().unwrap();
    for (path, kind) in [("ff.gguf", "a pipe"), ("/dev/zero", "a device")] {
        for flag in ["--transformer", "--vae", "--text-encoder", "--tokenizer"] {
            let told = dir.refused(["a cat", "-m", model, flag, path], "INK-0301", 3);
            let what = format!("{path}\n  why: it is {kind}, not a file\n  try: give a file on a disk");
            assert!(told.contains(&what), "{flag}: {told}");
        }
        for args in [&["a cat", "-m", path][..], &["a cat", "--lora", path], &["lora", "inspect", path]] {
            let told = dir.refused(args, "INK-0301", 3);
            assert!(told.contains(&format!("why: it is {kind}, not a file")), "{args:?}: {told}");
        }
    }
}

#[test]
fn pictures_are_read_from_files_only() {
    let dir = with_pipe();
    for (path, kind) in [("ff.gguf", "a pipe"), ("/dev/zero", "a device"), (".", "a folder")] {
        for args in [&["a cat", "-i", path][..], &["info", path], &["--config-from-metadata", path]] {
            let told = dir.refused(args, "INK-0250", 2);
            let why =
                format!("cannot read {path}\n  why: it is {kind}, not a file\n  try: save it as a file");
            assert!(told.contains(&why), "{args:?}: {told}");
        }
    }
}

#[test]
fn figures_to_compare_with_have_a_limit() {
    let dir = Dir::new();
    let told = dir.refused(["bench", "linear/8x64x32", "--compare", "/dev/zero"], "INK-0250", 2);
    assert!(told.contains("/dev/zero is too large\n  why: it is larger than 16 MiB"), "{told}");
    dir.write("bytes", b"\xff\xfe");
    let told = dir.refused(["bench", "linear/8x64x32", "--compare", "bytes"], "INK-0250", 2);
    assert!(told.contains("bytes holds no measurements"), "{told}");
}

/// What a shell's `<(...)` and `|` give.
#[test]
fn prompts_and_figures_may_come_through_a_pipe() {
    let dir = Dir::new();
    let shell = |script: &str| {
        let run = finish(&mut dir.script("sh", script));
        assert_eq!(run.code, Some(0), "{script}: {run:#?}");
        run.stdout
    };
    for from in ["--prompt-file /dev/stdin", "--prompt-file -", "--prompts-file /dev/stdin"] {
        let out = shell(&format!("echo a red apple | \"$0\" {from} --dry-run"));
        assert!(out.contains("prompt: \"a red apple\""), "{from}: {out}");
    }
    let bench = "\"$0\" bench linear/8x64x32 --dtype f32 --runs 1";
    let out = shell(&format!("{bench} --json | {bench} --json --compare /dev/stdin"));
    assert!(out.contains("\"ratio\":"), "{out}");
    assert!(!out.contains("\"ratio\":null"), "{out}");
}
