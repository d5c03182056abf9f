use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;

const PIECE: u64 = PIECE_BYTES;

/// What was done with all sources: `has` and `read` with the source, the piece's start and its length.
type Log = Arc<Mutex<Vec<(&'static str, usize, u64, u64)>>>;

struct Fake {
    name: usize,
    bytes: u64,
    /// From here on nothing is cached.
    cached: u64,
    /// Where the file ends.
    end: u64,
    log: Log,
}

impl Source for Fake {
    fn len_bytes(&self) -> u64 {
        self.bytes
    }
    fn has(&self, start: u64, bytes: u64) -> bool {
        self.log.lock().unwrap().push(("has", self.name, start, bytes));
        start + bytes <= self.cached
    }
    fn read(&self, start: u64, bytes: u64) -> bool {
        self.log.lock().unwrap().push(("read", self.name, start, bytes));
        start + bytes <= self.end
    }
}

/// Sources of these bytes, of which the first so many are cached.
fn sources(log: &Log, sizes: &[(u64, u64)]) -> Vec<Fake> {
    let fake = |(name, &(bytes, cached))| Fake { name, bytes, cached, end: u64::MAX, log: Arc::clone(log) };
    sizes.iter().enumerate().map(fake).collect()
}

#[test]
fn pieces_are_read_in_order_each_when_it_is_its_turn() {
    let log = Log::default();
    let turns = Mutex::new(Vec::new());
    read(&sources(&log, &[(2 * PIECE + 1, 0), (0, 0), (5, 0)]), |bytes| {
        turns.lock().unwrap().push(bytes);
        true
    });
    let expected = [
        ("has", 0, 0, PIECE),
        ("read", 0, 0, PIECE),
        ("read", 0, PIECE, PIECE),
        ("read", 0, 2 * PIECE, 1),
        ("has", 2, 0, 5),
        ("read", 2, 0, 5),
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    assert_eq!(*turns.lock().unwrap(), [PIECE, 2 * PIECE, 2 * PIECE + 1, 2 * PIECE + 6]);
}

#[test]
fn what_is_cached_is_neither_read_nor_waited_for() {
    let log = Log::default();
    let turns = Mutex::new(Vec::new());
    read(&sources(&log, &[(3 * PIECE, 3 * PIECE), (2 * PIECE, PIECE)]), |bytes| {
        turns.lock().unwrap().push(bytes);
        true
    });
    let read: Vec<_> = log.lock().unwrap().iter().filter(|entry| entry.0 == "read").copied().collect();
    assert_eq!(read, [("read", 1, PIECE, PIECE)]);
    assert_eq!(*turns.lock().unwrap(), [5 * PIECE], "what is cached counts as a part of the way");
}

#[test]
fn reading_ends_where_it_is_not_wanted_and_where_a_file_does() {
    let log = Log::default();
    read(&sources(&log, &[(3 * PIECE, 0)]), |bytes| bytes <= PIECE);
    assert_eq!(log.lock().unwrap().last(), Some(&("read", 0, 0, PIECE)));
    log.lock().unwrap().clear();
    let mut short = sources(&log, &[(3 * PIECE, 0), (PIECE, 0)]);
    short[0].end = PIECE + 1;
    read(&short, |_| true);
    assert_eq!(log.lock().unwrap().last(), Some(&("read", 0, PIECE, PIECE)));
}

/// Waits until something is so; panics if it never is.
fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_thread_stays_within_its_distance_and_ends_when_it_is_dropped() {
    let log = Log::default();
    let used = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&used);
    let ahead = Ahead::begin(sources(&log, &[(PIECE, 0), (9 * PIECE, 0)]), 2 * PIECE, move || {
        told.load(Ordering::Relaxed)
    });
    let reads = || log.lock().unwrap().iter().filter(|entry| entry.0 == "read").count();
    until(|| reads() == 2);
    std::thread::sleep(8 * LOOK);
    assert_eq!(reads(), 2, "nothing was used yet");
    used.store(3 * PIECE + 7, Ordering::Relaxed);
    until(|| reads() == 5);
    std::thread::sleep(8 * LOOK);
    assert_eq!(reads(), 5, "use is in the fourth piece");
    drop(ahead);
    assert_eq!((reads(), Arc::strong_count(&log)), (5, 1), "the thread is gone, with all that it had");
}

#[test]
fn nothing_to_read_needs_no_thread() {
    assert!(Ahead::of(&[Pages::default()]).thread.is_none());
}
