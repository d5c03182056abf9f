//! What this process may take: the lowest of what was asked for, what is free, and what the system allows.
//!
//! Linux only for now: elsewhere only what was asked for limits anything.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Shortage, gibibytes};
use crate::{Error, Result};

/// What a process takes more at one time than at another, without drawing.
pub(crate) const SLACK_BYTES: u64 = 2 << 20;

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOf {
    /// The caller: `--max-memory`.
    MaxMemory,
    /// The machine has no more free.
    Free,
    /// A control group, as containers have.
    ControlGroup,
    /// `RLIMIT_AS`: mapped files count in full.
    AddressSpace,
    /// `RLIMIT_DATA`.
    Data,
}

impl LimitOf {
    /// In one word, for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxMemory => "max-memory",
            Self::Free => "free",
            Self::ControlGroup => "control-group",
            Self::AddressSpace => "address-space",
            Self::Data => "data",
        }
    }
}

impl fmt::Display for LimitOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MaxMemory => "--max-memory allows",
            Self::Free => "the machine has free",
            Self::ControlGroup => "the control group leaves",
            Self::AddressSpace => "the address space limit (ulimit -v) is",
            Self::Data => "the data limit (ulimit -d) is",
        })
    }
}

/// So many bytes, and why not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of this process, in total.
    pub bytes: u64,
    /// Where it comes from.
    pub of: LimitOf,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.of, gibibytes(self.bytes))
    }
}

/// All limits of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of what is resident: the lowest of three.
    pub resident: Option<Limit>,
    /// Of the address space.
    pub address_space: Option<Limit>,
    /// Of private memory that can be written.
    pub data: Option<Limit>,
}

impl Limits {
    /// The limits now; `max_memory_bytes` is what the caller allows.
    #[must_use]
    pub fn now(max_memory_bytes: Option<u64>) -> Self {
        System::default().limits(max_memory_bytes)
    }

    /// How far the user of this process may raise a limit of its own; `None` for any far, and for limits that are not its own.
    #[must_use]
    pub(crate) fn hard_bytes(of: LimitOf) -> Option<u64> {
        System::default().hard_bytes(of)
    }

    /// All that are known.
    pub fn known(&self) -> impl Iterator<Item = Limit> {
        [self.resident, self.address_space, self.data].into_iter().flatten()
    }

    /// Whether this process may take so many bytes more now.
    ///
    /// # Errors
    /// [`Error::InsufficientMemory`], with no alternatives.
    pub fn check(&self, bytes: u64) -> Result<()> {
        let usage = Usage::now();
        let used = [usage.resident_bytes, usage.address_space_bytes, usage.data_bytes];
        self.check_needs(used.map(|used| used.saturating_add(bytes)))
    }

    /// Whether this process may take so many bytes in all: of resident memory, of address space, of private memory.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn check_needs(&self, needs: [u64; 3]) -> Result<()> {
        match self.broken_by(needs) {
            Some(shortage) => Err(Error::InsufficientMemory { shortage, alternatives: Vec::new() }),
            None => Ok(()),
        }
    }

    /// The first limit that is below what is needed: of resident memory, of address space, of private memory.
    #[must_use]
    pub(super) fn broken_by(&self, needs: [u64; 3]) -> Option<Shortage> {
        let limits = [self.resident, self.address_space, self.data];
        needs.into_iter().zip(limits).find_map(|(needed_bytes, limit)| {
            let limit = limit.filter(|limit| needed_bytes > limit.bytes)?;
            Some(Shortage { needed_bytes, limit, is_least: false })
        })
    }

    /// The same, each lower by what a process takes more at one time than at another.
    #[must_use]
    pub(crate) fn with_slack(self) -> Self {
        let lower =
            |limit: Option<Limit>| limit.map(|l| Limit { bytes: l.bytes.saturating_sub(SLACK_BYTES), ..l });
        Self {
            resident: lower(self.resident),
            address_space: lower(self.address_space),
            data: lower(self.data),
        }
    }

    /// The same without one; what else limits memory takes the place of `--max-memory`.
    #[must_use]
    pub(crate) fn without(self, of: LimitOf) -> Self {
        match of {
            LimitOf::MaxMemory => Self { resident: Self::now(None).resident, ..self },
            LimitOf::Free | LimitOf::ControlGroup => self,
            LimitOf::AddressSpace => Self { address_space: None, ..self },
            LimitOf::Data => Self { data: None, ..self },
        }
    }
}

/// What a process takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// In memory, mapped files included.
    pub resident_bytes: u64,
    /// In memory and in no file.
    pub anonymous_bytes: u64,
    /// Of address space.
    pub address_space_bytes: u64,
    /// Of private memory that can be written, in memory or not.
    pub data_bytes: u64,
}

