//! Files of a model that are made to take much memory: it stays within a small multiple of the file. Files that are
//! damaged at random are in `fuzz.rs`.
#![allow(clippy::unwrap_used)] // as in tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use inkstone::Request;
use inkstone::pipeline::{OpenOptions, Pipeline};
use inkstone::weights::lora::LoraSource;
use inkstone::weights::{Component, ModelFiles, ModelSource, ReadOptions, SafeTensors};
use inkstone_tensor::{AlignedBuffer, DType, Device, cpu};
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
        let start = cpu::process_seconds();
        let peak = peak_bytes(|| assert!(read_all(&source, &device).is_err()));
        assert!(peak <= content.len() + MOST_BYTES, "{name}: {peak} bytes");
        // A fraction of a second; a busy machine takes longer for it, but its processor hardly does.
        let seconds = start.zip(cpu::process_seconds()).map_or(0.0, |(start, end)| end - start);
        assert!(seconds < 10.0, "{name}: {seconds} s");
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

/// Bytes that this thread has read from files.
#[cfg(target_os = "linux")]
fn read_bytes() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[cfg(not(target_os = "linux"))]
fn read_bytes() -> u64 {
    0 // not told
}

/// A LoRA for the embedded model as large as it can be, 297 MiB, a hole on the disk. Its head alone is read for a plan and
/// where it does not fit, and all of it once where it is used three times.
fn loras() {
    const LAYERS: [(&str, [usize; 2]); 8] = [
        ("attn.to_q", [192, 192]),
        ("attn.to_k", [192, 192]),
        ("attn.to_v", [192, 192]),
        ("attn.add_q_proj", [192, 192]),
        ("attn.add_k_proj", [192, 192]),
        ("attn.add_v_proj", [192, 192]),
        ("img_mlp.net.0.proj", [192, 768]),
        ("img_mlp.net.2", [768, 192]),
    ];
    const RANK: usize = 3072;
    const FILE_BYTES: usize = 6 * RANK * 4 * (6 * 2 * 192 + 2 * (192 + 768));
    let dir = Dir::empty("lora-memory");
    let path = dir.0.join("large.safetensors");
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (block, (layer, [n_in, n_out])) in (0..6).flat_map(|block| LAYERS.map(|layer| (block, layer))) {
        for (part, shape) in [("down", [RANK, n_in]), ("up", [n_out, RANK])] {
            let begin = end;
            end += shape[0] * shape[1] * 4;
            let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
            header.insert(format!("transformer_blocks.{block}.{layer}.lora_{part}.weight"), entry);
        }
    }
    assert_eq!(end, FILE_BYTES);
    let header = serde_json::Value::Object(header).to_string();
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
    let request = Request {
        prompt: "a cat".into(),
        negative_prompt: None,
        width_px: 64,
        height_px: 64,
        steps: 1,
        seed: 0,
        true_cfg_scale: 1.0,
        init: None,
    };
    let requests = std::slice::from_ref(&request);
    let (before, mut planned) = (read_bytes(), 0);
    let peak = peak_bytes(|| {
        let pipeline = open(Some(200 << 20)).unwrap();
        let plan = pipeline.forecast(requests).unwrap().remove(0);
        planned = plan.forecast.memory.resident_bytes();
        assert!(plan.refusal.is_some());
        assert_eq!(pipeline.prepare(requests).unwrap_err().code(), "INK-0401");
    });
    let read = read_bytes() - before;
    assert!(peak < FILE_BYTES / 4, "{peak} bytes for the plan of a LoRA that does not fit");
    assert!(read < 1 << 20, "{read} bytes were read for the plan");
    let without = Pipeline::open(&ModelSource::Embedded, &OpenOptions::default()).unwrap();
    let without = without.forecast(requests).unwrap().remove(0).forecast.memory.resident_bytes();
    let planned = usize::try_from(planned - without).unwrap();
    assert!(
        (FILE_BYTES..FILE_BYTES * 11 / 10).contains(&planned),
        "{planned} bytes are planned for one file"
    );
    let peak = peak_bytes(|| {
        open(None).unwrap().prepare(requests).unwrap();
    });
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
