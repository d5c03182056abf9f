//! The targets of `fuzz/` on a stable compiler: stored inputs, then changes of them that are the same on every
//! machine: 100, or as many as `INKSTONE_FUZZ_SECONDS` allow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "as in tests"
)]
#![allow(unreachable_pub, missing_docs, reason = "of a crate of its own")]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::Session;
use fuzz::mutate::Random;

/// Says which input broke a rule.
struct Note<'a> {
    target: &'a str,
    which: String,
    input: Vec<u8>,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("inkstone-fuzz-{}-broken", self.target));
            fs::write(&path, &self.input).unwrap();
            eprintln!("{}, {}: see {}", self.target, self.which, path.display());
        }
    }
}

/// Feeds a target until its time is over.
fn smoke(target: &str) {
    /// What is allocated by others would count.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = std::env::var("INKSTONE_FUZZ_SECONDS").map_or(0, |text| text.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut session = Session::new(target);
    let mut run = |which: String, input: Vec<u8>| {
        let note = Note { target, which, input };
        session.run(&note.input)
    };

    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = Session::seeds_of(target);
    let sound = inputs.iter().enumerate().filter(|(i, seed)| run(format!("seed {i}"), seed.to_vec())).count();
    assert!(sound > 0, "no seed of {target} is accepted");
    let mut files: Vec<_> =
        fs::read_dir(stored).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files {
        let input = fs::read(&path).unwrap();
        run(path.display().to_string(), input.clone());
        inputs.push(input);
    }
    let (mut rounds, mut refused) = (0u32, 0u32);
    while Instant::now() < end || rounds < 100 {
        rounds += 1;
        let input = Random::new(u64::from(rounds)).changed(&inputs);
        refused += u32::from(!run(format!("round {rounds}"), input));
    }
    println!("{target}: {rounds} rounds, {refused} refused");
    // A change may fall into a value; most break a rule.
    assert!(refused > rounds / 5, "{target}: {refused} of {rounds} refused");
}

#[test]
fn safetensors() {
    smoke("safetensors");
}

#[test]
fn model() {
    smoke("model");
}

#[test]
fn gguf() {
    smoke("gguf");
}

#[test]
fn packed() {
    smoke("packed");
}

#[test]
fn lora() {
    smoke("lora");
}

#[test]
fn tokenizer() {
    smoke("tokenizer");
}
