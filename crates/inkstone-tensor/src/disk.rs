//! What a file system has left, and how fast it gives what it has.

use std::path::Path;
use std::time::Duration;

/// Bytes that a file in this folder may still take; `None` if the system does not tell.
#[cfg(unix)]
#[must_use]
pub fn free_disk_bytes(folder: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;

    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut told = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and the system writes the whole struct where it returns 0.
    let told = unsafe {
        if libc::statvfs(path.as_ptr(), told.as_mut_ptr()) != 0 {
            return None;
        }
        told.assume_init()
    };
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the types differ between systems"
    )]
    let (blocks, size) = (told.f_bavail as u64, told.f_frsize as u64);
    blocks.checked_mul(size)
}

/// Bytes that a file in this folder may still take; `None` if the system does not tell.
#[cfg(not(unix))]
#[must_use]
pub fn free_disk_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// Bytes a second that come from the disk where this file is read from its beginning in order, until so many bytes or so
/// much time: past the system's cache, of which nothing is used, filled or given up. `None` for a file too small to tell,
/// and where the file system does not offer this.
#[cfg(target_os = "linux")]
#[must_use]
pub fn disk_read_speed(file: &Path, most_bytes: u64, most: Duration) -> Option<f64> {
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

    /// What is read at once: as much as a disk needs to be busy.
    const PIECE_BYTES: usize = 4 << 20;
    /// Less than this is over before a disk is at its speed.
    const LEAST_BYTES: u64 = 16 << 20;
    /// Places in memory and in the file are multiples of the disk's blocks.
    const ALIGN_BYTES: usize = 4096;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file).ok()?;
    let mut room = crate::with_room(PIECE_BYTES + ALIGN_BYTES).ok()?;
    room.resize(PIECE_BYTES + ALIGN_BYTES, 0);
    let start = room.as_ptr().align_offset(ALIGN_BYTES);
    let piece = room.get_mut(start..start + PIECE_BYTES)?;
    let begun = std::time::Instant::now();
    let mut bytes = 0;
    while bytes < most_bytes && begun.elapsed() < most {
        let read = file.read_at(piece, bytes).ok()?;
        bytes += read as u64;
        if read < PIECE_BYTES {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    (bytes >= LEAST_BYTES.min(most_bytes) && bytes > 0).then(|| bytes as f64 / seconds)
}

/// Not measured on this system.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn disk_read_speed(_file: &Path, _most_bytes: u64, _most: Duration) -> Option<f64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_room_and_a_missing_one_tells_nothing() {
        assert!(free_disk_bytes(&std::env::temp_dir()).is_some_and(|bytes| bytes < 1 << 60));
        assert_eq!(free_disk_bytes(Path::new("/no/such/folder")), None);
        // A file system without files has none left.
        assert_eq!(free_disk_bytes(Path::new("/proc")), Some(0));
    }

    #[test]
    fn a_disk_has_a_speed_and_a_file_that_is_small_or_missing_none() {
        const SECOND: Duration = Duration::from_secs(1);
        let path = std::env::temp_dir().join(format!("inkstone-speed-{}", std::process::id()));
        std::fs::write(&path, vec![7; 20 << 20]).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        let (whole, no_time) =
            (disk_read_speed(&path, 1 << 30, SECOND), disk_read_speed(&path, 1 << 30, Duration::ZERO));
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let small = disk_read_speed(&path, 1 << 30, SECOND);
        std::fs::remove_file(&path).unwrap();
        // Not every file system reads past its cache; the slowest disk has a hundred kilobytes a second.
        assert!(whole.is_none_or(|speed| (1e5..1e13).contains(&speed)), "{whole:?}");
        assert_eq!((no_time, small), (None, None));
        assert_eq!(disk_read_speed(&path, 1 << 30, SECOND), None, "it is not there");
    }
}
