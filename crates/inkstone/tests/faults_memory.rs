//! Files of a model that were damaged at random, or made to take much memory: no panic, no hang, memory within a
//! small multiple of the file.
#![allow(clippy::unwrap_used)] // as in tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use inkstone::weights::{Component, ModelFiles, ModelSource, ReadOptions, SafeTensors, safetensors};
use inkstone_tensor::{DType, Device, Shape, Tensor};
use peak_alloc::PeakAlloc;

#[allow(dead_code)] // the other tests need more of it
#[path = "faults/dir.rs"]
mod dir;

use dir::{Dir, WEIGHTS, device};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What an error, a path and the model's own small things take beside a file's content.
const SLACK_BYTES: usize = 64 << 10;
/// What a file at every limit may take (row 3 of the table).
const MOST_BYTES: usize = 100_000_000;

/// Peak of what a call allocates beyond what was there before.
fn peak_bytes(call: impl FnOnce()) -> usize {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    call();
    ALLOCATOR.peak_usage() - before
}

/// Xorshift: the same damage on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// Bytes with one to four faults in them.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        const WORDS: [&str; 20] = [
            "18446744073709551615",
            "9223372036854775808",
            "-1",
            "0",
            "1e999",
            "1.5",
            "\"",
            "\\",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\\u0000",
            "null",
            "[0,0]",
            "\"F64\"",
            "../../x",
            "\u{feff}",
        ];
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len());
            let to = (at + self.below(40)).min(out.len());
            match self.below(6) {
                0 if at < out.len() => out[at] ^= 1 << self.below(8),
                1 => out.truncate(at),
                2 => drop(out.drain(at..to)),
                3 => {
                    let copy = out[at..to].to_vec();
                    out.splice(at..at, copy);
                }
                4 => drop(out.splice(at..to, WORDS[self.below(WORDS.len())].bytes())),
                // Numbers in the text become others.
                _ => {
                    let digit = out.iter().skip(at).position(u8::is_ascii_digit);
                    if let Some(digit) = digit {
                        out[at + digit] = b'0' + u8::try_from(self.below(10)).unwrap();
                    }
                }
            }
        }
        out
    }
}

fn damaged_safetensors(random: &mut Random) {
    let device = device();
    let tensor =
        |values: usize| Tensor::from_f32(&device, &vec![0.5; values], Shape::vector(values)).unwrap();
    let tensors: BTreeMap<String, Tensor> =
        (0..6).map(|i| (format!("block.{i}.weight"), tensor(i * 3))).collect();
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let sound = safetensors::serialize(&tensors, &metadata);
    let mut accepted = 0;
    for _ in 0..3_000 {
        let bytes = random.damage(&sound);
        let peak = peak_bytes(|| {
            let read = SafeTensors::from_bytes(Path::new("x.safetensors"), &bytes, &device);
            accepted += usize::from(read.is_ok());
        });
        assert!(peak <= 4 * bytes.len() + SLACK_BYTES, "{peak} bytes for {}", bytes.len());
    }
    assert!((1..3_000).contains(&accepted), "damage in the data is accepted, most other is not: {accepted}");
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

fn damaged_json(random: &mut Random, dir: &Dir) {
    let (root, source, device) = (&dir.0, sharded(dir), device());
    read_all(&source, &device).unwrap();
    let usual = peak_bytes(|| read_all(&source, &device).unwrap());
    for name in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "transformer/config.json",
        "vae/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "tokenizer/tokenizer.json",
    ] {
        let sound = fs::read(root.join(name)).unwrap();
        for _ in 0..50 {
            let bytes = random.damage(&sound);
            fs::write(root.join(name), &bytes).unwrap();
            let peak = peak_bytes(|| drop(read_all(&source, &device)));
            assert!(
                peak <= usual + 4 * bytes.len() + SLACK_BYTES,
                "{name}: {peak} bytes for {}",
                bytes.len()
            );
        }
        fs::write(root.join(name), sound).unwrap();
    }
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

/// One test, so that nothing else allocates meanwhile.
#[test]
fn damaged_files_take_little_memory_and_never_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    damaged_safetensors(&mut random);
    damaged_json(&mut random, &Dir::model("damaged"));
    largest_header();
}
