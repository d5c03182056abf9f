//! How fast the program answers. One of several runs has to be as fast: other work on the machine is not our matter.

use std::time::{Duration, Instant};

use crate::dir::Dir;

fn assert_one_within(limit: Duration, args: &[&str]) {
    let dir = Dir::new();
    let once = |_| {
        let begun = Instant::now();
        dir.ok(args);
        begun.elapsed()
    };
    let taken: Vec<Duration> = (0..50).map(once).take_while(|taken| *taken >= limit).collect();
    assert!(taken.len() < 50, "{taken:?}");
}

/// Unoptimised code may take this many times as long.
const DEBUG_FACTOR: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

#[test]
fn help_within_20_ms() {
    assert_one_within(DEBUG_FACTOR * Duration::from_millis(20), &["--help"]);
}

#[test]
fn a_dry_run_within_300_ms() {
    assert_one_within(DEBUG_FACTOR * Duration::from_millis(300), &["a red apple", "--dry-run"]);
}
