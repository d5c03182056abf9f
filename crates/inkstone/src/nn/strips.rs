//! Pictures that pass through layers in strips of lines, top to bottom, with the same bytes as in one piece.
//!
//! A 3x3 convolution needs one line above and one below. So it answers a strip one line late, and keeps the last lines
//! that it saw until the next strip comes: nothing is computed twice, and each output pixel is the same sum as in the
//! whole picture. What adds a convolution to a residual keeps the residual's lines as long. Layers that look at a
//! pixel alone keep nothing. A whole picture is a single strip, the first and the last one.

use std::fmt;
use std::ops::Range;

use inkstone_tensor::ops::{self, Padding, Window};
use inkstone_tensor::{Shape, Tensor};

use crate::Result;
use crate::progress::Context;
use crate::weights::ConvShape;

/// How a picture passes through layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strips {
    /// In one piece.
    #[default]
    Whole,
    /// In strips of so many lines, at least one; the last strip has what is left.
    Lines(usize),
}

impl Strips {
    /// Strips of a picture that has so many lines for each line of this one.
    #[must_use]
    pub fn times(self, factor: usize) -> Self {
        match self {
            Self::Whole => Self::Whole,
            Self::Lines(lines) => Self::Lines(lines.saturating_mul(factor)),
        }
    }

    /// Takes pictures through layers and puts the results together.
    ///
    /// `layers` gets each strip in order; the walk is for the convolutions among the layers, which must come in the
    /// same order for each strip.
    ///
    /// # Shapes
    /// `x [n, h, w, c]`.
    ///
    /// # Errors
    /// What the layers give, no memory.
    pub fn pass(
        self,
        x: Tensor,
        mut layers: impl FnMut(Tensor, &mut StripWalk) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let [n, h, ..] = size(&x);
        match self {
            Self::Lines(lines) if lines < h && n == 1 => in_strips(&x, lines.max(1), &mut layers),
            Self::Lines(lines) if lines < h => {
                let pictures: Vec<Tensor> = (0..n)
                    .map(|i| in_strips(&part(&x, i, 0..h)?, lines.max(1), &mut layers))
                    .collect::<Result<_>>()?;
                join(&pictures.iter().collect::<Vec<_>>(), n)
            }
            _ => layers(x, &mut StripWalk::whole()),
        }
    }
}

fn in_strips(
    picture: &Tensor,
    lines: usize,
    layers: &mut impl FnMut(Tensor, &mut StripWalk) -> Result<Tensor>,
) -> Result<Tensor> {
    let [_, h, ..] = size(picture);
    let mut walk = StripWalk { is_late: true, ..StripWalk::whole() };
    let mut done = Vec::with_capacity(h.div_ceil(lines));
    for first in (0..h).step_by(lines) {
        let strip = first..h.min(first + lines);
        walk.next = 0;
        walk.is_last = strip.end == h;
        // Layers answer the first strips with fewer lines, the last one with more.
        let was_late = std::mem::replace(&mut walk.is_late, false);
        walk.sizes = if was_late || walk.is_last { Sizes::New } else { Sizes::Again };
        done.push(layers(part(picture, 0, strip)?, &mut walk)?);
    }
    picture.device().trim();
    join(&done.iter().collect::<Vec<_>>(), 1)
}

/// One way of a picture through layers: what its convolutions keep from one strip to the next.
pub struct StripWalk {
    layers: Vec<Kept>,
    /// The layer whose turn it is.
    next: usize,
    is_last: bool,
    /// Whether a layer had fewer lines to answer in this strip than it will have in the next one.
    is_late: bool,
    sizes: Sizes,
}

/// What is known of the sizes of a strip's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sizes {
    /// The picture is in one piece.
    Whole,
    /// Each layer's are its own: memory that comes free fits no later layer.
    New,
    /// They are those of the strip before.
    Again,
}

/// What a convolution keeps.
#[derive(Default)]
struct Kept {
    /// Whether it has answered a line, so that what pads the picture above is behind it.
    has_begun: bool,
    /// Lines of the input that the next output sees.
    seen: Option<Tensor>,
    /// Lines of the residual that are not answered yet.
    residual: Option<Tensor>,
}

/// A convolution's turn: what it sees of the strip.
pub(super) struct Turn<'w> {
    kept: &'w mut Kept,
    above: Option<Tensor>,
    stride: usize,
    padding: Padding,
    /// Lines of the output.
    pub(super) lines: usize,
}

