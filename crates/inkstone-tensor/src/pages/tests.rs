use std::fs;
use std::path::Path;

use super::*;
use crate::{DType, Device, Shape, cpu};

const ROW_BYTES: usize = 1 << 20;
const ROWS: usize = 8;

/// A mapped file whose row `i` is all `i`, and a tensor for each row.
fn mapped(name: &str) -> (std::path::PathBuf, Arc<MappedFile>, Vec<Tensor>) {
    let path = std::env::temp_dir().join(format!("inkstone-{}-{name}", std::process::id()));
    let bytes: Vec<u8> = (0..ROWS).flat_map(|row| vec![u8::try_from(row).unwrap(); ROW_BYTES]).collect();
    fs::write(&path, bytes).unwrap();
    let file = Arc::new(MappedFile::open(&path).unwrap());
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let row = |i: usize| {
        let storage = Storage::Mapped(Arc::clone(&file), i * ROW_BYTES..(i + 1) * ROW_BYTES);
        Tensor::from_storage(&device, storage, DType::U8, Shape::vector(ROW_BYTES)).unwrap()
    };
    let tensors = (0..ROWS).map(row).collect();
    (path, file, tensors)
}

/// Bytes of a file that this process has in memory, as the system tells.
#[cfg(target_os = "linux")]
fn resident_bytes(path: &Path) -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut of_file = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            of_file = line.ends_with(path.file_name().unwrap().to_str().unwrap());
        } else if of_file && first == "Rss:" {
            bytes += words.next().unwrap().parse::<usize>().unwrap() * 1024;
        }
    }
    bytes
}

/// Brings all pages of a file into memory. The system takes pages of files back when it likes, so a look may come too late, but
/// not every one does.
#[cfg(target_os = "linux")]
fn brought_whole(path: &Path, pages: &Pages, bytes: usize) {
    let whole = (0..100).any(|_| {
        pages.release();
        pages.read_ahead(|| true);
        resident_bytes(path) == bytes
    });
    // Kernels before 5.14 only begin to read.
    assert!(whole || !maps_ahead());
}

/// Whether the kernel is one of 5.14 or later.
#[cfg(target_os = "linux")]
fn maps_ahead() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

#[cfg(target_os = "linux")]
#[test]
fn released_pages_leave_memory_and_come_back_with_their_bytes() {
    let (path, _file, tensors) = mapped("pages");
    let mut pages = Pages::default();
    tensors.iter().for_each(|t| pages.add(t));
    let pages = pages.merged();
    assert_eq!(
        (pages.0.len(), pages.len_bytes()),
        (1, ROWS * ROW_BYTES),
        "rows that follow each other are one range"
    );
    brought_whole(&path, &pages, ROWS * ROW_BYTES);
    let mut middle = Pages::default();
    middle.add(&tensors[3]);
    middle.release();
    // Where the system maps files in large pages, the neighbours in one leave too.
    assert!(resident_bytes(&path) <= (ROWS - 1) * ROW_BYTES);
    assert!(tensors[3].bytes().iter().all(|b| *b == 3));
    pages.release();
    assert_eq!(resident_bytes(&path), 0);
    assert!((0..ROWS).all(|i| tensors[i].bytes()[ROW_BYTES - 1] == u8::try_from(i).unwrap()));
    fs::remove_file(path).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_not_wanted_is_not_read() {
    let (path, _file, tensors) = mapped("unwanted");
    let mut pages = Pages::default();
    tensors.iter().for_each(|t| pages.add(t));
    pages.merged().read_ahead(|| false);
    assert_eq!(resident_bytes(&path), 0);
    fs::remove_file(path).unwrap();
}

#[test]
fn memory_of_our_own_has_no_pages() {
    let device = Device::cpu(&cpu::Options::default()).unwrap();
    let mut pages = Pages::default();
    pages.add(&Tensor::from_f32(&device, &[1.0], Shape::vector(1)).unwrap());
    assert_eq!(pages.len_bytes(), 0);
    pages.release();
}
