//! How much memory this process may take, and how much it took.
//!
//! Linux only for now: elsewhere nothing is known and nothing is limited.

use std::fs;
use std::path::Path;

#[cfg(test)]
mod tests;
mod walk;

pub use walk::Walk;

/// Bytes that the process can still take without being killed: the least of what the machine has free, what its
/// control groups leave and what its address space limit leaves. `None` if the system does not tell.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let status = read("/proc/self/status");
    let machine = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemAvailable:"));
    let address_space =
        read("/proc/self/limits").and_then(|text| soft_limit(&text, "Max address space")).map(|limit| {
            let used = status.as_deref().and_then(|text| kibibytes(text, "VmSize:")).unwrap_or(0);
            limit.saturating_sub(used)
        });
    let groups =
        read("/proc/self/cgroup").and_then(|text| cgroup_headroom(&text, Path::new("/sys/fs/cgroup")));
    [machine, address_space, groups].into_iter().flatten().min()
}

/// The most memory the process has held so far, in bytes: resident pages, mapped files included.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The number behind a key in the `Key:   123 kB` lines of /proc, in bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit in a line of /proc/self/limits; `None` for `unlimited`.
fn soft_limit(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// What the process's control groups leave: the least over its own group and all above it.
fn cgroup_headroom(cgroup: &str, mount: &Path) -> Option<u64> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Path::new(own)
        .ancestors()
        .filter_map(|group| {
            let folder = mount.join(group);
            let limit = number(&folder.join("memory.max"))?;
            let used = number(&folder.join("memory.current")).unwrap_or(0);
            Some(limit.saturating_sub(used.saturating_sub(page_cache(&folder))))
        })
        .min()
}

/// Bytes of files that a control group holds in memory: mapped weights are among them, and the system takes them back
/// when it needs room.
fn page_cache(group: &Path) -> u64 {
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let of = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    of("inactive_file") + of("active_file")
}
