//! Which pixels the outputs of a convolution see, along one direction.

use std::ops::Range;

use crate::ops::{Conv2d, Padding};

/// Outputs and the input's pixels along one direction.
///
/// A kernel that doubles the picture has other weights for each place of an output in its pair: every `zoom`-th output
/// makes a run that has the same ones, and whose pixels lie `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    /// Runs of outputs.
    pub(super) zoom: usize,
    /// Pixels of the input from one output of a run to the next.
    pub(super) stride: usize,
    kernel: usize,
    /// Pixels of zeros in front of the input, and behind it.
    pub(super) before: usize,
    pub(super) behind: usize,
    /// Pixels of the doubled picture that those in front are more than the padding is.
    shift: usize,
}

impl Axis {
    /// Across the lines, from left to right.
    pub(super) fn across(args: &Conv2d<'_>) -> Self {
        let Padding { left, right, .. } = args.window.padding;
        Self::of(args, left, right)
    }

    /// From line to line.
    pub(super) fn down(args: &Conv2d<'_>) -> Self {
        let Padding { above, below, .. } = args.window.padding;
        Self::of(args, above, below)
    }

    fn of(args: &Conv2d<'_>, front: usize, end: usize) -> Self {
        let (zoom, stride) = (args.weight.zoom(), args.window.stride);
        let (before, behind) = (front.div_ceil(zoom), end.div_ceil(zoom));
        Self { zoom, stride, kernel: args.weight.kernel, before, behind, shift: before * zoom - front }
    }

    /// The pixel that a tap of an output sees, counted from the first of the zeros.
    pub(super) fn seen(&self, out: usize, tap: usize) -> usize {
        (out * self.stride + self.shift) / self.zoom + tap
    }

    /// The place of an output in its pair, which tells the weights of its run.
    pub(super) fn place(&self, out: usize) -> usize {
        (out * self.stride + self.shift) % self.zoom
    }

    /// All pixels that some outputs see, at least one.
    pub(super) fn reach(&self, outs: &Range<usize>) -> Range<usize> {
        self.seen(outs.start, 0)..self.seen(outs.end - 1, self.kernel - 1) + 1
    }

    /// Pixels that so many outputs see at most.
    pub(super) fn reach_len(&self, outs: usize) -> usize {
        (outs * self.stride).div_ceil(self.zoom) + self.kernel
    }

    /// Outputs of a run among so many.
    pub(super) fn run_len(&self, outs: usize, run: usize) -> usize {
        outs.saturating_sub(run).div_ceil(self.zoom)
    }
}
