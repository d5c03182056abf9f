//! Weights of 8 bits for products of bytes (W8A8).

use crate::quant::ConvRot;
use crate::{DType, Error, Result, Tensor};

/// A matrix `[n_out, n_in]` of bytes with a factor for each row.
///
/// Row `i` stands for `scales[i] * (values[i] - 128)`, rotated: each `group` inputs that follow each other were
/// multiplied by the orthogonal Hadamard matrix of that size. Activations are rotated the same way before they are
/// rounded, which leaves the product as it is and spreads an outlier over its whole group. A matrix of [`ConvRot`] has a
/// rotation of its own, signed bytes and perhaps one factor for all rows.
#[derive(Clone, Debug)]
pub struct Int8Weight {
    values: Tensor,
    scales: Tensor,
    rotation: GroupRotation,
}

/// How inputs that follow each other are rotated, and how many of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupRotation {
    /// By sums and differences of pairs. 1 is none.
    Pairs(usize),
    /// By [`ConvRot`]'s matrices: four at a time.
    Fours(usize),
}

impl GroupRotation {
    pub(crate) fn group(self) -> usize {
        match self {
            Self::Pairs(group) | Self::Fours(group) => group,
        }
    }
}

impl From<&ConvRot> for Int8Weight {
    /// The same matrix over the same bytes, to be multiplied by activations that are rounded too.
    fn from(matrix: &ConvRot) -> Self {
        let [values, scales] = matrix.tensors().map(Clone::clone);
        let rotation =
            if matrix.group() == 1 { GroupRotation::Pairs(1) } else { GroupRotation::Fours(matrix.group()) };
        Self { values, scales, rotation }
    }
}

impl Int8Weight {
    /// What stands for 0.
    pub const ZERO: u8 = 128;
    /// The largest distance from it: 0 lies in the middle.
    pub const LARGEST: u8 = 127;
    /// The largest group. More would spread outliers farther, for another pass over the registers each time.
    pub const MAX_GROUP: usize = 128;

    /// Products of bytes that are added up at most before they become f32: with them, 127 times 255 each, a sum of 32
    /// bits cannot overflow.
    pub const MAX_PRODUCTS: usize = 1 << 16;

    /// A weight of these parts, which may lie in a mapped file.
    ///
    /// # Shapes
    /// `values` u8 `[n_out, n_in]`, `scales` f32 `[n_out]`.
    ///
    /// # Errors
    /// Other types or shapes, a group that [`Int8Weight::check_group`] refuses.
    pub fn new(values: Tensor, scales: Tensor, group: usize) -> Result<Self> {
        const OP: &str = "int8 weight";
        if values.dtype() != DType::U8 {
            return Err(Error::DType { op: OP, what: "values", expected: "u8", got: values.dtype() });
        }
        if scales.dtype() != DType::F32 {
            return Err(Error::DType { op: OP, what: "scales", expected: "f32", got: scales.dtype() });
        }
        if scales.rows() != 1 || scales.cols() != values.rows() {
            let expected = format!("[{}]", values.rows());
            return Err(Error::Shape { op: OP, what: "scales", expected, got: *scales.shape() });
        }
        Self::check_group(OP, values.cols(), group)?;
        Ok(Self { values, scales, rotation: GroupRotation::Pairs(group) })
    }

    /// # Errors
    /// [`Error::Range`] for a group that is no power of two, too large, or no divisor of `n_in`. 1 is no rotation.
    pub fn check_group(op: &'static str, n_in: usize, group: usize) -> Result<()> {
        if group.is_power_of_two() && group <= Self::group_of(n_in) {
            return Ok(());
        }
        let allowed = format!("a power of two from 1 to {}", Self::group_of(n_in));
        Err(Error::Range { op, what: "group", allowed, got: group.to_string() })
    }

    /// The best group for rows of `n_in`: the largest power of two that divides it, [`Int8Weight::MAX_GROUP`] at most.
    #[must_use]
    pub const fn group_of(n_in: usize) -> usize {
        1 << (n_in | Self::MAX_GROUP).trailing_zeros()
    }

    /// The same weight over other tensors of the same types and shapes.
    pub(crate) fn with_tensors(&self, change: &mut dyn FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let (values, scales) = (change(&self.values)?, change(&self.scales)?);
        match self.rotation {
            GroupRotation::Pairs(group) if values.dtype() == DType::U8 => Self::new(values, scales, group),
            rotation => Ok(Self::from(&ConvRot::new(values, scales, rotation.group())?)),
        }
    }

    /// The bytes, `[n_out, n_in]` in u8, of [`ConvRot`]'s in i8.
    #[must_use]
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The factors, f32 `[n_out]`, or one for all rows of [`ConvRot`]'s.
    #[must_use]
    pub fn scales(&self) -> &Tensor {
        &self.scales
    }

    /// How many inputs are rotated together.
    #[must_use]
    pub fn group(&self) -> usize {
        self.rotation.group()
    }

    pub(crate) fn rotation(&self) -> GroupRotation {
        self.rotation
    }
}
