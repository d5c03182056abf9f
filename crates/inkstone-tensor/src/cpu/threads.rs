//! The threads that share the jobs of an operation.
//!
//! Operations are short and follow each other closely, so a thread looks out for the next one for a moment before it
//! sleeps, and an operation never waits for a thread that has not begun to help: on a busy machine the caller does the
//! work alone.

use std::any::Any;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::scratch;
use crate::{AlignedBuffer, Error, Result};

#[cfg(test)]
mod tests;

/// Some threads, the caller's among them.
#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
    /// All but the caller's.
    others: Vec<JoinHandle<()>>,
    /// Held by the operation that the threads work for.
    turn: Mutex<()>,
}

/// The device's, for errors.
const NAME: &str = "cpu";
/// Of a thread's stack.
const STACK_BYTES: usize = 2 << 20;
/// Work below this is done by the caller alone: waking another thread takes about as long.
const ALONE_NS: usize = 20_000;
/// How long a thread looks out for more before it sleeps.
const LOOK_OUT: Duration = Duration::from_micros(40);

impl Threads {
    /// # Errors
    /// [`Error::Device`] if there are to be none or too many, [`Error::OutOfMemory`].
    pub(super) fn start(count: usize) -> Result<Self> {
        let failed = |reason: String| Error::Device { device: NAME.into(), reason };
        if count == 0 {
            return Err(failed("0 threads; 1 or more are needed".into()));
        }
        let mut threads = Self { shared: Arc::default(), others: Vec::new(), turn: Mutex::default() };
        for i in 1..count {
            let shared = Arc::clone(&threads.shared);
            let thread = std::thread::Builder::new().name(format!("inkstone-{i}")).stack_size(STACK_BYTES);
            let started = thread.spawn(move || shared.serve()).map_err(|e| {
                // The system has one word for no memory and for too many threads.
                match AlignedBuffer::zeroed(STACK_BYTES) {
                    None => Error::OutOfMemory { device: NAME.into(), wanted_bytes: STACK_BYTES },
                    Some(_) => failed(e.to_string()),
                }
            });
            threads.others.push(started?);
        }
        Ok(threads)
    }

    pub(super) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Runs jobs `0..jobs`, in any order, on all threads, and returns when the last is done. `work_ns` is about how
    /// long they take one thread together.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if a job found no scratch: what it writes is undefined then.
    pub(super) fn run(&self, jobs: usize, work_ns: usize, job: impl Fn(usize) + Sync) -> Result<()> {
        let missed = AtomicUsize::new(0);
        self.run_all(jobs, work_ns, |i| {
            job(i);
            let bytes = scratch::missed();
            if bytes > 0 {
                missed.fetch_max(bytes, Ordering::Relaxed);
            }
        });
        match missed.into_inner() {
            0 => Ok(()),
            wanted_bytes => Err(Error::OutOfMemory { device: NAME.into(), wanted_bytes }),
        }
    }

    fn run_all(&self, jobs: usize, work_ns: usize, job: impl Fn(usize) + Sync) {
        let turn = if self.others.is_empty() || jobs < 2 || work_ns < ALONE_NS { None } else { self.turn() };
        if turn.is_none() {
            return (0..jobs).for_each(job);
        }
        let next = AtomicUsize::new(0);
        self.shared.together(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= jobs {
                    break;
                }
                job(i);
            }
        });
    }

    /// The right to the other threads; `None` while another caller's operation has them.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Ok(turn) => Some(turn),
        }
    }

    /// Runs a job for each of `rows` rows; rows of one thread follow each other.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn rows(&self, rows: usize, row_ns: usize, job: impl Fn(usize) + Sync) -> Result<()> {
        let chunk = rows.div_ceil(4 * self.count()).max(1);
        self.run(rows.div_ceil(chunk), rows * row_ns, |i| {
            (i * chunk..rows.min((i + 1) * chunk)).for_each(&job);
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.posted.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for thread in self.others.drain(..) {
            // A thread catches what its work throws, so there is nothing to hear of.
            let _ = thread.join();
        }
    }
}

/// What the threads see of each other.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when there is a task, or the end.
    wake: Condvar,
    /// Told when no thread is busy.
    idle: Condvar,
    /// Number of the latest task, to look out for without the lock.
    posted: AtomicUsize,
    /// As in the state.
    busy: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// What there is to help with; the number tells it from the one before.
    task: Option<Task>,
    /// What a thread's work threw.
    thrown: Option<Box<dyn Any + Send>>,
    stop: bool,
}

#[derive(Clone, Copy)]
struct Task {
    work: *const (dyn Fn() + Sync),
    number: usize,
}

// SAFETY: what it points to may be shared, and `Shared::together` keeps it alive while a thread is busy with it.
unsafe impl Send for Task {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `work` on this thread and on all that come to help before this one is done with it.
    fn together(&self, work: &(dyn Fn() + Sync)) {
        /// Takes the task back and waits for those who are busy with it, also when `work` panics here.
        struct Post<'a>(&'a Shared);
        impl Drop for Post<'_> {
            fn drop(&mut self) {
                self.0.lock().task = None;
                look_out(|| self.0.busy.load(Ordering::Acquire) == 0);
                let mut state = self.0.lock();
                while self.0.busy.load(Ordering::Acquire) > 0 {
                    state = self.0.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
        // SAFETY: only the lifetime changes. `Post` ends it: from then on no thread finds the task, and none is busy.
        let work_for_all = unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync), *const (dyn Fn() + Sync)>(std::ptr::from_ref(
                work,
            ))
        };
        let post = Post(self);
        let number = self.posted.load(Ordering::Relaxed) + 1;
        {
            let mut state = self.lock();
            state.thrown = None; // of a task whose caller threw too
            state.task = Some(Task { work: work_for_all, number });
        }
        self.posted.store(number, Ordering::Release);
        self.wake.notify_all();
        work();
        drop(post);
        let thrown = self.lock().thrown.take();
        if let Some(thrown) = thrown {
            resume_unwind(thrown);
        }
    }

    /// The life of a thread: helps with one task after the other.
    fn serve(&self) {
        let mut seen = 0;
        loop {
            look_out(|| self.posted.load(Ordering::Acquire) != seen);
            let mut state = self.lock();
            let task = loop {
                if state.stop {
                    return;
                }
                match state.task {
                    Some(task) if task.number != seen => break task,
                    // What was posted is over: the next is another number.
                    _ => {
                        seen = self.posted.load(Ordering::Acquire);
                        state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            seen = task.number;
            self.busy.fetch_add(1, Ordering::AcqRel);
            drop(state);
            // SAFETY: the task was found under the lock and this thread counted as busy: `together` waits for it.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*task.work)() }));
            let mut state = self.lock();
            if let Err(thrown) = result {
                state.thrown = Some(thrown);
            }
            if self.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.idle.notify_all();
            }
        }
    }
}

/// Waits for `done` for a moment without giving the processor away.
fn look_out(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() && start.elapsed() < LOOK_OUT {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
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
    pub(super) unsafe fn take(&self, i: usize) -> &'a mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { self.take_some(i, 1) }
    }

    /// `n` chunks that follow each other.
    ///
    /// # Safety
    /// Each chunk is taken once.
    #[allow(clippy::mut_from_ref, reason = "the contract makes chunks exclusive")]
    pub(super) unsafe fn take_some(&self, i: usize, n: usize) -> &'a mut [u8] {
        assert!((i + n) * self.chunk <= self.len);
        // SAFETY: within the buffer, and the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.chunk), n * self.chunk) }
    }
}
