//! The layers of a file, and what each adds to its weight.

use std::collections::BTreeMap;

use inkstone_tensor::{DType, Tensor};

use super::adapter::Adapter;
use super::found::Found;
use super::keys::{self, Dialect, Part};
use super::numbers::Numbers;
use crate::error::LoraProblem;

/// The highest rank. Beyond it a LoRA is no shorter than the weight.
const MAX_RANK: usize = 3072;

/// A matrix in two parts: `[n_out, rank]` times `[rank, n_in]`.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(super) up: Tensor,
    pub(super) down: Tensor,
}

impl Product {
    pub(super) fn rank(&self) -> usize {
        self.up.cols()
    }

    pub(super) fn size(&self) -> [usize; 2] {
        [self.up.rows(), self.down.cols()]
    }

    pub(super) fn is_sound(&self) -> bool {
        is_matrix(&self.up) && is_matrix(&self.down) && {
            let rank = self.rank();
            rank == self.down.rows() && rank <= MAX_RANK
        }
    }

    pub(super) fn shapes(&self) -> String {
        format!("{} and {}", self.up.shape(), self.down.shape())
    }
}

/// A matrix as it is stored.
#[derive(Clone, Debug)]
pub(crate) enum Matrix {
    /// Itself.
    Whole(Tensor),
    /// In two parts.
    Product(Product),
}

impl Matrix {
    pub(super) fn size(&self) -> [usize; 2] {
        match self {
            Self::Whole(matrix) => [matrix.rows(), matrix.cols()],
            Self::Product(product) => product.size(),
        }
    }

    /// What its two parts have in common.
    pub(super) fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product(product) => Some(product.rank()),
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Whole(matrix) => is_matrix(matrix),
            Self::Product(product) => product.is_sound(),
        }
    }

    pub(super) fn shapes(&self) -> String {
        match self {
            Self::Whole(matrix) => matrix.shape().to_string(),
            Self::Product(product) => product.shapes(),
        }
    }
}

pub(super) fn is_matrix(tensor: &Tensor) -> bool {
    tensor.shape().dims().len() == 2 && tensor.shape().count() > 0
}

/// What is added to a weight, but for a factor.
#[derive(Clone, Debug)]
pub(crate) enum Delta {
    /// A LoRA's: a product.
    LowRank(Product),
    /// A LoKr's: the Kronecker product of two matrices.
    Kronecker(Matrix, Matrix),
    /// A LoHa's: the elementwise product of two products.
    Hadamard(Product, Product),
    /// A matrix, or a vector as one of one column.
    Whole(Tensor),
}

/// What a file adds to a layer's weight, or to a vector.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// As the file names it, without prefix; a vector ends in `.weight` or `.bias`.
    pub(super) name: String,
    pub(super) delta: Delta,
    /// The type that the file has its numbers in.
    pub(super) stored: DType,
    /// Where it counts.
    pub(super) alpha: Option<f32>,
    /// Alpha over the rank or its root; 1 where alpha does not count.
    pub(super) factor: f32,
}

impl Layer {
    /// Outputs and inputs of the weight that it is for.
    pub(super) fn size(&self) -> [usize; 2] {
        match &self.delta {
            Delta::LowRank(product) | Delta::Hadamard(product, _) => product.size(),
            Delta::Whole(difference) => [difference.rows(), difference.cols()],
            Delta::Kronecker(left, right) => {
                let ([high, wide], [outs, ins]) = (left.size(), right.size());
                [high.saturating_mul(outs), wide.saturating_mul(ins)]
            }
        }
    }

    /// The rank that alpha is divided by, if a matrix has one.
    pub(super) fn rank(&self) -> Option<usize> {
        match &self.delta {
            Delta::LowRank(product) => Some(product.rank()),
            Delta::Kronecker(left, right) => right.rank().or(left.rank()),
            // LyCORIS makes both alike, and reads this one.
            Delta::Hadamard(first, _) => Some(first.rank()),
            Delta::Whole(_) => None,
        }
    }
}

/// The layers of a file, by [`keys::flat`] name.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) by_name: BTreeMap<String, Layer>,
    pub(super) dialect: Dialect,
    pub(super) has_alphas: bool,
}

impl Layers {
    /// Sorts and checks the tensors of a file.
    pub(super) fn of(tensors: Numbers, adapter: &Adapter) -> Result<Self, LoraProblem> {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let mut dialect = Dialect::Plain;
        for (name, (tensor, stored)) in tensors {
            let Some(key) = keys::parse(&name) else { continue };
            if key.part != Part::Alpha && !tensor.is_finite() {
                return Err(LoraProblem::NotFinite { tensor: name });
            }
            dialect = key.dialect;
            let layer = match key.part {
                Part::BiasDifference => format!("{}.bias", key.layer),
                Part::Difference if tensor.shape().dims().len() == 1 => format!("{}.weight", key.layer),
                _ => key.layer.to_owned(),
            };
            let parts = &mut found.entry(keys::flat(&layer)).or_insert_with(|| Found::of(&layer)).parts;
            if parts.insert(key.part, (tensor, stored)).is_some() {
                return Err(LoraProblem::Twice { layer });
            }
        }
        let has_alphas =
            adapter.has_alphas() || found.values().any(|layer| layer.parts.contains_key(&Part::Alpha));
        let layer = |(flat, found): (String, Found)| Ok((flat, found.layer(adapter)?));
        let by_name = found.into_iter().map(layer).collect::<Result<_, _>>()?;
        Ok(Self { by_name, dialect, has_alphas })
    }
}
