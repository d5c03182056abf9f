use std::fs::{self, File};
use std::path::PathBuf;

use super::{Changed, MappedFile};

const FILE_BYTES: usize = 1 << 20;

/// A file of ones that is removed at the end of its test.
struct TestFile(PathBuf);

impl TestFile {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkstone-{}-{name}", std::process::id()));
        fs::write(&path, vec![1; FILE_BYTES]).unwrap();
        Self(path)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn intact_file_is_itself() {
    let file = TestFile::new("intact");
    let map = MappedFile::open(&file.0).unwrap();
    assert_eq!(map.path(), file.0);
    assert!(map.bytes().len() == FILE_BYTES && map.bytes().iter().all(|b| *b == 1));
    assert_eq!(map.check(), Ok(()));
}

#[test]
fn empty_file_is_mapped() {
    let file = TestFile::new("empty");
    fs::write(&file.0, b"").unwrap();
    let map = MappedFile::open(&file.0).unwrap();
    assert!(map.bytes().is_empty());
    assert_eq!(map.check(), Ok(()));
}

#[test]
fn file_written_in_place_has_changed() {
    let file = TestFile::new("written");
    let map = MappedFile::open(&file.0).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    File::options().write(true).open(&file.0).unwrap().set_modified(later).unwrap();
    assert_eq!(map.check(), Err(Changed { was_bytes: FILE_BYTES as u64, is_bytes: FILE_BYTES as u64 }));
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn truncated_file_reads_as_zeros_and_is_reported() {
    let (file, other) = (TestFile::new("cut"), TestFile::new("whole"));
    let map = MappedFile::open(&file.0).unwrap();
    let whole = MappedFile::open(&other.0).unwrap();
    assert_eq!(map.bytes()[FILE_BYTES - 1], 1);
    File::options().write(true).open(&file.0).unwrap().set_len(100).unwrap();

    // Several threads meet the lost pages at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(map.bytes()[4096 * 64..].iter().all(|b| *b == 0)));
        }
    });
    assert_eq!(map.check(), Err(Changed { was_bytes: FILE_BYTES as u64, is_bytes: 100 }));

    // Also when the file is made as long again behind our back.
    fs::write(&file.0, vec![1; FILE_BYTES]).unwrap();
    assert_eq!(map.check().unwrap_err().is_bytes, FILE_BYTES as u64);
    assert_eq!(whole.check(), Ok(()));
    assert!(whole.bytes().iter().all(|b| *b == 1));
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn slots_are_used_again() {
    let file = TestFile::new("slots");
    for _ in 0..3_000 {
        let map = MappedFile::open(&file.0).unwrap();
        assert!(map.guard.is_some());
    }
}

/// A SIGBUS that is none of ours still ends the process as it would without the guard.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn foreign_faults_are_passed_on() {
    use std::os::unix::process::ExitStatusExt;
    const CHILD: &str = "INKSTONE_TEST_FOREIGN_FAULT";
    if std::env::var_os(CHILD).is_some() {
        let file = TestFile::new("foreign");
        let guarded = MappedFile::open(&file.0).unwrap();
        // SAFETY: as in `open`; the test is about what happens without a guard.
        let bare = unsafe { memmap2::Mmap::map(&File::open(&file.0).unwrap()).unwrap() };
        File::options().write(true).open(&file.0).unwrap().set_len(0).unwrap();
        drop(file);
        std::process::exit(i32::from(bare[FILE_BYTES - 1] + guarded.bytes()[0]));
    }
    let test = "mapped::tests::foreign_faults_are_passed_on";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(libc::SIGBUS), "{child:?}");
}

#[test]
fn what_was_read_ahead_is_missing_again_behind_its_release() {
    const PIECE: usize = super::ahead::PIECE_BYTES;
    let file = TestFile::new("ahead");
    fs::write(&file.0, vec![1; 3 * PIECE + 5]).unwrap();
    let map = MappedFile::open(&file.0).unwrap();
    let whole = 0..3 * PIECE + 5;
    assert_eq!(map.missing(whole.clone()), 0..4);
    assert_eq!(map.missing(PIECE - 1..PIECE + 1), 0..2);
    map.read_ahead(PIECE..PIECE + 1);
    assert_eq!((map.missing(whole.clone()), map.missing(PIECE..2 * PIECE)), (0..4, 0..0));
    map.read_ahead(0..PIECE);
    assert_eq!(map.missing(whole.clone()), 2..4);
    map.read_ahead(0..usize::MAX);
    assert_eq!(map.missing(whole.clone()), 0..0);
    map.release(2 * PIECE + 7..2 * PIECE + 8);
    assert_eq!(map.missing(whole.clone()), 2..3);
    map.release(whole.clone());
    assert_eq!(map.missing(whole), 0..4);
    for empty in [0..0, 7..7, 3 * PIECE + 5..4 * PIECE, usize::MAX..usize::MAX] {
        map.read_ahead(empty.clone());
        assert_eq!(map.missing(empty), 0..0);
    }
}

/// Many parts, so that the marks take more than one word.
#[test]
fn parts_are_marked_each_for_itself() {
    use super::ahead::{Brought, PIECE_BYTES, pieces, within};
    let brought = Brought::none(200 * PIECE_BYTES);
    for piece in [0, 63, 64, 127, 199] {
        assert!(!brought.mark(piece) && brought.mark(piece));
    }
    let marked: Vec<usize> = (0..200).filter(|piece| brought.is_marked(*piece)).collect();
    assert_eq!(marked, [0, 63, 64, 127, 199]);
    brought.clear(&(PIECE_BYTES..127 * PIECE_BYTES));
    let marked: Vec<usize> = (0..200).filter(|piece| brought.is_marked(*piece)).collect();
    assert_eq!(marked, [0, 127, 199]);
    let range = PIECE_BYTES - 3..2 * PIECE_BYTES + 4;
    let parts: Vec<_> = pieces(&range).map(|piece| within(&range, piece)).collect();
    let (a, b) = (PIECE_BYTES, 2 * PIECE_BYTES);
    assert_eq!(parts, [a - 3..a, a..b, b..b + 4]);
}
