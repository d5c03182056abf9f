//! A picture's lines as bytes, zero-padded, each with a scale of its own.
//!
//! All pixels of a line share the scale, so the taps of a kernel's line have one sum whatever pixels they fall on. It is
//! the line's own, so strips of a picture have the same ones as the whole.

use std::ops::Range;

use super::super::int8::whole;
use super::super::pixels::{PixelLine, RoundedPixels};
use super::super::rotate::{inverse_step, step, unit};
use super::super::rows::Matrix;
use super::super::threads::Chunks;
use super::super::tile::int8::RowScale;
use super::super::{Cpu, scratch};
use super::{Axis, Picture};
use crate::ops::Conv2d;
use crate::{AlignedBuffer, Int8Weight, Result};

/// Lines are this much farther apart than they are long, so that they do not fall into the same L1 sets.
const PADDING_BYTES: usize = 64;
/// Elements that a thread normalizes, rotates and rounds in a nanosecond, on the slow side.
const PER_NS: usize = 1;
const SCALE_BYTES: usize = size_of::<RowScale>();

/// Sizes of a picture's lines as bytes.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Lines of an image, those above among them.
    pub(super) high: usize,
    /// Pixels of a line, its padding among them.
    wide: usize,
    channels: usize,
    pub(super) pixel_bytes: usize,
    line_bytes: usize,
    /// Outputs that a line of the output has.
    w_out: usize,
    across: Axis,
}

impl Layout {
    pub(super) fn of(args: &Conv2d<'_>, [h, w]: [usize; 2], w_out: usize) -> Self {
        let across = Axis::across(args);
        let (wide, channels) = (across.before + w + across.behind, args.x.cols());
        let pixel_bytes = channels.next_multiple_of(4);
        let line_bytes = (wide * pixel_bytes).next_multiple_of(PADDING_BYTES) + PADDING_BYTES;
        Self { high: args.window.lines_above() + h, wide, channels, pixel_bytes, line_bytes, w_out, across }
    }

    /// Bytes of so many images.
    pub(super) fn bytes(&self, images: usize) -> usize {
        images * self.high * (self.line_bytes + self.w_out * SCALE_BYTES)
    }

    /// A pixel behind its norm, the line rotated, and the sums of its pixels.
    fn scratch(&self) -> [usize; 3] {
        let (line, pixel) = (self.wide * self.channels, self.channels);
        [4 * pixel, 4 * line, 4 * self.wide]
    }

    pub(super) fn scratch_bytes(&self) -> usize {
        self.scratch().iter().sum()
    }
}

/// All lines of some images, one behind the other; behind them the scales of what a kernel's line sees of them.
pub(super) struct Lines {
    buffer: AlignedBuffer,
    layout: Layout,
    /// Bytes before the scales.
    values_bytes: usize,
}

impl Lines {
    /// Normalizes, rotates and rounds the lines of a picture.
    pub(super) fn of(
        cpu: &Cpu,
        picture: &Picture<'_>,
        args: &Conv2d<'_>,
        group: usize,
        w_out: usize,
    ) -> Result<Self> {
        let layout = Layout::of(args, [picture.h, picture.w], w_out);
        let lines = picture.images * layout.high;
        let values_bytes = lines * layout.line_bytes;
        let mut buffer = cpu.packing_buffer(layout.bytes(picture.images))?;
        let (values, scales) = buffer.as_mut_slice().split_at_mut(values_bytes);
        let values = Chunks::new(values, layout.line_bytes);
        let scales = Chunks::new(scales, w_out * SCALE_BYTES);
        let norm = args.norm.map(|norm| (Matrix::of(norm.gamma).row(0), norm.activation));
        cpu.threads.rows(lines, picture.w * layout.channels / PER_NS, |i| {
            let Some((pixels, first)) = picture.line(i / layout.high, i % layout.high) else { return };
            let line = PixelLine { pixels: *pixels, first, norm, group };
            // SAFETY: each line is one job's.
            let (to, scales) = unsafe { (values.take(i), scales.take(i)) };
            round_line(cpu, &layout, args, &line, to, scales);
        })?;
        Ok(Self { buffer, layout, values_bytes })
    }

    /// The number of line `y` of an image; `None` outside of it.
    pub(super) fn number(&self, image: usize, y: usize) -> Option<usize> {
        (y < self.layout.high).then_some(image * self.layout.high + y)
    }

    pub(super) fn pixel_bytes(&self) -> usize {
        self.layout.pixel_bytes
    }

    /// The bytes of a line.
    pub(super) fn bytes(&self, line: usize) -> &[u8] {
        &self.buffer.as_slice()[line * self.layout.line_bytes..][..self.layout.line_bytes]
    }

    /// What belongs to outputs that see a line: those of a run that are among `outs`, which begin with a first run's.
    pub(super) fn scales(&self, line: usize, outs: &Range<usize>, run: usize) -> &[RowScale] {
        // SAFETY: any bits are a `RowScale`.
        let (head, scales, _) = unsafe { self.buffer.as_slice()[self.values_bytes..].align_to::<RowScale>() };
        assert!(head.is_empty(), "lines are multiples of 64 bytes");
        let Layout { w_out, across, .. } = self.layout;
        let first = run * w_out.div_ceil(across.zoom) + outs.start / across.zoom;
        &scales[line * w_out + first..][..across.run_len(outs.len(), run)]
    }
}

fn round_line(
    cpu: &Cpu,
    layout: &Layout,
    args: &Conv2d<'_>,
    line: &PixelLine<'_>,
    to: &mut [u8],
    scales: &mut [u8],
) {
    let Layout { wide, channels, pixel_bytes, w_out, across, .. } = *layout;
    let kernels = &cpu.table.rows;
    scratch::with(layout.scratch(), |[pixel, rotated, sums]| {
        let inside = across.before..wide - across.behind;
        let rotated = &mut scratch::as_f32(rotated)[..inside.len() * channels];
        let sums = scratch::as_f32(sums);
        sums.fill(0.0);
        to[..inside.start * pixel_bytes].fill(0);
        to[inside.end * pixel_bytes..].fill(0);
        let bytes = &mut to[inside.start * pixel_bytes..inside.end * pixel_bytes];
        // SAFETY: `rotated` has room for the line's pixels, which are in the picture; `bytes` and the sums as well.
        let peak = unsafe {
            let peak = (kernels.rotate_pixels)(line, scratch::as_f32(pixel), rotated);
            let to = RoundedPixels { bytes, pixel_bytes, channels, sums: &mut sums[inside] };
            (kernels.round_pixels)(rotated, inverse_step(peak), to);
            peak
        };
        let scale = step(peak) * unit(line.group);
        // One run of outputs behind the other.
        let outs = (0..across.zoom).flat_map(|run| (run..w_out).step_by(across.zoom));
        for (out, to) in outs.zip(scales.chunks_exact_mut(SCALE_BYTES)) {
            let taps = 0..args.weight.kernel;
            let seen = taps.map(|tap| whole(sums[across.seen(out, tap)])).sum::<i32>();
            let start = -i32::from(Int8Weight::ZERO) * seen;
            // SAFETY: chunks have the size of a `RowScale`, which may hold any bits.
            unsafe { to.as_mut_ptr().cast::<RowScale>().write_unaligned(RowScale { scale, start }) }
        }
    });
}
