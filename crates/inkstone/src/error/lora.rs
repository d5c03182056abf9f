//! The details of errors about LoRA files.

/// What PEFT and diffusers call the weights in a folder.
pub(crate) const FOLDER_FILES: [&str; 2] = ["adapter_model.safetensors", "pytorch_lora_weights.safetensors"];

/// Why a LoRA file is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoraProblem {
    /// A file of another format.
    #[error("it is no safetensors file")]
    NotSafetensors,
    /// A folder without weights under a name that writers of LoRAs use.
    #[error("it is a folder without {} or {}", FOLDER_FILES[0], FOLDER_FILES[1])]
    Folder,
    /// Nothing in it is named as in a LoRA.
    #[error("it is no LoRA: it holds {holds}")]
    NoLora {
        /// What it looks like.
        holds: &'static str,
    },
    /// An adapter of another kind.
    #[error("it is {kind}{}, which is not supported", for_family(*family))]
    OtherKind {
        /// The kind.
        kind: &'static str,
        /// The model that it looks made for.
        family: Option<&'static str>,
    },
    /// No layer of it is one of this model.
    #[error("0 of its {layers} layers match this model; it looks like a LoRA of {}", family.unwrap_or("another model"))]
    OtherModel {
        /// Layers of the file.
        layers: usize,
        /// The model that it looks made for.
        family: Option<&'static str>,
    },
    /// Some of it is not of this model, or not of a LoRA.
    #[error("{count} of its {total} names do not match{}: {}", for_family(*family), first.join(", "))]
    LeftOver {
        /// Names that are left over.
        count: usize,
        /// All names.
        total: usize,
        /// The first of those that are left over.
        first: Vec<String>,
        /// The model that it looks made for.
        family: Option<&'static str>,
    },
    /// It is larger than any LoRA.
    #[error("it has {bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// A layer lacks one of its matrices.
    #[error("{layer} has no {missing} matrix")]
    Half {
        /// The layer.
        layer: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A layer is there under two names.
    #[error("{layer} is there twice")]
    Twice {
        /// The layer.
        layer: String,
    },
    /// The two matrices of a layer have no rank in common, or one that is no rank.
    #[error(
        "{layer} has matrices of {down} and {up}; allowed is [rank, in] and [out, rank] with a rank of 1 to 3072"
    )]
    Shapes {
        /// The layer.
        layer: String,
        /// Of the first matrix.
        down: String,
        /// Of the second one.
        up: String,
    },
    /// A matrix of a Kronecker product is none.
    #[error(
        "{layer} has {matrix} of {have}; allowed is a matrix, or two of [out, rank] and [rank, in] with a rank of 1 to 3072"
    )]
    Kronecker {
        /// The layer.
        layer: String,
        /// What files call the matrix.
        matrix: &'static str,
        /// Shapes of its parts.
        have: String,
    },
    /// The matrices of an elementwise product do not fit each other.
    #[error(
        "{layer} has matrices of {have}; allowed is twice [out, rank] and [rank, in] of the same size, with ranks of 1 to 3072"
    )]
    Hadamard {
        /// The layer.
        layer: String,
        /// Shapes of its parts.
        have: String,
    },
    /// The difference of a weight or bias is of no shape that these have.
    #[error(
        "{layer} has a difference of {have}; allowed is a matrix for a weight, and a vector for a norm or a bias"
    )]
    Difference {
        /// The layer.
        layer: String,
        /// Its shape.
        have: String,
    },
    /// A Kronecker product whose first matrix is so large that what lies between both would take too much.
    #[error(
        "{layer} goes through {columns} columns around a weight of {weight:?}; a LoKr whose first matrix is the larger one is not supported"
    )]
    Wide {
        /// The layer.
        layer: String,
        /// Columns between both matrices.
        columns: usize,
        /// Outputs and inputs of the weight.
        weight: [usize; 2],
    },
    /// A layer has another size than the model's.
    #[error("{layer} is for a weight of {have:?}, this model's has {want:?}")]
    Misfit {
        /// The layer.
        layer: String,
        /// Outputs and inputs of the file's.
        have: [usize; 2],
        /// Outputs and inputs of the model's.
        want: [usize; 2],
    },
    /// An alpha that is no strength.
    #[error("alpha of {layer} is {got}; allowed is a number from -{limit} to {limit} but 0")]
    Alpha {
        /// The layer.
        layer: String,
        /// What the file says.
        got: String,
        /// The largest magnitude.
        limit: u32,
    },
    /// A tensor of a type that is not read.
    #[error(
        "{tensor} has the type {have}; allowed is f64, f32, bf16, f16 or an 8-bit float, and for an alpha one whole number"
    )]
    Type {
        /// The tensor.
        tensor: String,
        /// Its type.
        have: String,
    },
    /// A tensor with NaN or infinity.
    #[error("{tensor} has values that are not finite")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// The settings that its writer noted cannot be followed.
    #[error("its metadata cannot be followed: {reason}")]
    Metadata {
        /// Why.
        reason: String,
    },
}

impl LoraProblem {
    /// Names of those that are left over which a message spells out.
    const SHOWN: usize = 5;

    pub(crate) fn left_over(mut names: Vec<String>, total: usize, family: Option<&'static str>) -> Self {
        let count = names.len();
        names.truncate(Self::SHOWN);
        Self::LeftOver { count, total, first: names, family }
    }
}

fn for_family(family: Option<&'static str>) -> String {
    family.map_or_else(String::new, |family| format!(" (it looks made for {family})"))
}
