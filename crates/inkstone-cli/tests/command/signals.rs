//! Interruptions and sudden death.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::dir::{Dir, pixels};

/// Starts a drawing that takes minutes; returns when its first stage is over.
fn start(dir: &Dir, out: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let args = ["a cat", "--steps", "200", "--size", "512x512", "-o", out];
    let mut child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("text") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it could be stopped");
    }
    (child, lines)
}

fn signal(child: &Child, name: &str) {
    // The shell's own: not every system has a program of this name.
    let kill = format!("kill -{name} {}", child.id());
    let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_signal_stops_within_a_step_and_leaves_nothing() {
    for name in ["INT", "TERM"] {
        let dir = Dir::new();
        dir.write("a.png", "old");
        let (mut child, mut stderr) = start(&dir, "b.png");
        signal(&child, name);
        let begun = Instant::now();
        let code = child.wait().unwrap().code();
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(code, Some(130), "{name}: {rest}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} took {:?}", begun.elapsed());
        assert!(rest.contains("error[INK-0503]"), "{rest}");
        assert_eq!(dir.files(), ["a.png"]);
    }
}

/// What was told of is there, whole and as it is alone; of the rest there is nothing.
#[test]
fn a_signal_amid_a_batch_keeps_what_is_finished() {
    let dir = Dir::new();
    // Two at a time; twenty take minutes.
    let prompts = (0..20).map(|i| format!("{i} cats\n")).collect::<String>();
    dir.write("p.txt", prompts);
    let common = ["--size", "512x512", "--steps", "1", "--seed", "4"];
    let args = [&common[..], &["--prompts-file", "p.txt", "-o", "{n}.png"]].concat();
    let mut child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut told = String::new();
    // Behind the third picture the fourth, of the same batch, is under way.
    for _ in 0..3 {
        assert_ne!(stdout.read_line(&mut told).unwrap(), 0, "it ended before it could be stopped");
    }
    signal(&child, "INT");
    stdout.read_to_string(&mut told).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(errors.contains("error[INK-0503]"), "{errors}");
    let mut names: Vec<&str> = told.lines().chain(["p.txt"]).collect();
    names.sort_unstable();
    assert!((4..20).contains(&names.len()), "{told}");
    assert_eq!(dir.files(), names);
    dir.ok([&common[..], &["-p", "2 cats", "-o", "alone.png"]].concat());
    assert!(fs::read(dir.path("alone.png")).unwrap() == fs::read(dir.path("3.png")).unwrap());
}

/// Killed at any time there is the old file or a new one, whole.
#[test]
fn row_73_a_kill_leaves_the_old_file_or_the_new_one() {
    const KILLS: u32 = 40;
    let dir = Dir::new();
    let draw = |seed: &str| {
        let args = ["a cat", "--steps", "1", "--seed", seed, "--overwrite", "-o", "a.png"];
        dir.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut known = Vec::new();
    let mut took = Duration::ZERO;
    for seed in ["1", "2"] {
        let begun = Instant::now();
        assert!(draw(seed).wait().unwrap().success());
        took = begun.elapsed();
        known.push(pixels(&dir.path("a.png")));
    }
    for i in 0..KILLS {
        let mut child = draw(if i % 2 == 0 { "1" } else { "2" });
        // Most kills fall into the last third, where the file is written.
        thread::sleep(took * (2 * KILLS + i) / (3 * KILLS));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(known.contains(&pixels(&dir.path("a.png"))), "kill {i} tore the file");
    }
    for name in dir.files() {
        // What a killed process was writing is recognisable as such.
        assert!(name == "a.png" || (name.starts_with(".inkstone-") && name.ends_with(".part")), "{name}");
    }
    assert!(fs::metadata(dir.path("a.png")).is_ok());
}
