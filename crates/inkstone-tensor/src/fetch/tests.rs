#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use crate::MappedFile;
use crate::mapped::ahead::PIECE_BYTES;

const FILE_BYTES: usize = 3 * PIECE_BYTES + 5;

/// A file of ones on a disk, none of it in the system's cache where that can be asked for.
fn file(name: &str) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    let path = std::env::temp_dir().join(format!("inkstone-{}-fetch-{name}", std::process::id()));
    fs::write(&path, vec![1; FILE_BYTES]).unwrap();
    let written = fs::File::open(&path).unwrap();
    written.sync_all().unwrap();
    // SAFETY: the file is open; this only says that nobody needs its pages.
    unsafe { libc::posix_fadvise(written.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    path
}

/// Whether the file is among the memory of this process.
fn is_resident(path: &std::path::Path) -> bool {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    // The folder may have another name there.
    let name = path.file_name().unwrap().to_str().unwrap();
    let of_file = smaps.lines().skip_while(|line| !line.ends_with(name));
    of_file.take(8).any(|line| line.starts_with("Rss:") && !line.contains(" 0 kB"))
}

#[test]
fn what_was_fetched_is_in_the_cache_and_not_in_the_process() {
    let path = file("cached");
    let map = MappedFile::open(&path).unwrap();
    let part = map.on_disk(5..FILE_BYTES).unwrap();
    assert_eq!(part.len_bytes(), FILE_BYTES as u64 - 5);
    // The system takes pages of files back when it likes, so a look may come too late, but not every one does.
    let is_cached_behind = |read: &dyn Fn()| {
        (0..100).any(|_| {
            read();
            part.is_cached()
        })
    };
    let known = is_cached_behind(&|| assert!(part.fetch()));
    assert!(!is_resident(&path));
    let read = || {
        assert!(map.bytes().iter().all(|b| *b == 1));
        is_resident(&path)
    };
    assert!((0..100).any(|_| read()), "the look at the memory sees the mapping");
    // Not every file system tells; one that does, does so of bytes that were read just now.
    assert_eq!(known, is_cached_behind(&|| assert!(map.bytes().iter().all(|b| *b == 1))));
    fs::remove_file(path).unwrap();
}

#[test]
fn parts_are_of_the_file_that_was_mapped_and_end_where_it_ends() {
    let (path, other) = (file("kept"), file("other"));
    let map = MappedFile::open(&path).unwrap();
    let part = map.on_disk(0..FILE_BYTES).unwrap();
    let another = MappedFile::open(&other).unwrap().on_disk(0..1).unwrap();
    assert!(part.is_of_same_file(&map.on_disk(7..9).unwrap()) && !part.is_of_same_file(&another));
    assert_eq!(part.slice(10..20).len_bytes(), 10);
    assert_eq!(part.slice(10..u64::MAX).len_bytes(), FILE_BYTES as u64 - 10);
    assert_eq!(part.slice(u64::MAX..u64::MAX).len_bytes(), 0);
    assert!(part.slice(3..3).fetch(), "nothing is there at once");
    // Another file under the same name is none of ours: ours still has all of its bytes.
    fs::write(&other, b"short").unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(part.fetch());
    fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_was_cut_short_ends_the_reading() {
    let path = file("cut");
    let map = MappedFile::open(&path).unwrap();
    let part = map.on_disk(0..FILE_BYTES).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(PIECE_BYTES as u64).unwrap();
    assert!(part.slice(0..PIECE_BYTES as u64).fetch());
    assert!(!part.fetch());
    assert!(!part.is_cached());
    assert_eq!(map.check().unwrap_err().is_bytes, PIECE_BYTES as u64);
    fs::remove_file(path).unwrap();
}

#[test]
fn what_the_process_has_already_is_counted_and_not_on_the_disk() {
    let path = file("counted");
    let map = Arc::new(MappedFile::open(&path).unwrap());
    let part = map.on_disk(0..FILE_BYTES).unwrap();
    assert_eq!(part.brought_bytes(), 0);
    map.read_ahead(0..PIECE_BYTES);
    map.read_ahead(0..PIECE_BYTES);
    assert_eq!(part.brought_bytes(), PIECE_BYTES as u64);
    assert!(map.on_disk(0..PIECE_BYTES).is_none() && map.on_disk(0..0).is_none());
    map.read_ahead(0..FILE_BYTES);
    assert_eq!(part.brought_bytes(), FILE_BYTES as u64);
    map.release(0..PIECE_BYTES);
    assert!(map.on_disk(0..FILE_BYTES).is_some());
    // A part keeps the file open, but not the mapping.
    let left = Arc::downgrade(&map);
    drop(map);
    assert!(left.upgrade().is_none() && part.fetch());
    fs::remove_file(path).unwrap();
}
