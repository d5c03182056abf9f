use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::scratch;
use super::{ALONE_NS, Threads};
use crate::Error;

/// Enough work for the threads to be asked.
const LONG_NS: usize = ALONE_NS + 1;

#[test]
fn every_job_runs_once() {
    for count in 1..=4 {
        let threads = Threads::start(count).unwrap();
        for jobs in [0, 1, 2, 3, 7, 64, 1000] {
            let runs: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
            let run = threads.run(jobs, LONG_NS, |i| {
                runs[i].fetch_add(1, Ordering::Relaxed);
            });
            run.unwrap();
            assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{count} threads, {jobs} jobs");
        }
    }
}

#[test]
fn every_row_has_a_job() {
    let threads = Threads::start(3).unwrap();
    for rows in [0, 1, 11, 12, 13, 997] {
        let sum = AtomicUsize::new(0);
        let run = threads.rows(rows, LONG_NS, |r| {
            sum.fetch_add(r + 1, Ordering::Relaxed);
        });
        run.unwrap();
        assert_eq!(sum.into_inner(), rows * (rows + 1) / 2);
    }
}

#[test]
fn callers_share_the_threads() {
    let threads = Threads::start(2).unwrap();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let run = threads.run(5, LONG_NS, |_| {
                        done.fetch_add(1, Ordering::Relaxed);
                    });
                    run.unwrap();
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 3 * 200 * 5);
}

#[test]
fn a_panic_of_any_job_reaches_the_caller_and_harms_nobody() {
    let threads = Threads::start(3).unwrap();
    for wrong in 0..40 {
        let run = || threads.run(40, LONG_NS, |i| assert_ne!(i, wrong));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    }
    let sum = AtomicUsize::new(0);
    let run = threads.run(10, LONG_NS, |i| {
        sum.fetch_add(i, Ordering::Relaxed);
    });
    run.unwrap();
    assert_eq!(sum.into_inner(), 45);
}

#[test]
fn a_panic_of_all_threads_is_thrown_once() {
    let threads = Threads::start(3).unwrap();
    for _ in 0..20 {
        let run = || threads.run(40, LONG_NS, |_| panic!("every job"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        threads.run(40, LONG_NS, |_| ()).unwrap();
    }
}

#[test]
fn a_job_without_scratch_fails_the_operation_and_no_other() {
    // More than any machine has, and more than an address space.
    for wanted in [1 << 60, usize::MAX - 64] {
        for count in [1, 3] {
            let threads = Threads::start(count).unwrap();
            let ran = AtomicUsize::new(0);
            let run = |too_much: usize| {
                threads.run(40, LONG_NS, |i| {
                    scratch::with([if i == too_much { wanted } else { 64 }, 64], |_| {
                        ran.fetch_add(1, Ordering::Relaxed);
                    });
                })
            };
            let Err(Error::OutOfMemory { wanted_bytes, .. }) = run(7) else { panic!("{wanted} bytes") };
            assert!(wanted_bytes >= wanted, "{wanted_bytes}");
            assert_eq!(ran.load(Ordering::Relaxed), 39);
            run(40).unwrap();
        }
    }
}