impl Usage {
    /// Of this process now; zeros where the system does not tell.
    #[must_use]
    pub fn now() -> Self {
        System::default().usage()
    }
}

/// Where the system tells what there is.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) proc: PathBuf,
    pub(super) cgroups: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

impl System {
    pub(super) fn limits(&self, max_memory_bytes: Option<u64>) -> Limits {
        let usage = self.usage();
        let total = |free: u64, of| Limit { bytes: free.saturating_add(usage.anonymous_bytes), of };
        let resident = [
            max_memory_bytes.map(|bytes| Limit { bytes, of: LimitOf::MaxMemory }),
            self.free_bytes().map(|free| total(free, LimitOf::Free)),
            self.group_bytes().map(|free| total(free, LimitOf::ControlGroup)),
        ];
        let limits = self.read("self/limits").unwrap_or_default();
        let soft = |name, of| own_limit(&limits, name, 0).map(|bytes| Limit { bytes, of });
        Limits {
            resident: resident.into_iter().flatten().min_by_key(|limit| limit.bytes),
            address_space: soft(ADDRESS_SPACE, LimitOf::AddressSpace),
            data: soft(DATA, LimitOf::Data),
        }
    }

    pub(super) fn hard_bytes(&self, of: LimitOf) -> Option<u64> {
        let name = match of {
            LimitOf::AddressSpace => ADDRESS_SPACE,
            LimitOf::Data => DATA,
            LimitOf::MaxMemory | LimitOf::Free | LimitOf::ControlGroup => return None,
        };
        let status = self.read("self/status").unwrap_or_default();
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        if capabilities.is_some_and(|all| all & RAISES_LIMITS != 0) {
            return None;
        }
        own_limit(&self.read("self/limits")?, name, 1)
    }

    pub(super) fn usage(&self) -> Usage {
        let status = self.read("self/status").unwrap_or_default();
        let of = |key| kibibytes(&status, key).unwrap_or(0);
        Usage {
            resident_bytes: of("VmRSS:"),
            anonymous_bytes: of("RssAnon:"),
            address_space_bytes: of("VmSize:"),
            data_bytes: of("VmData:"),
        }
    }

    /// What the machine has free; what it keeps of files counts, as it can be taken.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        kibibytes(&self.read("meminfo")?, "MemAvailable:")
    }

    /// What the process's control groups leave: the least over its own group and all above it.
    pub(super) fn group_bytes(&self) -> Option<u64> {
        let groups = self.read("self/cgroup")?;
        let one = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let two = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, group)| group));
        let one = one.and_then(|group| headroom(group, &self.cgroups, &UNIFIED));
        let two = two.and_then(|group| headroom(group, &self.cgroups.join("memory"), &MEMORY));
        one.into_iter().chain(two).min()
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.proc.join(name)).ok()
    }
}

/// `CAP_SYS_RESOURCE`, with which hard limits are none (capabilities(7)).
const RAISES_LIMITS: u64 = 1 << 24;
/// How lines of /proc/self/limits begin.
const ADDRESS_SPACE: &str = "Max address space";
const DATA: &str = "Max data size";

/// What the files of a control group are called.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// Lines of memory.stat that say how much of it files are.
    files: [&'static str; 2],
}

/// <https://docs.kernel.org/admin-guide/cgroup-v2.html>
const UNIFIED: Names =
    Names { limit: "memory.max", used: "memory.current", files: ["inactive_file", "active_file"] };
/// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>
const MEMORY: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};
/// The first version writes a number near 2^63 for no limit.
const NO_LIMIT_BYTES: u64 = 1 << 60;

fn headroom(group: &str, mount: &Path, names: &Names) -> Option<u64> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Path::new(group.trim_start_matches('/'))
        .ancestors()
        .filter_map(|group| {
            let folder = mount.join(group);
            let limit = number(&folder.join(names.limit)).filter(|limit| *limit < NO_LIMIT_BYTES)?;
            let used = number(&folder.join(names.used)).unwrap_or(0);
            Some(limit.saturating_sub(used.saturating_sub(page_cache(&folder, names))))
        })
        .min()
}

/// Bytes of files that a control group holds in memory: mapped weights are among them, and the system takes them back
/// when it needs room.
fn page_cache(group: &Path, names: &Names) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let of = |name: &&str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    names.files.iter().map(of).sum()
}

/// The number behind a key in the `Key:   123 kB` lines of /proc, in bytes.
pub(super) fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit (`place` 0) or the hard one (1) in a line of /proc/self/limits; `None` for `unlimited`.
fn own_limit(text: &str, name: &str, place: usize) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests;
