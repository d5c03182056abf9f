//! Keeps the process alive when a page of a mapping is gone: a handler for SIGBUS.
//!
//! The handler may run between any two instructions of any thread. So it only reads a table of fixed size made of
//! atomics, and asks the system to map zeros over the whole of the mapping that lost a page.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings that are guarded at the same time. Those beyond are not: a lost page of theirs ends the process.
const SLOTS: usize = 1024;

/// A guarded mapping. A slot with `len` 0 matches no address; one with `start` 0 is free.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    damaged: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), len: AtomicUsize::new(0), damaged: AtomicBool::new(false) }
}; SLOTS];

/// The handler that was there before ours; `None` inside if it could not be asked or ours not be set.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// A mapping's place in the table, for as long as it is mapped.
#[derive(Debug)]
pub(super) struct Guard {
    slot: usize,
}

impl Guard {
    /// Guards these bytes, which must be a mapping from its first page to its end; `None` if the table is full,
    /// the handler cannot be set or there are no bytes.
    pub(super) fn new(map: &[u8]) -> Option<Self> {
        if map.is_empty() {
            return None;
        }
        PREVIOUS.get_or_init(install).as_ref()?;
        let start = map.as_ptr().addr();
        let claim =
            |slot: &Slot| slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        let slot = TABLE.iter().position(claim)?;
        TABLE[slot].damaged.store(false, Ordering::Relaxed);
        TABLE[slot].len.store(map.len(), Ordering::Release);
        Some(Self { slot })
    }

    /// Whether the mapping lost a page and was replaced by zeros.
    pub(super) fn is_damaged(&self) -> bool {
        TABLE[self.slot].damaged.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.slot].len.store(0, Ordering::Release);
        TABLE[self.slot].start.store(0, Ordering::Release);
    }
}

/// Sets our handler; gives the one before it.
fn install() -> Option<libc::sigaction> {
    let mut previous = MaybeUninit::<libc::sigaction>::zeroed();
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
    // SAFETY: the structs are plain data for which zeros are valid, the pointers are to locals, and the handler
    // has the type that SA_SIGINFO asks for and does only what a handler may. SA_ONSTACK: on macOS a stack
    // overflow is a SIGBUS as well, and comes to us first.
    unsafe {
        let mut ours: libc::sigaction = MaybeUninit::zeroed().assume_init();
        ours.sa_sigaction = handler as *const () as libc::sighandler_t;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut ours.sa_mask);
        let set = libc::sigaction(libc::SIGBUS, &raw const ours, previous.as_mut_ptr());
        (set == 0).then(|| previous.assume_init())
    }
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives a valid `info` to a handler that was set with SA_SIGINFO.
    let (address, code) = unsafe { ((*info).si_addr().addr(), (*info).si_code) };
    // Codes up to 0 are of signals that a process sent; they carry no address.
    if code > 0 && replace_by_zeros(address) {
        return;
    }
    pass_on(signal, info, context, code);
}

/// Maps zeros over the guarded mapping that holds an address.
fn replace_by_zeros(address: usize) -> bool {
    for slot in &TABLE {
        let len = slot.len.load(Ordering::Acquire);
        let start = slot.start.load(Ordering::Acquire);
        // The length again: a slot that changes hands in between must not pair the old one with the new start.
        if !(start..start.saturating_add(len)).contains(&address) || slot.len.load(Ordering::Acquire) != len {
            continue;
        }
        slot.damaged.store(true, Ordering::Release);
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_ANON | libc::MAP_NORESERVE;
        // SAFETY: the range is a mapping of ours that nothing writes to, and whoever reads it holds it mapped;
        // `errno` is the interrupted thread's and is put back.
        return unsafe {
            let errno = errno();
            let saved = *errno;
            let start = std::ptr::with_exposed_provenance_mut(start);
            let mapped = libc::mmap(start, len, libc::PROT_READ, flags, -1, 0);
            *errno = saved;
            mapped != libc::MAP_FAILED
        };
    }
    false
}

/// Does what would have been done without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void, code: libc::c_int) {
    let previous = PREVIOUS.get().and_then(Option::as_ref);
    let handler = previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction);
    // SAFETY: a handler that is neither of the two constants is a function of the type that its flags tell; it
    // was set by somebody for this signal. Setting and raising a signal is allowed in a handler.
    unsafe {
        match handler {
            // Nobody minds a signal that was sent; a fault cannot be ignored.
            libc::SIG_IGN if code <= 0 => {}
            libc::SIG_DFL | libc::SIG_IGN => {
                let mut default: libc::sigaction = MaybeUninit::zeroed().assume_init();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const default, null_mut());
                // Comes when this handler returns.
                libc::raise(signal);
            }
            handler if previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0) => {
                type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void);
                let handler: *const () = std::ptr::with_exposed_provenance(handler);
                std::mem::transmute::<*const (), WithInfo>(handler)(signal, info, context);
            }
            handler => {
                let handler: *const () = std::ptr::with_exposed_provenance(handler);
                std::mem::transmute::<*const (), extern "C" fn(libc::c_int)>(handler)(signal);
            }
        }
    }
}

#[cfg(target_os = "linux")]
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: always allowed; gives the thread's own cell.
    unsafe { libc::__errno_location() }
}

#[cfg(target_os = "macos")]
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: always allowed; gives the thread's own cell.
    unsafe { libc::__error() }
}
