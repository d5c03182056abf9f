//! Which pixels a convolution's outputs see, output by output and tap by tap.

use inkstone_tensor::Shape;
use inkstone_tensor::ops::{ConvWeight, Padding, Window};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// `[n, h, w, c_in]`
    pub(crate) x: [usize; 4],
    pub(crate) c_out: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

/// What an output sees, by way of one weight a channel.
pub(crate) struct Seen {
    /// Counted over all pictures.
    pub(crate) pixel: usize,
    /// The weight's row, and its first column.
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl Sizes {
    pub(crate) const fn new(x: [usize; 4], c_out: usize, kernel: usize, padding: Padding) -> Self {
        Self { x, c_out, kernel, stride: 1, padding }
    }

    pub(crate) const fn halving(self) -> Self {
        Self { stride: 2, ..self }
    }

    /// Of a picture with every pixel twice in both directions.
    pub(crate) const fn doubling(x: [usize; 4], c_out: usize, padding: Padding) -> Self {
        Self::new(x, c_out, ConvWeight::DOUBLING, padding)
    }

    /// How often a pixel is seen, and the side of the kernel that sees it so often.
    const fn seen_by(&self) -> [usize; 2] {
        if self.kernel == ConvWeight::DOUBLING { [2, 3] } else { [1, self.kernel] }
    }

    pub(crate) fn window(&self) -> Window<'static> {
        Window { above: None, stride: self.stride, padding: self.padding }
    }

    pub(crate) fn picture(&self) -> Shape {
        let [n, h, w, c] = self.x;
        Shape::nhwc(n, h, w, c)
    }

    /// Rows and columns of the weight.
    pub(crate) fn weight(&self) -> [usize; 2] {
        let [zoom, _] = self.seen_by();
        [zoom * zoom * self.c_out, self.kernel * self.kernel * self.x[3]]
    }

    pub(crate) fn out(&self) -> Shape {
        let (Padding { above, below, left, right }, [zoom, side]) = (self.padding, self.seen_by());
        let outs = |pixels: usize, padding| (pixels * zoom + padding - side) / self.stride + 1;
        Shape::nhwc(self.x[0], outs(self.x[1], above + below), outs(self.x[2], left + right), self.c_out)
    }

    /// For each element of the output the sums of what `term` gives for all that it sees.
    pub(crate) fn sums<const N: usize>(&self, term: impl Fn(Seen) -> [f64; N]) -> [Vec<f64>; N] {
        let ([n, h, w, c_in], Self { c_out, kernel, .. }) = (self.x, *self);
        let shape = self.out();
        let &[_, h_out, w_out, _] = shape.dims() else { unreachable!("it is a picture") };
        let mut all = [const { Vec::new() }; N];
        for e in 0..n * h_out * w_out * c_out {
            let (i, y, x, c) =
                (e / c_out / w_out / h_out, e / c_out / w_out % h_out, e / c_out % w_out, e % c_out);
            let (lines, columns) = (self.pixels(y, self.padding.above), self.pixels(x, self.padding.left));
            let mut sums = [0.0; N];
            for tap in 0..kernel * kernel {
                let ((y, below), (x, right)) = (lines[tap / kernel], columns[tap % kernel]);
                let Some((y, x)) = y.zip(x).filter(|(y, x)| *y < h && *x < w) else { continue };
                let row = (2 * below + right) * c_out + c;
                let terms = term(Seen { pixel: (i * h + y) * w + x, row, col: tap * c_in });
                sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
            }
            all.iter_mut().zip(sums).for_each(|(all, sum)| all.push(sum));
        }
        all
    }

    /// The pixels along a direction that an output sees, `None` in front of the first one, each once; beside each whether it
    /// is the second output that sees the same pixels.
    fn pixels(&self, out: usize, padding: usize) -> Vec<(Option<usize>, usize)> {
        let [zoom, side] = self.seen_by();
        // As large as any padding, and a whole number of pixels.
        let far = zoom * 16;
        let mut seen: Vec<usize> =
            (0..side).map(|tap| (far + out * self.stride + tap - padding) / zoom).collect();
        let second = usize::from(zoom == 2 && seen[0] != seen[1]);
        seen.dedup();
        seen.into_iter().map(|pixel| (pixel.checked_sub(16), second)).collect()
    }
}
