use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ALONE_NS, Threads};

/// Enough work for the threads to be asked.
const LONG_NS: usize = ALONE_NS + 1;

#[test]
fn every_job_runs_once() {
    for count in 1..=4 {
        let threads = Threads::start(count).unwrap();
        for jobs in [0, 1, 2, 3, 7, 64, 1000] {
            let runs: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
            threads.run(jobs, LONG_NS, |i| {
                runs[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{count} threads, {jobs} jobs");
        }
    }
}

#[test]
fn every_row_has_a_job() {
    let threads = Threads::start(3).unwrap();
    for rows in [0, 1, 11, 12, 13, 997] {
        let sum = AtomicUsize::new(0);
        threads.rows(rows, LONG_NS, |r| {
            sum.fetch_add(r + 1, Ordering::Relaxed);
        });
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
                    threads.run(5, LONG_NS, |_| {
                        done.fetch_add(1, Ordering::Relaxed);
                    });
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
    threads.run(10, LONG_NS, |i| {
        sum.fetch_add(i, Ordering::Relaxed);
    });
    assert_eq!(sum.into_inner(), 45);
}

#[test]
fn a_panic_of_all_threads_is_thrown_once() {
    let threads = Threads::start(3).unwrap();
    for _ in 0..20 {
        let run = || threads.run(40, LONG_NS, |_| panic!("every job"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        threads.run(40, LONG_NS, |_| ());
    }
}
