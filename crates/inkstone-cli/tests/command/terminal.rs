//! On a terminal: `script` of util-linux gives one.

use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};

use crate::dir::{Dir, pixels};

/// A terminal in which a shell's command runs.
fn terminal(dir: &Dir, command: &str) -> Command {
    let mut script = dir.started("script");
    script.args(["-qec", command, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
    script.stdout(Stdio::piped()).stderr(Stdio::null());
    script
}

/// What a terminal shows of the command, with these lines typed. `None` where there is no `script`, or no terminal for it.
fn typed(dir: &Dir, args: &str, lines: &str) -> Option<(String, Option<i32>)> {
    terminal(dir, "test -t 1").status().ok().filter(ExitStatus::success)?;
    let command = format!("'{}' {args}", env!("CARGO_BIN_EXE_inkstone"));
    let mut child = terminal(dir, &command).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    // The input stays open until the end: closing it would hang up the terminal.
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Some((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code()))
}

#[test]
fn a_bar_is_drawn_over_and_cleared() {
    let dir = Dir::new();
    let Some((shown, code)) = typed(&dir, "'a cat' --steps 4 --seed 1", "") else { return };
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("denoise") && shown.contains("/4") && shown.contains("\r\x1b[2K"), "{shown:?}");
    assert!(shown.ends_with("inkstone-1.png\r\n"), "{shown:?}");
}

#[test]
fn without_arguments_every_line_is_a_prompt() {
    let dir = Dir::new();
    let lines = "a cat\n80x64 a dog\n$0=0.5 a fox\n$7 no\n65x64 no\n!help\n!quit\n";
    let Some((shown, code)) = typed(&dir, "--steps 2 --seed 1", lines) else { return };
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(dir.files(), ["inkstone-1-2.png", "inkstone-1-3.png", "inkstone-1.png"], "{shown}");
    assert_eq!(pixels(&dir.path("inkstone-1-2.png")).width_px, 80);
    assert_eq!(pixels(&dir.path("inkstone-1-3.png")).width_px, 128);
    assert!(shown.contains("there is no picture $7") && shown.contains("size is 65x64"), "{shown}");
}
