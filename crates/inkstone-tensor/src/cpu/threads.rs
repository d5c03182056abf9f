//! The threads that share the jobs of an operation.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result};

/// Some threads, the caller's among them.
#[derive(Debug)]
pub(super) struct Threads {
    /// All but the caller's; `None` if it is alone.
    others: Option<rayon::ThreadPool>,
    count: usize,
}

/// Work below this is done by the caller alone: waking another thread takes about as long.
const ALONE_NS: usize = 15_000;

impl Threads {
    pub(super) fn start(count: usize) -> Result<Self> {
        let failed = |reason: String| Error::Device { device: "cpu".into(), reason };
        if count == 0 {
            return Err(failed("0 threads; 1 or more are needed".into()));
        }
        if count == 1 {
            return Ok(Self { others: None, count });
        }
        let others = rayon::ThreadPoolBuilder::new()
            .num_threads(count - 1)
            .thread_name(|i| format!("inkstone-{}", i + 1))
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self { others: Some(others), count })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Runs jobs `0..jobs`, in any order, on all threads, and returns when the last is done. `work_ns` is about how
    /// long they take one thread together.
    pub(super) fn run(&self, jobs: usize, work_ns: usize, job: impl Fn(usize) + Sync) {
        let alone = jobs < 2 || work_ns < ALONE_NS;
        let Some(others) = self.others.as_ref().filter(|_| !alone) else {
            return (0..jobs).for_each(job);
        };
        let next = AtomicUsize::new(0);
        let take_jobs = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= jobs {
                    break;
                }
                job(i);
            }
        };
        others.in_place_scope(|scope| {
            for _ in 1..self.count.min(jobs) {
                scope.spawn(|_| take_jobs());
            }
            take_jobs();
        });
    }

    /// Runs a job for each of `rows` rows; rows of one thread follow each other.
    pub(super) fn rows(&self, rows: usize, row_ns: usize, job: impl Fn(usize) + Sync) {
        let chunk = rows.div_ceil(4 * self.count).max(1);
        self.run(rows.div_ceil(chunk), rows * row_ns, |i| {
            (i * chunk..rows.min((i + 1) * chunk)).for_each(&job);
        });
    }
}

/// A buffer in equal chunks that jobs take to write.
pub(super) struct Chunks<'a> {
    start: *mut u8,
    len: usize,
    chunk: usize,
    life: PhantomData<&'a mut [u8]>,
}

// SAFETY: the only access is `take`, whose callers promise to take each chunk once.
unsafe impl Sync for Chunks<'_> {}

impl<'a> Chunks<'a> {
    pub(super) fn new(bytes: &'a mut [u8], chunk: usize) -> Self {
        Self { start: bytes.as_mut_ptr(), len: bytes.len(), chunk, life: PhantomData }
    }

    /// # Safety
    /// Each chunk is taken once.
    #[allow(clippy::mut_from_ref, reason = "the contract makes chunks exclusive")]
    pub(super) unsafe fn take(&self, i: usize) -> &'a mut [u8] {
        assert!((i + 1) * self.chunk <= self.len);
        // SAFETY: within the buffer, and the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.chunk), self.chunk) }
    }
}
