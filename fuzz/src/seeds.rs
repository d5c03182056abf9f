//! Inputs to begin with: small sound files of each kind.

mod lora;

use std::collections::BTreeMap;
use std::fs;

use inkstone::weights::safetensors;
use inkstone_tensor::{DType, Device, Shape, Tensor, cpu, ops};
use serde_json::json;

use super::place::golden;
pub(super) use lora::lora;

fn read(name: &str) -> Vec<u8> {
    fs::read(golden().join(name)).expect("a fixture")
}

fn section(name: &str, content: &[u8]) -> Vec<u8> {
    [b"@", name.as_bytes(), b"\n", content, b"\n"].concat()
}

/// A header of tensors one behind the other, and the bytes that they take: name, type, shape, bytes of an element.
fn header(tensors: &[(&str, &str, &[usize], usize)]) -> (String, usize) {
    let mut end = 0;
    let mut entry = |dtype: &str, shape: &[usize], size: usize| {
        let begin = end;
        end += shape.iter().product::<usize>() * size;
        json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]})
    };
    let entries =
        tensors.iter().map(|(name, dtype, shape, size)| ((*name).into(), entry(dtype, shape, *size)));
    let header = serde_json::Value::Object(entries.collect()).to_string();
    (header, end)
}

/// A file of these tensors with values that are all alike.
fn file(tensors: &[(&str, &[usize])], metadata: &[(&str, &str)], dtype: DType) -> Vec<u8> {
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).expect("a processor");
    let tensor = |dims: &[usize]| {
        let shape = Shape::new(dims).expect("a shape");
        let values = Tensor::from_f32(&device, &vec![0.5; shape.count()], shape).expect("memory");
        ops::convert(&values, dtype).expect("memory")
    };
    let tensors: BTreeMap<_, _> =
        tensors.iter().map(|(name, dims)| ((*name).to_owned(), tensor(dims))).collect();
    let note = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    safetensors::serialize(&tensors, &metadata.iter().map(note).collect())
}

/// A file in the form of [`super::input::framed`]: header, NUL, data.
fn unframed(file: &[u8]) -> Vec<u8> {
    let (length, rest) = file.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("a header"));
    [header, b"\0", data].concat()
}

pub(super) fn safetensors() -> Vec<Vec<u8>> {
    let notes = [("format", "pt")];
    let small =
        file(&[("a", &[]), ("b.0.weight", &[3, 2]), ("c", &[0]), ("d", &[1, 2, 1, 2])], &notes, DType::Bf16);
    let types = ["F32", "BF16", "F16", "U8", "I64", "F8_E4M3", "F64", "I32", "BOOL", "C64"];
    let sizes = [4, 2, 2, 1, 8, 1, 8, 4, 1, 8];
    let names: Vec<String> = (0..types.len()).map(|i| format!("t{i}")).collect();
    let tensors: Vec<_> =
        (0..types.len()).map(|i| (names[i].as_str(), types[i], &[2][..], sizes[i])).collect();
    let (header, bytes) = header(&tensors);
    let typed = [header.as_bytes(), &vec![0; bytes + 1]].concat();
    let pickle = b"PK\x03\x04archive/data.pkl".to_vec();
    vec![unframed(&small), small, typed, pickle, b"\x80\x02}q\x00.".to_vec(), b"<!doctype html>".to_vec()]
}

pub(super) fn model() -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "transformer/config.json",
        "text_encoder/config.json",
        "vae/config.json",
    ]
    .iter()
    .map(|name| section(name, &read(&format!("qwen_tiny/{name}"))))
    .collect();
    out.push(out.concat());
    let (header, bytes) =
        header(&[("img_in.weight", "BF16", &[64, 64], 2), ("img_in.bias", "F32", &[64], 4)]);
    let index = br#"{"metadata":{"total_size":1},"weight_map":{"img_in.weight":"a.safetensors","img_in.bias":"a.safetensors"}}"#;
    let shard = format!("transformer/a.safetensors {bytes}");
    let parts = [
        section("transformer/diffusion_pytorch_model.safetensors.index.json", index),
        section(&shard, header.as_bytes()),
    ];
    out.push(parts.concat());
    let lone = format!("vae/diffusion_pytorch_model.safetensors {bytes}");
    out.push(section(&lone, header.as_bytes()));
    out.push(Vec::new());
    out
}

