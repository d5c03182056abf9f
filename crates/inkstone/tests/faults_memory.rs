//! Files of a model that are made to take much memory: it stays within a small multiple of the file. Files that are
//! damaged at random are in `fuzz.rs`.
#![allow(clippy::unwrap_used)] // as in tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use inkstone::pipeline::{OpenOptions, Pipeline};
use inkstone::weights::lora::LoraSource;
use inkstone::weights::{Component, ModelFiles, ModelSource, ReadOptions, SafeTensors};
use inkstone_tensor::{AlignedBuffer, DType, Device};
use peak_alloc::PeakAlloc;

#[allow(dead_code)] // the other tests need more of it
#[path = "faults/dir.rs"]
mod dir;

use dir::{Dir, WEIGHTS, device};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What a file at every limit may take (row 3 of the table).
const MOST_BYTES: usize = 100_000_000;

/// Peak of what a call allocates beyond what was there before.
fn peak_bytes(call: impl FnOnce()) -> usize {
    ALLOCATOR.reset_peak_usage();
    AlignedBuffer::reset_mapped_peak();
    let before = ALLOCATOR.current_usage() + AlignedBuffer::mapped_bytes();
    call();
    // Large buffers are no allocator's. The sum of both peaks is at least the peak of both.
    ALLOCATOR.peak_usage() + AlignedBuffer::mapped_peak_bytes() - before
}

/// The golden model with its transformer behind an index.
fn sharded(dir: &Dir) -> ModelSource {
    let root = &dir.0;
    let names = SafeTensors::open(&root.join(WEIGHTS), &device(), Default::default()).unwrap().tensors;
    let map: BTreeMap<&String, &str> = names.keys().map(|name| (name, "shard.safetensors")).collect();
    fs::rename(root.join(WEIGHTS), root.join("transformer/shard.safetensors")).unwrap();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(root.join(format!("{WEIGHTS}.index.json")), index).unwrap();
    ModelSource::Folder(root.clone())
}

/// Everything that reads a file of the model, as far as it gets.
fn read_all(source: &ModelSource, device: &Device) -> Result<(), inkstone::Error> {
    let files = ModelFiles::open(source, ReadOptions::default())?;
    files.tokenizer()?;
    files.loader(Component::Transformer, device, DType::F32)?;
    inkstone::models::qwen_image::Config::from_json(files.json("transformer/config.json")?)?;
    inkstone::models::qwen_vae::Config::from_json(files.json("vae/config.json")?)?;
    inkstone::sample::schedule::SchedulerConfig::from_json(files.json("scheduler/scheduler_config.json")?)?;
    Ok(())
}

fn largest_json(dir: &Dir) {
    let (root, source, device) = (&dir.0, sharded(dir), device());
    read_all(&source, &device).unwrap();
    // What tries to take most for its size: many of the smallest values.
    let many = |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(",");
    let zeros = format!("{{\"x\":[{}]}}", many(400_000, &|_| "0".into()));
    let keys = format!("{{{}}}", many(100_000, &|i| format!("\"{i}\":0")));
    let index =
        format!("{{\"weight_map\":{{{}}}}}", many(1_000_000, &|i| format!("\"{i}\":\"s.safetensors\"")));
    let vocab = many(1_500_000, &|i| format!("\"{i}\":{i}"));
    let tokenizer = format!("{{\"model\":{{\"type\":\"BPE\",\"vocab\":{{{vocab}}},\"merges\":[]}}}}");
    for (name, content) in [
        ("vae/config.json", zeros),
        ("vae/config.json", keys),
        ("transformer/diffusion_pytorch_model.safetensors.index.json", index[..15_000_000].to_owned()),
        ("tokenizer/tokenizer.json", tokenizer[..20_000_000].to_owned()),
    ] {
        let sound = fs::read(root.join(name)).unwrap();
        fs::write(root.join(name), &content).unwrap();
        let start = Instant::now();
        let peak = peak_bytes(|| assert!(read_all(&source, &device).is_err()));
        assert!(peak <= content.len() + MOST_BYTES, "{name}: {peak} bytes");
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
        fs::write(root.join(name), sound).unwrap();
    }
}

/// A header at the limits of size and count.
fn largest_header() {
    let entry =
        |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[{i},{}]}}", i + 1);
    let mut header = format!("{{{}", (0..99_999).map(entry).collect::<Vec<_>>().join(","));
    header.push_str(&format!(
        ",\"last\":{{\"dtype\":\"U8\",\"shape\":[{}1],\"data_offsets\":[0,0]}}}}",
        "1,".repeat(9_000_000)
    ));
    assert!(header.len() < 25_000_000);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + 99_999, 0);
    let peak = peak_bytes(|| {
        SafeTensors::from_bytes(Path::new("x.safetensors"), &bytes, &device()).unwrap_err();
    });
    assert!(peak <= MOST_BYTES, "{peak} bytes");
}

/// What counts here counts buffers of all sizes.
fn large_buffers_count() {
    for bytes in [1000, 100 << 10, 1 << 20, 1 << 30] {
        let peak = peak_bytes(|| drop(AlignedBuffer::zeroed(bytes).unwrap()));
        assert!((bytes..=bytes + 4096).contains(&peak), "{bytes} bytes count as {peak}");
    }
}

/// A LoRA of 512 MiB, a hole on the disk. Its head alone is read where it does not fit, and all of it once where it is used
/// three times.
fn loras() {
    const FILE_BYTES: usize = 512 << 20;
    let dir = Dir::empty("lora-memory");
    let path = dir.0.join("large.safetensors");
    let down = FILE_BYTES - 64 * 16 * 2;
    let header = serde_json::json!({
        "transformer_blocks.0.attn.to_q.lora_down.weight":
            {"dtype": "BF16", "shape": [16, down / 32], "data_offsets": [0, down]},
        "transformer_blocks.0.attn.to_q.lora_up.weight":
            {"dtype": "BF16", "shape": [64, 16], "data_offsets": [down, FILE_BYTES]},
    })
    .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    fs::write(&path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len((bytes.len() + FILE_BYTES) as u64).unwrap();
    let open = |max_memory_bytes| {
        let loras = vec![LoraSource { path: path.clone(), scale: 1.0 }; 3];
        let options = OpenOptions { loras, max_memory_bytes, threads: Some(1), ..OpenOptions::default() };
        Pipeline::open(&ModelSource::Embedded, &options)
    };
    let peak = peak_bytes(|| {
        let error = open(Some(400 << 20)).unwrap_err();
        assert_eq!(error.code(), "INK-0401", "{error}");
    });
    assert!(peak < 16 << 20, "{peak} bytes of a LoRA that does not fit");
    let peak = peak_bytes(|| assert_eq!(open(None).unwrap().loras().len(), 3));
    assert!((FILE_BYTES..FILE_BYTES + (16 << 20)).contains(&peak), "{peak} bytes for one file");
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn files_at_every_limit_take_little_memory() {
    large_buffers_count();
    largest_json(&Dir::model("largest"));
    largest_header();
    loras();
}
