//! What a file system has left.

use std::path::Path;

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
}
