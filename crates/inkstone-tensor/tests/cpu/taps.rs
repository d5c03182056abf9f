//! Which pixels a convolution's outputs see, output by output and tap by tap.

use inkstone_tensor::Shape;
use inkstone_tensor::ops::{Padding, Window};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// `[n, h, w, c_in]`
    pub(crate) x: [usize; 4],
    pub(crate) c_out: usize,
    pub(crate) kernel: usize,
    pub(crate) zoom: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
}

impl Sizes {
    pub(crate) const fn new(x: [usize; 4], c_out: usize, kernel: usize, padding: Padding) -> Self {
        Self { x, c_out, kernel, zoom: 1, stride: 1, padding }
    }

    /// Of a picture with every pixel twice in both directions.
    pub(crate) const fn doubling(self) -> Self {
        Self { zoom: 2, ..self }
    }

    pub(crate) const fn halving(self) -> Self {
        Self { stride: 2, ..self }
    }

    pub(crate) fn window(&self) -> Window<'static> {
        Window { above: None, zoom: self.zoom, stride: self.stride, padding: self.padding }
    }

    pub(crate) fn picture(&self) -> Shape {
        let [n, h, w, c] = self.x;
        Shape::nhwc(n, h, w, c)
    }

    /// Products in a sum.
    pub(crate) fn k(&self) -> usize {
        self.kernel * self.kernel * self.x[3]
    }

    pub(crate) fn out(&self) -> Shape {
        let Padding { above, below, left, right } = self.padding;
        let side = |pixels: usize, padding| (pixels * self.zoom + padding - self.kernel) / self.stride + 1;
        Shape::nhwc(self.x[0], side(self.x[1], above + below), side(self.x[2], left + right), self.c_out)
    }

    /// For each element of the output the sums of what `term` gives: for a pixel (counted over all pictures), a tap, and
    /// a channel of the output.
    pub(crate) fn sums<const N: usize>(
        &self,
        term: impl Fn(usize, usize, usize) -> [f64; N],
    ) -> [Vec<f64>; N] {
        let ([n, h, w, _], Self { c_out, kernel, zoom, stride, padding, .. }) = (self.x, *self);
        let shape = self.out();
        let &[_, h_out, w_out, _] = shape.dims() else { unreachable!("it is a picture") };
        let mut all = [const { Vec::new() }; N];
        for e in 0..n * h_out * w_out * c_out {
            let (i, y, x, c) =
                (e / c_out / w_out / h_out, e / c_out / w_out % h_out, e / c_out % w_out, e % c_out);
            let mut sums = [0.0; N];
            for tap in 0..kernel * kernel {
                let at = (y * stride + tap / kernel).checked_sub(padding.above);
                let at = at.zip((x * stride + tap % kernel).checked_sub(padding.left));
                let Some((y, x)) = at.map(|(y, x)| (y / zoom, x / zoom)) else { continue };
                if y < h && x < w {
                    let terms = term((i * h + y) * w + x, tap, c);
                    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
                }
            }
            all.iter_mut().zip(sums).for_each(|(all, sum)| all.push(sum));
        }
        all
    }
}
