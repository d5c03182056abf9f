//! Shapes of up to [`Shape::MAX_RANK`] dimensions.

use std::fmt;

/// The sizes of a tensor's dimensions, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    dims: [usize; Self::MAX_RANK],
}

impl Shape {
    /// Most dimensions a tensor has: 3-D convolution kernels in files have 5.
    pub const MAX_RANK: usize = 5;

    /// A shape from its dimensions; `None` if there are more than [`Self::MAX_RANK`] or their product overflows.
    #[must_use]
    pub fn new(dims: &[usize]) -> Option<Self> {
        if dims.len() > Self::MAX_RANK {
            return None;
        }
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let mut own = [1; Self::MAX_RANK];
        own[..dims.len()].copy_from_slice(dims);
        Some(Self { rank: u8::try_from(dims.len()).ok()?, dims: own })
    }

    /// A matrix.
    #[must_use]
    pub const fn matrix(rows: usize, cols: usize) -> Self {
        Self { rank: 2, dims: [rows, cols, 1, 1, 1] }
    }

    /// A vector.
    #[must_use]
    pub const fn vector(len: usize) -> Self {
        Self { rank: 1, dims: [len, 1, 1, 1, 1] }
    }

    /// A batch of pictures, channels innermost.
    #[must_use]
    pub const fn nhwc(n: usize, h: usize, w: usize, c: usize) -> Self {
        Self { rank: 4, dims: [n, h, w, c, 1] }
    }

    /// The dimensions.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of elements; 1 for a scalar.
    #[must_use]
    pub fn count(&self) -> usize {
        self.dims().iter().product()
    }

    /// The innermost dimension: elements that lie side by side. 1 for a scalar.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all dimensions but the innermost.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.dims().split_last().map_or(1, |(_, outer)| outer.iter().product())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.dims().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