/// A GGUF file of one matrix `x256.weight` in a format: its number, and the bytes of the data.
fn gguf_of(kind: u32, data_bytes: usize) -> Vec<u8> {
    let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    let mut out = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &3u64.to_le_bytes()].concat();
    let (string, list, u32_value) = (8u32.to_le_bytes(), 9u32.to_le_bytes(), 4u32.to_le_bytes());
    out.extend([&text(b"general.architecture")[..], &string, &text(b"qwen_image")].concat());
    out.extend([&text(b"general.alignment")[..], &u32_value, &32u32.to_le_bytes()].concat());
    let tokens = [&list[..], &string, &2u64.to_le_bytes(), &text(b"a"), &text(b"bc")].concat();
    out.extend([&text(b"tokenizer.ggml.tokens")[..], &tokens].concat());
    let dims = [&2u32.to_le_bytes()[..], &256u64.to_le_bytes(), &4u64.to_le_bytes()].concat();
    out.extend([&text(b"x256.weight")[..], &dims, &kind.to_le_bytes(), &0u64.to_le_bytes()].concat());
    out.resize(out.len().next_multiple_of(32) + data_bytes, 0x3c);
    out
}

pub(super) fn gguf() -> Vec<Vec<u8>> {
    // The number of a type, values of a block and its bytes: f32, f16, bf16, then q4_0 .. q8_0, q2_K .. q6_K, iq4_nl.
    let kinds = [
        (0, 1, 4),
        (1, 1, 2),
        (30, 1, 2),
        (2, 32, 18),
        (3, 32, 20),
        (6, 32, 22),
        (7, 32, 24),
        (8, 32, 34),
        (10, 256, 84),
        (11, 256, 110),
        (12, 256, 144),
        (13, 256, 176),
        (14, 256, 210),
        (20, 32, 18),
    ];
    let mut out: Vec<Vec<u8>> =
        kinds.iter().map(|(kind, len, size)| gguf_of(*kind, 1024 / len * size)).collect();
    out.extend([read("gguf/qwen_tiny_q4_K.gguf"), read("formats/text_encoder.gguf"), gguf_tables()]);
    out.push(gguf_noted());
    out
}

/// A matrix of narrower rows than a block of q4_K, which lies there in another shape.
fn gguf_noted() -> Vec<u8> {
    let text = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    let mut out = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &1u64.to_le_bytes()].concat();
    let (list, i32_value, q4_k) = (9u32.to_le_bytes(), 5u32.to_le_bytes(), 12u32.to_le_bytes());
    let shape = [4i32.to_le_bytes(), 128i32.to_le_bytes()].concat();
    let noted = [&list[..], &i32_value, &2u64.to_le_bytes(), &shape].concat();
    out.extend([&text(b"comfy.gguf.orig_shape.x128.weight")[..], &noted].concat());
    let dims = [&2u32.to_le_bytes()[..], &256u64.to_le_bytes(), &2u64.to_le_bytes()].concat();
    out.extend([&text(b"x128.weight")[..], &dims, &q4_k, &0u64.to_le_bytes()].concat());
    out.resize(out.len().next_multiple_of(32) + 2 * 144, 0x3c);
    out
}

/// A text encoder of no layers to speak of, with a tokenizer's tables.
fn gguf_tables() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let list = |kind: u32, values: Vec<Vec<u8>>| {
        [
            9u32.to_le_bytes().to_vec(),
            kind.to_le_bytes().to_vec(),
            (values.len() as u64).to_le_bytes().to_vec(),
        ]
        .into_iter()
        .chain(values)
        .collect::<Vec<_>>()
        .concat()
    };
    let word = |text_value: &str| [8u32.to_le_bytes().to_vec(), text(text_value)].concat();
    let texts = |values: &[&str]| list(8, values.iter().map(|value| text(value)).collect());
    let types = list(5, [1i32, 1, 1, 3, 4, 5].iter().map(|kind| kind.to_le_bytes().to_vec()).collect());
    let number = |value: u32| [4u32.to_le_bytes(), value.to_le_bytes()].concat();
    let pairs = [
        ("general.architecture", word("qwen2vl")),
        ("qwen2vl.attention.head_count", number(1)),
        ("tokenizer.ggml.model", word("gpt2")),
        ("tokenizer.ggml.pre", word("qwen2")),
        ("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "<|im_end|>", "[PAD4]", "[PAD5]"])),
        ("tokenizer.ggml.token_type", types),
        ("tokenizer.ggml.merges", texts(&["a b"])),
    ];
    let tensors: [(&str, &[u64]); 6] = [
        ("token_embd.weight", &[4, 6]),
        ("output_norm.weight", &[4]),
        ("blk.0.attn_q.weight", &[4, 4]),
        ("blk.0.attn_k.weight", &[4, 4]),
        ("blk.0.attn_norm.weight", &[4]),
        ("blk.0.ffn_gate.weight", &[4, 8]),
    ];
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        out.extend([text(key), value].concat());
    }
    let mut end = 0u64;
    for (name, dims) in tensors {
        out.extend(text(name));
        out.extend(u32::try_from(dims.len()).expect("few").to_le_bytes());
        dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
        out.extend(0u32.to_le_bytes());
        out.extend(end.to_le_bytes());
        end = (end + 4 * dims.iter().product::<u64>()).next_multiple_of(32);
    }
    let end = usize::try_from(end).expect("few");
    out.resize(out.len().next_multiple_of(32) + end, 0x3c);
    out
}

