//! What a drawing will take, and whether it fits.

use std::fmt;

use inkstone_tensor::{Footprint, Products, arenas_bytes};

use super::{Limit, LimitOf, Limits, Usage};
use crate::progress::Stage;

/// What leaves memory while a picture is drawn. The bytes of the picture are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offload {
    /// The first of the others that fits.
    #[default]
    Auto,
    /// Nothing: all weights stay once they were used.
    None,
    /// The text encoder, once the prompts are encoded.
    Encoder,
    /// Also every block of the transformer and of the text encoder, once it was passed; the next is read meanwhile.
    Stream,
}

impl Offload {
    /// All but [`Offload::Auto`], in the order in which they are tried.
    pub const SETTINGS: [Self; 3] = [Self::None, Self::Encoder, Self::Stream];

    /// As the command line calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Encoder => "encoder",
            Self::Stream => "stream",
        }
    }
}

/// The most that a stage takes, the program itself not counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageMemory {
    /// The stage.
    pub stage: Stage,
    /// When most is resident.
    pub peak: Footprint,
    /// The most that is in no file.
    pub anonymous_bytes: usize,
    /// Multiply-adds: of one step, of one picture, or of all prompts.
    pub products: Products,
}

/// What a drawing will take, known before a weight is touched.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPlan {
    /// What leaves memory.
    pub offload: Offload,
    /// Pictures drawn together.
    pub pictures: usize,
    /// Whether prompts and negative prompts pass the transformer one after the other, in half the memory.
    pub two_passes: bool,
    /// The stages in order.
    pub stages: Vec<StageMemory>,
    /// What the program takes without drawing.
    pub base: Usage,
    /// Bytes of all mapped files, touched or not.
    pub files_bytes: u64,
    /// The most that was resident before the first drawing, as while a picture to start from was decoded.
    pub before_bytes: u64,
}

/// Code that is read in, thread stacks, small allocations: what no shape tells.
const UNSEEN_BYTES: u64 = 6 << 20;
/// Reserve for what the allocator rounds up and the system maps in larger pieces than asked, in parts of the whole.
const RESERVE: u64 = 25;
/// What looking at weights takes beside them: their names, and buffers to read with. Less than any drawing.
const OPENING_BYTES: u64 = 12 << 20;

/// Address space that a process needs at least to map weights: `base` is what it has before, and the allocator may reserve more.
pub(crate) fn opening_space_bytes(base: u64, weight_bytes: u64) -> u64 {
    base + weight_bytes + arenas_bytes() + OPENING_BYTES
}

/// Address space of threads that begin while it is drawn: stacks of 2 MiB, of which little is used.
const STACKS_BYTES: u64 = 2 * (2 << 20);

impl MemoryPlan {
    /// The most that will be resident, pages of mapped files included.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let most = self.stages.iter().map(|stage| stage.peak.total_bytes() as u64).max();
        with_reserve(self.base.resident_bytes, most.unwrap_or(0))
    }

    /// The same over the whole life of the process: what comes before a drawing may take more than it. That is over when
    /// limits are compared with what the drawing takes.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.resident_bytes().max(self.before_bytes + self.before_bytes / RESERVE)
    }

    /// The most that will be in no file, and so cannot be given up.
    #[must_use]
    pub fn anonymous_bytes(&self) -> u64 {
        let most = self.stages.iter().map(|stage| stage.anonymous_bytes as u64).max();
        with_reserve(self.base.anonymous_bytes, most.unwrap_or(0))
    }

    /// Address space: mapped files count in full, and what the allocator may reserve.
    #[must_use]
    pub fn address_space_bytes(&self) -> u64 {
        let anonymous = self.anonymous_bytes() - self.base.anonymous_bytes;
        self.base.address_space_bytes + self.files_bytes + anonymous + STACKS_BYTES + arenas_bytes()
    }

    /// Private memory that can be written.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.base.data_bytes + self.anonymous_bytes() - self.base.anonymous_bytes
    }

    /// The limit that the drawing breaks, if it breaks one.
    #[must_use]
    pub fn shortage(&self, limits: &Limits) -> Option<Shortage> {
        limits.broken_by([self.resident_bytes(), self.address_space_bytes(), self.data_bytes()])
    }
}

/// What a process takes in all: `bytes` more than `base`, and what no shape tells.
pub(crate) fn with_reserve(base: u64, bytes: u64) -> u64 {
    base + bytes + bytes / RESERVE + UNSEEN_BYTES
}

/// How fast weights come from the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskSpeed {
    /// Bytes a second, read in order.
    pub bytes_a_second: f64,
}

impl DiskSpeed {
    /// Seconds that reading takes.
    #[must_use]
    pub fn seconds(self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_a_second
    }

    /// Seconds of a step that computes so long and reads so much meanwhile: a layer is read while the one before it
    /// computes, so that the slower of the two counts.
    #[must_use]
    pub fn step_seconds(self, compute_s: f64, reread_bytes: u64) -> f64 {
        compute_s.max(self.seconds(reread_bytes))
    }
}

/// A drawing does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What it needs of what is limited.
    pub needed_bytes: u64,
    /// The limit.
    pub limit: Limit,
    /// Whether it needs more than that: how much is not known where there is no room to look.
    pub is_least: bool,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed_bytes, limit, is_least } = self;
        let least = if *is_least { "at least " } else { "" };
        write!(f, "needs {least}{}, {limit}", gibibytes(*needed_bytes))
    }
}

impl Shortage {
    /// The flag or command that raises the limit, so that it allows so many bytes; `None` for a limit that neither sets.
    #[must_use]
    pub(crate) fn raised(&self, bytes: u64) -> Option<String> {
        match self.limit.of {
            LimitOf::MaxMemory => Some(format!("--max-memory {}M", bytes.div_ceil(1 << 20))),
            // Of two processes alike one takes some pages more than the other.
            LimitOf::AddressSpace => Some(format!("ulimit -v {}", (bytes + (1 << 20)).div_ceil(1 << 10))),
            LimitOf::Data => Some(format!("ulimit -d {}", bytes.div_ceil(1 << 10))),
            LimitOf::Free | LimitOf::ControlGroup => None,
        }
    }
}

/// A drawing that does not fit, and what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What it needs, and what there is.
    pub shortage: Shortage,
    /// Changes that fit, the least painful first; up to three.
    pub alternatives: Vec<Alternative>,
}

/// A change that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Flags to add or change, or a command for the shell that comes before.
    pub flags: String,
    /// What the drawing takes then.
    pub bytes: u64,
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.flags, gibibytes(self.bytes))
    }
}

/// Bytes as people read them: `19.8 GiB`, or `312 MiB` below one.
#[must_use]
pub fn gibibytes(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes < GIB {
        return format!("{} MiB", bytes.div_ceil(1 << 20));
    }
    let tenths = bytes.saturating_mul(10).div_ceil(GIB);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}