impl StripWalk {
    /// The way of a picture in one piece.
    #[must_use]
    pub fn whole() -> Self {
        Self { layers: Vec::new(), next: 0, is_last: true, is_late: false, sizes: Sizes::Whole }
    }

    /// Shows a tensor to the tap if it is of a whole picture.
    pub fn tap(&self, ctx: &Context<'_>, name: fmt::Arguments<'_>, x: &Tensor) {
        if self.sizes == Sizes::Whole {
            ctx.tap(name, x);
        }
    }

    /// Gives memory back where the sizes of results change: what has come free fits none of those that follow. `x` is
    /// any tensor of the device.
    pub fn change_size(&self, x: &Tensor) {
        if self.sizes != Sizes::Again {
            x.device().trim();
        }
    }

    /// The next convolution's turn with a strip: `window` is what it would see of the whole picture.
    pub(super) fn turn(&mut self, x: &Tensor, shape: ConvShape, window: &Window<'_>) -> Result<Turn<'_>> {
        if self.sizes == Sizes::New {
            x.device().trim();
        }
        if self.next == self.layers.len() {
            self.layers.push(Kept::default());
        }
        let kept = &mut self.layers[self.next];
        self.next += 1;
        let above = kept.seen.take();
        let padding = Padding {
            above: if kept.has_begun { 0 } else { window.padding.above },
            below: if self.is_last { window.padding.below } else { 0 },
            ..window.padding
        };
        let (zoom, stride) = (shape.zoom(), window.stride);
        let old = above.as_ref().map_or(0, |above| size(above)[1]);
        let high = (old + size(x)[1]) * zoom + padding.above + padding.below;
        let lines = high.checked_sub(shape.side()).map_or(0, |room| room / stride + 1);
        if !self.is_last {
            self.is_late |= !kept.has_begun;
            kept.has_begun |= lines > 0;
            // A doubled picture's lines come in pairs, and with padding of one so do those that are behind the outputs.
            let first = (lines * stride).saturating_sub(padding.above) / zoom;
            kept.seen = Some(lines_of(above.as_ref(), x, first..old + size(x)[1])?);
        }
        Ok(Turn { kept, above, stride, padding, lines })
    }
}

impl Turn<'_> {
    pub(super) fn window(&self) -> Window<'_> {
        Window { above: self.above.as_ref(), stride: self.stride, padding: self.padding }
    }

    /// The lines of a residual that belong to this turn's output; the others are kept.
    pub(super) fn residual(&mut self, new: Tensor) -> Result<Tensor> {
        let old = self.kept.residual.take();
        if old.is_none() && size(&new)[1] == self.lines {
            return Ok(new);
        }
        let all = old.as_ref().map_or(0, |old| size(old)[1]) + size(&new)[1];
        let now = lines_of(old.as_ref(), &new, 0..self.lines.min(all))?;
        self.kept.residual = Some(lines_of(old.as_ref(), &new, self.lines.min(all)..all)?);
        Ok(now)
    }
}

/// `[n, h, w, c]`.
pub(super) fn size(x: &Tensor) -> [usize; 4] {
    x.shape().dims().try_into().unwrap_or([x.rows(), 1, 1, x.cols()])
}

/// A view of some lines of a picture.
fn part(x: &Tensor, picture: usize, lines: Range<usize>) -> Result<Tensor> {
    let [_, h, w, c] = size(x);
    let rows = (picture * h + lines.start) * w..(picture * h + lines.end) * w;
    Ok(x.rows_range(rows)?.reshape(Shape::nhwc(1, lines.len(), w, c))?)
}

/// A copy of some lines of two strips of a picture, one above the other.
fn lines_of(above: Option<&Tensor>, below: &Tensor, lines: Range<usize>) -> Result<Tensor> {
    let old = above.map_or(0, |above| size(above)[1]);
    let mut parts = Vec::with_capacity(2);
    if let Some(above) = above {
        parts.push(part(above, 0, lines.start.min(old)..lines.end.min(old))?);
    }
    parts.push(part(below, 0, lines.start.saturating_sub(old)..lines.end.saturating_sub(old))?);
    join(&parts.iter().collect::<Vec<_>>(), 1)
}

/// Strips of the same width, one below the other, as `n` pictures.
fn join(strips: &[&Tensor], n: usize) -> Result<Tensor> {
    let lines: usize = strips.iter().map(|strip| size(strip)[0] * size(strip)[1]).sum();
    let [_, _, w, c] = strips.first().map_or([0; 4], |strip| size(strip));
    Ok(ops::concat_rows(strips)?.reshape(Shape::nhwc(n, lines / n.max(1), w, c))?)
}
