//! What a drawing will take, what this process may take, and how weights come and go.

mod ahead;
mod limits;
mod plan;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use ahead::Ahead;
pub(crate) use limits::SLACK_BYTES;
pub use limits::{Limit, LimitOf, Limits, Usage};
pub use plan::{Alternative, DiskSpeed, MemoryPlan, Offload, Refusal, Shortage, StageMemory, gibibytes};
pub(crate) use plan::{opening_space_bytes, with_reserve};
pub use walk::Walk;

/// For a program to call before anything else, so that plans hold for the second picture too: see there.
pub use inkstone_tensor::return_freed_blocks;

use limits::{System, kibibytes};

/// Bytes that the process can still take without being killed: the least of what the machine has free, what its
/// control groups leave and what its address space limit leaves. `None` if the system does not tell.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let limits = Limits::now(None);
    let usage = Usage::now();
    let left = |limit: Option<Limit>, used: u64| limit.map(|limit| limit.bytes.saturating_sub(used));
    let resident = left(limits.resident, usage.anonymous_bytes);
    resident.into_iter().chain(left(limits.address_space, usage.address_space_bytes)).min()
}

/// The most memory the process has held so far, in bytes: resident pages, mapped files included.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    kibibytes(&std::fs::read_to_string(System::default().proc.join("self/status")).ok()?, "VmHWM:")
}
