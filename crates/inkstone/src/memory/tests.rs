use super::*;

#[test]
fn reads_the_lines_of_proc() {
    let text = "MemTotal:       24737368 kB\nMemAvailable:   23000000 kB\n";
    assert_eq!(kibibytes(text, "MemAvailable:"), Some(23_000_000 * 1024));
    assert_eq!(kibibytes(text, "SwapFree:"), None);
    assert_eq!(kibibytes("VmHWM:\t garbage kB", "VmHWM:"), None);
}

#[test]
fn an_unlimited_address_space_is_no_limit() {
    let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                Max address space         unlimited            unlimited            bytes     \n";
    assert_eq!(soft_limit(text, "Max address space"), None);
    assert_eq!(soft_limit(&text.replacen("unlimited", "1073741824", 1), "Max address space"), Some(1 << 30));
}

#[test]
fn the_tightest_control_group_counts() {
    let mount = std::env::temp_dir().join(format!("inkstone-cgroup-{}", std::process::id()));
    let inner = mount.join("a/b");
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("memory.max"), "max\n").unwrap();
    fs::write(mount.join("a/memory.max"), "1000\n").unwrap();
    fs::write(mount.join("a/memory.current"), "400\n").unwrap();
    assert_eq!(cgroup_headroom("0::/a/b\n", &mount), Some(600));
    fs::write(mount.join("a/memory.stat"), "anon 100\ninactive_file 200\nactive_file 50\n").unwrap();
    assert_eq!(cgroup_headroom("0::/a/b\n", &mount), Some(850), "files in memory can go");
    assert_eq!(cgroup_headroom("12:cpu:/x\n", &mount), None);
    fs::remove_dir_all(&mount).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn this_process_has_a_peak() {
    assert!(peak_bytes().unwrap() > 1 << 20);
    assert!(available_bytes().unwrap() > 0);
}