pub(super) fn packed() -> Vec<Vec<u8>> {
    let name = |bytes: usize| format!("x.safetensors {bytes}");
    let file = |tensors: &[(&str, &str, &[usize], usize)]| {
        let (header, bytes) = header(tensors);
        section(&name(bytes), header.as_bytes())
    };
    let affine = |words: usize, groups: usize| {
        file(&[
            ("x128.weight", "U32", &[4, words], 4),
            ("x128.scales", "BF16", &[4, groups], 2),
            ("x128.biases", "BF16", &[4, groups], 2),
        ])
    };
    let config: serde_json::Value =
        serde_json::from_slice(&read("qwen_tiny/transformer/config.json")).expect("a config");
    let noted = |note: serde_json::Value| {
        let mut config = config.clone();
        config["quantization_config"] = note;
        section("transformer/config.json", config.to_string().as_bytes())
    };
    let float8 = |dtype: &'static str, scale: &[usize]| {
        file(&[
            ("x256.weight", dtype, &[4, 256], 1),
            ("x256.scale_weight", "F32", scale, 4),
            ("scaled_fp8", dtype, &[2], 1),
        ])
    };
    let convrot = |note: serde_json::Value| {
        let (header, bytes) =
            header(&[("x256.weight", "I8", &[4, 256], 1), ("x256.weight_scale", "F32", &[4, 1], 4)]);
        let notes = json!({"layers": {"x256": note}}).to_string();
        let metadata = json!({"_quantization_metadata": notes});
        let header = header.replacen('{', &format!(r#"{{"__metadata__":{metadata},"#), 1);
        section(&name(bytes), header.as_bytes())
    };
    // A note of the layer's own, in front of what it tells of.
    let own_note = |note: serde_json::Value, scale: &[usize]| {
        let note = note.to_string();
        let (header, bytes) = header(&[
            ("x256.comfy_quant", "U8", &[note.len()], 1),
            ("x256.weight", "I8", &[4, 256], 1),
            ("x256.weight_scale", "F32", scale, 4),
        ]);
        section(&name(bytes), &[header.as_bytes(), b"\0", note.as_bytes()].concat())
    };
    vec![
        own_note(json!({"format": "int8_tensorwise", "convrot": true}), &[4, 1]),
        own_note(json!({"format": "int8_tensorwise"}), &[]),
        own_note(json!({"format": "float8_e4m3fn"}), &[4]),
        convrot(json!({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 64})),
        convrot(json!({"format": "int8_tensorwise", "params": {"convrot": true}})),
        affine(16, 2),
        affine(32, 4),
        affine(12, 1),
        float8("F8_E4M3", &[]),
        float8("F8_E5M2", &[4, 1]),
        file(&[("x128.weight", "U8", &[4, 128], 1), ("x128.scales", "F32", &[4], 4)]),
        [noted(json!({"group_size": 64, "bits": 4})), affine(16, 2)].concat(),
        noted(json!({"quant_method": "gptq", "bits": 4})),
        Vec::new(),
    ]
}

pub(super) fn tokenizer() -> Vec<Vec<u8>> {
    let whole = read("qwen_tiny/tokenizer/tokenizer.json");
    let parts = ["vocab.json", "merges.txt", "tokenizer_config.json"]
        .map(|name| section(&format!("tokenizer/{name}"), &read(&format!("qwen_tiny/tokenizer/{name}"))));
    let mut small: serde_json::Value = serde_json::from_slice(&whole).expect("a tokenizer");
    small["model"]["vocab"] = json!({"a": 0, "b": 1, "ab": 2});
    small["model"]["merges"] = json!(["a b"]);
    small["added_tokens"] = json!([]);
    let section = |text: &[u8]| section("tokenizer/tokenizer.json", text);
    let changed = |field: &str, value: serde_json::Value| {
        let mut changed = small.clone();
        changed["model"][field] = value;
        section(changed.to_string().as_bytes())
    };
    vec![
        section(&whole),
        parts.concat(),
        section(small.to_string().as_bytes()),
        changed("merges", json!([["a", "b"], ["ab", "ab"]])),
        changed("continuing_subword_prefix", json!("##")),
        Vec::new(),
    ]
}
