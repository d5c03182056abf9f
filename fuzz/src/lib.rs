//! What strangers' files are read with, one function a kind of file, for fuzzers: bytes in, a panic where a rule is
//! broken. The rules: no panic, no crash, no time beyond [`LIMIT_S`], no memory beyond four times the input and a
//! slack that each target derives, and every error is one about files.
//!
//! The binaries in `fuzz_targets` give them to libFuzzer. The crate's own tests include this file and feed it with
//! the changes of [`mutate`], on any compiler.

mod input;
pub mod mutate;
mod place;
mod seeds;
mod targets;

use inkstone::Error;
use inkstone_tensor::{AlignedBuffer, cpu};
use peak_alloc::PeakAlloc;

pub use place::Place;
pub use targets::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The longest that an input may take, of the processor's time: on a busy machine that on the wall is the others'. Real
/// ones of these sizes take milliseconds; unoptimised code some dozens.
const LIMIT_S: f64 = 5.0;
/// Memory beyond the input that all targets may take: errors, paths, the first growth of lists.
const SLACK_BYTES: usize = 64 << 10;

/// A target at work: the folder that it reads from, and what reading takes when nothing is wrong.
pub struct Session {
    target: &'static Target,
    place: Place,
    usual_bytes: usize,
}

impl Session {
    /// A session of the target of this name.
    ///
    /// # Panics
    /// If there is none, or no folder can be made.
    pub fn new(name: &str) -> Self {
        let mut session = Self { target: target_of(name), place: Place::new(), usual_bytes: 0 };
        // Once for what is made only once, such as tables.
        let _ = session.peak_bytes(b"");
        session.usual_bytes = session.peak_bytes(b"").0;
        session
    }

    /// Reads an input; whether it was accepted.
    ///
    /// # Panics
    /// If a rule is broken.
    pub fn run(&mut self, input: &[u8]) -> bool {
        let begun = cpu::process_seconds();
        let (peak_bytes, result) = self.peak_bytes(input);
        let taken_s = begun.zip(cpu::process_seconds()).map_or(0.0, |(begun, end)| end - begun);
        assert!(taken_s < LIMIT_S, "{taken_s} s for {} bytes", input.len());
        let most_bytes = self.usual_bytes + 4 * input.len() + SLACK_BYTES + self.target.slack_bytes;
        assert!(peak_bytes <= most_bytes, "{peak_bytes} bytes, allowed are {most_bytes}");
        if let Err(error) = &result {
            let is_about_files = error.code().starts_with("INK-03") || error.code() == "INK-0211";
            assert!(is_about_files, "{} {error}", error.code());
        }
        result.is_ok()
    }

    /// The peak of what an input takes beyond what was there before.
    fn peak_bytes(&mut self, input: &[u8]) -> (usize, Result<(), Error>) {
        ALLOCATOR.reset_peak_usage();
        AlignedBuffer::reset_mapped_peak();
        let before = ALLOCATOR.current_usage() + AlignedBuffer::mapped_bytes();
        let result = (self.target.read)(&mut self.place, input);
        // The sum of both peaks is at least the peak of both.
        (ALLOCATOR.peak_usage() + AlignedBuffer::mapped_peak_bytes() - before, result)
    }

    /// Inputs for the target of this name to begin with.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn seeds_of(name: &str) -> Vec<Vec<u8>> {
        (target_of(name).seeds)()
    }
}

fn target_of(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target's name")
}

/// The body of a libFuzzer binary.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        ::libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            static SESSION: ::std::sync::Mutex<Option<$crate::Session>> = ::std::sync::Mutex::new(None);
            let mut session = SESSION.lock().unwrap_or_else(::std::sync::PoisonError::into_inner);
            session.get_or_insert_with(|| $crate::Session::new($name)).run(input);
        });
    };
}
