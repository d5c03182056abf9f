//! How fast the program answers. The best of several runs is compared: other work on the machine is not our matter.

use std::time::{Duration, Instant};

use crate::dir::Dir;

fn best_of(runs: usize, dir: &Dir, args: &[&str]) -> Duration {
    let once = |_| {
        let begun = Instant::now();
        dir.ok(args);
        begun.elapsed()
    };
    (0..runs).map(once).min().unwrap()
}

/// Unoptimised code may take this many times as long.
const DEBUG_FACTOR: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

#[test]
fn help_within_20_ms() {
    let took = best_of(20, &Dir::new(), &["--help"]);
    assert!(took < DEBUG_FACTOR * Duration::from_millis(20), "{took:?}");
}

#[test]
fn a_dry_run_within_300_ms() {
    let took = best_of(10, &Dir::new(), &["a red apple", "--dry-run"]);
    assert!(took < DEBUG_FACTOR * Duration::from_millis(300), "{took:?}");
}
