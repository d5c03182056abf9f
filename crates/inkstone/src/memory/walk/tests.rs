use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inkstone_tensor::{DType, Device, MappedFile, Shape, Storage, Tensor, cpu};

use super::*;

const LAYER_BYTES: usize = 4 << 20;
const LAYERS: usize = 6;

struct Fixture {
    path: PathBuf,
    layers: Vec<Tensor>,
    walk: Walk,
}

impl Fixture {
    /// A file of layers, each filled with its number.
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkstone-{}-{name}", std::process::id()));
        let bytes: Vec<u8> = (0..LAYERS).flat_map(|i| vec![u8::try_from(i).unwrap(); LAYER_BYTES]).collect();
        fs::write(&path, bytes).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let device = Device::cpu(&cpu::Options::default()).unwrap();
        let layer = |i: usize| {
            let storage = Storage::Mapped(Arc::clone(&file), i * LAYER_BYTES..(i + 1) * LAYER_BYTES);
            Tensor::from_storage(&device, storage, DType::U8, Shape::vector(LAYER_BYTES)).unwrap()
        };
        let layers: Vec<Tensor> = (0..LAYERS).map(layer).collect();
        let pages = |tensor: &Tensor| {
            let mut pages = Pages::default();
            pages.add(tensor);
            pages
        };
        let walk = Walk::new(layers.iter().map(pages).collect());
        Self { path, layers, walk }
    }

    /// Passes all layers and looks at something after each; the sum of their bytes.
    fn pass(&self, mut look: impl FnMut()) -> u64 {
        let mut sum = 0;
        for (i, layer) in self.layers.iter().enumerate() {
            self.walk.enter(i);
            sum += layer.bytes().iter().map(|b| u64::from(*b)).sum::<u64>();
            look();
        }
        sum
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes of a file that this process has in memory, as the system tells.
fn resident_bytes(path: &Path) -> usize {
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut of_file = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            of_file = line.ends_with(name);
        } else if of_file && first == "Rss:" {
            bytes += words.next().unwrap().parse::<usize>().unwrap() * 1024;
        }
    }
    bytes
}

/// Waits until something is so; panics if it never is.
fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What all bytes add up to.
const SUM: u64 = (LAYERS * (LAYERS - 1) / 2 * LAYER_BYTES) as u64;

#[cfg(target_os = "linux")]
#[test]
fn a_streamed_walk_keeps_two_layers() {
    let fixture = Fixture::new("streamed");
    fixture.walk.stream(true);
    for step in 0..3 {
        // Large pages may reach into a neighbour. What the reader was in the middle of when it was passed is a third layer for
        // as long as the reader needs to see that, which on a busy machine may be long.
        let sum = fixture.pass(|| until(|| resident_bytes(&fixture.path) <= 2 * LAYER_BYTES + (2 << 20)));
        assert_eq!(sum, SUM, "step {step}");
    }
    fixture.walk.rest();
    assert_eq!(resident_bytes(&fixture.path), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_walk_that_is_not_streamed_keeps_all_layers() {
    let fixture = Fixture::new("resident");
    fixture.pass(|| ());
    fixture.walk.rest();
    let all = || fixture.pass(|| ()) == SUM && resident_bytes(&fixture.path) == LAYERS * LAYER_BYTES;
    // The system may take pages of files back at any time, but not of all passes.
    until(all);
    fixture.walk.stream(true);
    assert_eq!(resident_bytes(&fixture.path), 0, "nothing computes when it begins to stream");
}

#[test]
fn a_walk_without_layers_or_pages_goes_nowhere() {
    for walk in [Walk::new(Vec::new()), Walk::new(vec![Pages::default(); 2])] {
        walk.stream(true);
        (0..3).for_each(|layer| walk.enter(layer));
        walk.rest();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn layers_are_brought_ahead_as_long_as_they_are_wanted() {
    let fixture = Fixture::new("ahead");
    fixture.walk.read_ahead(|| false);
    assert_eq!(resident_bytes(&fixture.path), 0);
    let left = AtomicUsize::new(2);
    let wanted =
        || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    fixture.walk.read_ahead(wanted);
    // What the system says is in memory may be less, as it takes pages of files back at any time, and more, where it keeps
    // the file in large pages.
    let brought =
        || -> Vec<bool> { fixture.walk.pages().iter().map(|layer| layer.on_disk().is_empty()).collect() };
    assert_eq!(brought(), [true, true, false, false, false, false]);
    assert!(resident_bytes(&fixture.path) < LAYERS * LAYER_BYTES);
    fixture.walk.read_ahead(|| true);
    assert_eq!(brought(), [true; LAYERS]);
    fixture.walk.stream(true);
    fixture.walk.read_ahead(|| true);
    assert_eq!(resident_bytes(&fixture.path), 0, "layers of a streamed walk come one by one");
    assert_eq!(fixture.pass(|| ()), SUM);
}
