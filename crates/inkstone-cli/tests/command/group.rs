//! The command within a real control group.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::dir::{Dir, Run, finish};

/// How many groups this process has made.
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A control group of our own below the one that this process is in, if the system lets us make one.
pub(crate) struct Group(PathBuf);

impl Group {
    /// With so much memory at most. Version 1 of control groups; in version 2 a group that has processes, as ours has, can
    /// give its memory to no group below.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.split_once(":memory:/"))?.1;
        let name = format!("inkstone-test-{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let roots = [own, ""].map(|own| Path::new("/sys/fs/cgroup/memory").join(own).join(&name));
        let group = Self(roots.into_iter().find(|path| fs::create_dir(path).is_ok())?);
        fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()).ok()?;
        Some(group)
    }

    /// Runs the command in it, with arguments as a shell reads them.
    pub(crate) fn run(&self, dir: &Dir, arguments: &str) -> Run {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" {arguments}", self.0.display());
        finish(&mut dir.script("sh", &script))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
