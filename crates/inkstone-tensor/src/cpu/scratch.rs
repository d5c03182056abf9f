//! Memory for the inside of an operation, kept by each thread from one operation to the next.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::Cell;

use crate::AlignedBuffer;

thread_local! {
    static KEPT: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
}

/// Calls `f` with buffers of these sizes in bytes: each starts at a multiple of 64, contents undefined. Within `f`
/// a further call allocates anew, so kernels make one call at their outermost loop.
pub(super) fn with<R, const K: usize>(sizes: [usize; K], f: impl FnOnce([&mut [u8]; K]) -> R) -> R {
    let total = sizes.iter().map(|size| padded(*size)).sum();
    let mut buffer = match KEPT.take() {
        Some(kept) if kept.as_slice().len() >= total => kept,
        kept => {
            drop(kept);
            zeroed(total)
        }
    };
    let mut rest = buffer.as_mut_slice();
    let parts = sizes.map(|size| {
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(padded(size));
        rest = behind;
        &mut part[..size]
    });
    let result = f(parts);
    KEPT.set(Some(buffer));
    result
}

/// f32 values in scratch bytes.
pub(super) fn as_f32(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: any bits are an f32.
    let (head, values, _) = unsafe { bytes.align_to_mut::<f32>() };
    assert!(head.is_empty(), "scratch is aligned");
    values
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(AlignedBuffer::ALIGN)
}

fn zeroed(len: usize) -> AlignedBuffer {
    // A few MiB a thread: as for any small allocation, there is nobody to tell that it failed.
    AlignedBuffer::zeroed(len).unwrap_or_else(|| handle_alloc_error(Layout::new::<AlignedBuffer>()))
}
