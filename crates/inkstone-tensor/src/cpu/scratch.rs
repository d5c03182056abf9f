//! Memory for the inside of an operation, kept by each thread from one operation to the next.

use std::cell::Cell;

use crate::AlignedBuffer;

thread_local! {
    static KEPT: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
    /// Bytes that this thread asked for in vain.
    static MISSED: Cell<usize> = const { Cell::new(0) };
}

/// Calls `f` with buffers of these sizes in bytes: each starts at a multiple of 64, contents undefined. Within `f`
/// a further call allocates anew, so kernels make one call at their outermost loop. Without memory `f` is not called, and
/// [`missed`] tells.
pub(super) fn with<const K: usize>(sizes: [usize; K], f: impl FnOnce([&mut [u8]; K])) {
    let total = sizes.iter().map(|size| padded(*size)).fold(0, usize::saturating_add);
    let kept = KEPT.take().filter(|kept| kept.as_slice().len() >= total);
    let Some(mut buffer) = kept.or_else(|| AlignedBuffer::zeroed(total)) else {
        return MISSED.set(MISSED.get().max(total));
    };
    let mut rest = buffer.as_mut_slice();
    let parts = sizes.map(|size| {
        let (part, behind) = std::mem::take(&mut rest).split_at_mut(padded(size));
        rest = behind;
        &mut part[..size]
    });
    f(parts);
    KEPT.set(Some(buffer));
}

/// The largest size that this thread asked for in vain since it was asked last; 0 if there was enough.
pub(super) fn missed() -> usize {
    MISSED.take()
}

/// f32 values in scratch bytes.
pub(super) fn as_f32(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: any bits are an f32.
    let (head, values, _) = unsafe { bytes.align_to_mut::<f32>() };
    assert!(head.is_empty(), "scratch is aligned");
    values
}

/// The bytes of f32 values.
pub(super) fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: any f32 is 4 initialised bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of f32 values, for writing.
pub(super) fn as_bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above; any bits are an f32.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

fn padded(size: usize) -> usize {
    size.next_multiple_of(AlignedBuffer::ALIGN)
}
