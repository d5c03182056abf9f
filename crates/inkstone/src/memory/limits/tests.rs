use super::*;

/// A system of our own making.
struct Fake(System);

impl Fake {
    /// A machine with 8000 kB free; the process has 1000 kB of its own.
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("inkstone-{}-{name}", std::process::id()));
        let fake = Self(System { proc: root.join("proc"), cgroups: root.join("cgroup") });
        fake.write("proc/meminfo", "MemTotal:       24737368 kB\nMemAvailable:   8000 kB\n");
        fake.write(
            "proc/self/status",
            "VmSize:\t  30000 kB\nVmRSS:\t  3000 kB\nRssAnon:\t  1000 kB\nVmData:\t  2000 kB\n",
        );
        fake.write(
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             unlimited            unlimited            bytes     \n\
             Max address space         unlimited            unlimited            bytes     \n",
        );
        fake
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.proc.parent().unwrap().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.proc.parent().unwrap());
    }
}

const KIB: u64 = 1024;

#[test]
fn what_is_free_is_added_to_what_is_ours() {
    let fake = Fake::new("free");
    let limits = fake.0.limits(None);
    assert_eq!(limits.resident, Some(Limit { bytes: 9000 * KIB, of: LimitOf::Free }));
    assert_eq!((limits.address_space, limits.data), (None, None), "unlimited is no limit");
}

/// FAULTS row 77: the planner uses the lowest of all limits.
#[test]
fn row_77_the_lowest_limit_counts() {
    let fake = Fake::new("lowest");
    assert_eq!(
        fake.0.limits(Some(5000 * KIB)).resident,
        Some(Limit { bytes: 5000 * KIB, of: LimitOf::MaxMemory })
    );
    fake.write("proc/self/cgroup", "0::/a/b\n");
    fake.write("cgroup/a/b/memory.max", "max\n");
    fake.write("cgroup/a/memory.max", &format!("{}\n", 3000 * KIB));
    fake.write("cgroup/a/memory.current", &format!("{}\n", 1500 * KIB));
    let group = |bytes| Some(Limit { bytes, of: LimitOf::ControlGroup });
    assert_eq!(fake.0.limits(Some(5000 * KIB)).resident, group(2500 * KIB), "1500 left and 1000 of ours");
    fake.write("cgroup/a/memory.stat", &format!("anon 100\ninactive_file {}\nactive_file 0\n", 500 * KIB));
    assert_eq!(fake.0.limits(None).resident, group(3000 * KIB), "files in memory can go");
    fake.write(
        "proc/self/limits",
        "Max data size             2000000              unlimited            bytes     \n\
         Max address space         1073741824           unlimited            bytes     \n",
    );
    let limits = fake.0.limits(None);
    assert_eq!(limits.address_space, Some(Limit { bytes: 1 << 30, of: LimitOf::AddressSpace }));
    assert_eq!(limits.data, Some(Limit { bytes: 2_000_000, of: LimitOf::Data }));
}

#[test]
fn a_limit_is_raised_as_far_as_its_hard_one_unless_its_user_may_do_more() {
    let fake = Fake::new("hard");
    fake.write(
        "proc/self/limits",
        "Max data size             2000000              unlimited            bytes     \n\
         Max address space         1073741824           2147483648           bytes     \n",
    );
    let hard = |of| fake.0.hard_bytes(of);
    assert_eq!((hard(LimitOf::AddressSpace), hard(LimitOf::Data)), (Some(2 << 30), None));
    assert_eq!((hard(LimitOf::MaxMemory), hard(LimitOf::Free)), (None, None));
    fake.write("proc/self/status", "CapEff:\t0000000000000000\n");
    assert_eq!(fake.0.hard_bytes(LimitOf::AddressSpace), Some(2 << 30));
    fake.write("proc/self/status", "CapEff:\t000001ffffffffff\n");
    assert_eq!(fake.0.hard_bytes(LimitOf::AddressSpace), None);
}

#[test]
fn the_first_version_of_control_groups_counts_too() {
    let fake = Fake::new("first-version");
    fake.write("proc/self/cgroup", "8:pids:/\n4:memory:/job\n0::/\n");
    fake.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_eq!(fake.0.limits(None).resident.unwrap().of, LimitOf::Free, "near 2^63 is no limit");
    fake.write("cgroup/memory/job/memory.limit_in_bytes", &format!("{}\n", 4000 * KIB));
    fake.write("cgroup/memory/job/memory.usage_in_bytes", &format!("{}\n", 2000 * KIB));
    fake.write("cgroup/memory/job/memory.stat", &format!("total_inactive_file {}\n", 1000 * KIB));
    let limit = Limit { bytes: 4000 * KIB, of: LimitOf::ControlGroup };
    assert_eq!(fake.0.limits(None).resident, Some(limit), "3000 left and 1000 of ours");
}

#[test]
fn lines_of_proc_that_are_not_there_or_not_numbers_are_nothing() {
    assert_eq!(kibibytes("MemAvailable:   23000000 kB\n", "MemAvailable:"), Some(23_000_000 * KIB));
    assert_eq!(kibibytes("MemAvailable:   23000000 kB\n", "SwapFree:"), None);
    assert_eq!(kibibytes("VmHWM:\t garbage kB", "VmHWM:"), None);
    let nowhere = System { proc: "/nowhere".into(), cgroups: "/nowhere".into() };
    assert_eq!((nowhere.limits(None), nowhere.usage()), (Limits::default(), Usage::default()));
}
