//! A model with heads of the real size and little else, in the layouts of several programs. All weights are bf16, so that no
//! layout changes a value.

use std::collections::BTreeMap;
use std::path::PathBuf;

use inkstone::weights::{Residence, SafeTensors};
use inkstone_tensor::{DType, Shape, Tensor, ops};

use crate::files::{Dir, Gguf, device, golden, json, renamed};

/// Width of the transformer: one head.
const WIDTH: usize = 128;
/// Width of the text encoder: two heads, which share keys and values.
const HIDDEN: usize = 256;
const MIDDLE: usize = 320;
const VOCABULARY: usize = 512;

type Tensors = BTreeMap<String, Tensor>;

/// Tensors of these names and shapes: matrices of the variance `1 / n_in`, norms near 1, biases near 0.
fn random(seed: u32, shapes: &[(String, Vec<usize>)]) -> Tensors {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((state >> 16).to_le_bytes()[0]) / 128.0 - 1.0
    };
    let tensor = |(name, dims): &(String, Vec<usize>)| {
        let (middle, reach) = match dims.as_slice() {
            [_] if name.ends_with(".bias") => (0.0, 0.05),
            [_] => (1.0, 0.2),
            _ => (0.0, (3.0 / f32::from(u16::try_from(dims[1]).unwrap())).sqrt()),
        };
        let shape = Shape::new(dims).unwrap();
        let values: Vec<f32> = (0..shape.count()).map(|_| middle + reach * next()).collect();
        let values = Tensor::from_f32(&device(), &values, shape).unwrap();
        (name.clone(), ops::convert(&values, DType::Bf16).unwrap())
    };
    shapes.iter().map(tensor).collect()
}

/// A linear layer with a bias.
fn linear(name: &str, n_out: usize, n_in: usize) -> [(String, Vec<usize>); 2] {
    [(format!("{name}.weight"), vec![n_out, n_in]), (format!("{name}.bias"), vec![n_out])]
}

fn transformer() -> Tensors {
    let mut shapes = vec![("txt_norm.weight".into(), vec![HIDDEN])];
    for (name, n_out, n_in) in [
        ("img_in", WIDTH, 64),
        ("txt_in", WIDTH, HIDDEN),
        ("time_text_embed.timestep_embedder.linear_1", WIDTH, 256),
        ("time_text_embed.timestep_embedder.linear_2", WIDTH, WIDTH),
        ("norm_out.linear", 2 * WIDTH, WIDTH),
        ("proj_out", 64, WIDTH),
    ] {
        shapes.extend(linear(name, n_out, n_in));
    }
    for block in 0..2 {
        let name = |layer: &str| format!("transformer_blocks.{block}.{layer}");
        for stream in ["img", "txt"] {
            shapes.extend(linear(&name(&format!("{stream}_mod.1")), 6 * WIDTH, WIDTH));
            shapes.extend(linear(&name(&format!("{stream}_mlp.net.0.proj")), 4 * WIDTH, WIDTH));
            shapes.extend(linear(&name(&format!("{stream}_mlp.net.2")), WIDTH, 4 * WIDTH));
        }
        for layer in
            ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out"]
        {
            shapes.extend(linear(&name(&format!("attn.{layer}")), WIDTH, WIDTH));
        }
        for norm in ["norm_q", "norm_k", "norm_added_q", "norm_added_k"] {
            shapes.push((name(&format!("attn.{norm}.weight")), vec![WIDTH]));
        }
    }
    random(1, &shapes)
}

fn text_encoder() -> Tensors {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..2 {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, n_out) in [("q_proj", HIDDEN), ("k_proj", HIDDEN / 2), ("v_proj", HIDDEN / 2)] {
            shapes.extend(linear(&name(&format!("self_attn.{part}")), n_out, HIDDEN));
        }
        shapes.push((name("self_attn.o_proj.weight"), vec![HIDDEN, HIDDEN]));
        shapes.push((name("mlp.gate_proj.weight"), vec![MIDDLE, HIDDEN]));
        shapes.push((name("mlp.up_proj.weight"), vec![MIDDLE, HIDDEN]));
        shapes.push((name("mlp.down_proj.weight"), vec![HIDDEN, MIDDLE]));
        shapes.push((name("input_layernorm.weight"), vec![HIDDEN]));
        shapes.push((name("post_attention_layernorm.weight"), vec![HIDDEN]));
    }
    random(2, &shapes)
}

fn vae() -> Tensors {
    let path = golden("qwen_tiny/vae/diffusion_pytorch_model.safetensors");
    SafeTensors::open(&path, &device(), Residence::Owned).unwrap().tensors
}

/// The model as diffusers lays it out.
pub(crate) fn folder(dir: &Dir) -> PathBuf {
    let own = |name: &str| name.to_owned();
    dir.write("model/transformer/diffusion_pytorch_model.safetensors", renamed(&transformer(), own));
    dir.write("model/text_encoder/model.safetensors", renamed(&text_encoder(), own));
    dir.write("model/vae/diffusion_pytorch_model.safetensors", renamed(&vae(), own));
    for name in
        ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json", "vae/config.json"]
    {
        dir.write(&format!("model/{name}"), std::fs::read(golden("qwen_tiny").join(name)).unwrap());
    }
    let transformer = serde_json::json!({
        "_class_name": "QwenImageTransformer2DModel", "num_layers": 2, "num_attention_heads": 1,
        "attention_head_dim": WIDTH, "axes_dims_rope": [16, 56, 56], "joint_attention_dim": HIDDEN,
        "in_channels": 64, "out_channels": 16, "patch_size": 2,
    });
    dir.write("model/transformer/config.json", transformer.to_string());
    let encoder = serde_json::json!({
        "model_type": "qwen2_5_vl", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "intermediate_size": MIDDLE, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    });
    dir.write("model/text_encoder/config.json", encoder.to_string());
    dir.0.join("model")
}

/// The transformer as ComfyUI saves it.
pub(crate) fn comfy_transformer(dir: &Dir) -> PathBuf {
    dir.write("comfy.safetensors", renamed(&transformer(), |name| format!("model.diffusion_model.{name}")))
}

/// The text encoder alone, without a tokenizer.
pub(crate) fn comfy_encoder(dir: &Dir) -> PathBuf {
    dir.write("encoder.safetensors", renamed(&text_encoder(), str::to_owned))
}

/// The VAE under Wan's names.
pub(crate) fn wan_vae(dir: &Dir) -> PathBuf {
    let wan = table("wan_vae");
    dir.write("wan.safetensors", renamed(&vae(), |name| wan[name].clone()))
}

/// All three in one file; its name.
pub(crate) fn whole(dir: &Dir) -> String {
    let prefixed = |prefix: &str, tensors: Tensors| {
        tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect::<Tensors>()
    };
    let mut all = prefixed("model.diffusion_model.", transformer());
    all.extend(prefixed("text_encoders.qwen25_7b.transformer.", text_encoder()));
    all.extend(prefixed("vae.", vae()));
    dir.write("whole.safetensors", renamed(&all, str::to_owned));
    "whole.safetensors".into()
}

/// The model as mflux saves it: no configs, shards with an index for every part.
pub(crate) fn mflux(dir: &Dir) -> PathBuf {
    let transformer_names = table("mflux_transformer");
    let vae = std::fs::read(golden("formats/vae_mflux.safetensors")).unwrap();
    let vae = SafeTensors::from_bytes("vae".as_ref(), &vae, &device()).unwrap().tensors;
    let parts = [
        (
            "transformer",
            transformer(),
            &(|name: &str| transformer_names[name].clone()) as &dyn Fn(&str) -> String,
        ),
        ("text_encoder", text_encoder(), &|name| name.replacen("model.", "encoder.", 1)),
        ("vae", vae, &str::to_owned),
    ];
    for (part, tensors, name) in parts {
        let file = dir.write(&format!("mflux/{part}/0.safetensors"), renamed(&tensors, name));
        let names: BTreeMap<String, &str> =
            tensors.keys().map(|old| (name(old), file.file_name().unwrap().to_str().unwrap())).collect();
        let index = serde_json::json!({"metadata": {"quantization_level": "None"}, "weight_map": names});
        dir.write(&format!("mflux/{part}/model.safetensors.index.json"), index.to_string());
    }
    let tokenizer = std::fs::read(golden("qwen_tiny/tokenizer/tokenizer.json")).unwrap();
    dir.write("mflux/tokenizer/tokenizer.json", tokenizer);
    dir.0.join("mflux")
}

/// Other programs' names by ours.
fn table(name: &str) -> BTreeMap<String, String> {
    let pairs: Vec<(String, String)> = serde_json::from_value(json("names.json")[name].clone()).unwrap();
    pairs.into_iter().map(|(theirs, ours)| (ours, theirs)).collect()
}

/// The tables of the tokenizer as llama.cpp writes them.
pub(crate) struct Tables {
    pub(crate) architecture: &'static str,
    pub(crate) model: &'static str,
    pub(crate) split: &'static str,
    pub(crate) tokens: Vec<String>,
    pub(crate) types: Vec<i32>,
    pub(crate) merges: Vec<String>,
}

impl Default for Tables {
    fn default() -> Self {
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        const USER_DEFINED: i32 = 4;
        let file = json("qwen_tiny/tokenizer/tokenizer.json");
        // What no token has is filled up, once in the old way and then in the new one.
        let mut tokens: Vec<String> = (0..VOCABULARY).map(|id| format!("[PAD{id}]")).collect();
        let mut types = [vec![USER_DEFINED; VOCABULARY / 2], vec![5; VOCABULARY / 2]].concat();
        let mut set = |id: &serde_json::Value, token: &str, kind: i32| {
            let id = usize::try_from(id.as_u64().unwrap()).unwrap();
            token.clone_into(&mut tokens[id]);
            types[id] = kind;
        };
        for (token, id) in file["model"]["vocab"].as_object().unwrap() {
            set(id, token, NORMAL);
        }
        for token in file["added_tokens"].as_array().unwrap() {
            let kind = if token["special"] == true { CONTROL } else { USER_DEFINED };
            set(&token["id"], token["content"].as_str().unwrap(), kind);
        }
        let merge = |merge: &serde_json::Value| match merge.as_array() {
            Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            None => merge.as_str().unwrap().to_owned(),
        };
        let merges = file["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
        Self { architecture: "qwen2vl", model: "gpt2", split: "qwen2", tokens, types, merges }
    }
}

/// The text encoder as llama.cpp converts it.
pub(crate) fn gguf_encoder(dir: &Dir, tables: &Tables) -> PathBuf {
    dir.write("encoder.gguf", gguf_head(tables).file(&gguf_tensors()))
}

/// The same as llama-gguf-split takes it apart: the first part has the tables, the others nothing but their place.
pub(crate) fn split_encoder(dir: &Dir, names: [&str; 3]) -> [PathBuf; 3] {
    let tensors = gguf_tensors();
    let place = |head: Gguf, place: u32| {
        head.number("split.no", place).number("split.count", 3).number("split.tensors.count", 26)
    };
    let second: Tensors = tensors.clone().into_iter().filter(|(name, _)| name.contains("blk.0")).collect();
    let third: Tensors = tensors.into_iter().filter(|(name, _)| !name.contains("blk.0")).collect();
    let files = [
        place(gguf_head(&Tables::default()), 0).file(&Tensors::new()),
        place(Gguf::default(), 1).file(&second),
        place(Gguf::default(), 2).file(&third),
    ];
    let mut files = files.iter();
    names.map(|name| dir.write(name, files.next().unwrap()))
}

fn gguf_tensors() -> Tensors {
    let llama = table("llama_cpp");
    text_encoder().into_iter().map(|(name, tensor)| (llama[&name].clone(), tensor)).collect()
}

fn gguf_head(tables: &Tables) -> Gguf {
    Gguf::default()
        .text("general.architecture", tables.architecture)
        .number(&format!("{}.attention.head_count", tables.architecture), 2)
        .number(&format!("{}.attention.head_count_kv", tables.architecture), 1)
        .text("tokenizer.ggml.model", tables.model)
        .text("tokenizer.ggml.pre", tables.split)
        .texts("tokenizer.ggml.tokens", &tables.tokens)
        .numbers("tokenizer.ggml.token_type", &tables.types)
        .texts("tokenizer.ggml.merges", &tables.merges)
}

/// A part of the folder that [`folder`] made in three files, the first of which holds its norms, with an index.
pub(crate) fn shards(dir: &Dir, part: &str, name: &str, index: &str) -> [PathBuf; 3] {
    let file = if part == "text_encoder" { "model" } else { "diffusion_pytorch_model" };
    let path = dir.0.join(format!("model/{part}/{file}.safetensors"));
    let whole = SafeTensors::open(&path, &device(), Residence::Owned).unwrap().tensors;
    std::fs::remove_file(path).unwrap();
    let place = |name: &str| if name.contains("norm") { 1 } else { 2 + name.len() % 2 };
    let file = |number: usize| format!("{name}-{number:05}-of-00003.safetensors");
    let map: BTreeMap<&String, String> = whole.keys().map(|name| (name, file(place(name)))).collect();
    dir.write(&format!("model/{part}/{index}"), serde_json::json!({"weight_map": map}).to_string());
    [1, 2, 3].map(|number| {
        let own = whole.clone().into_iter().filter(|(name, _)| place(name) == number).collect();
        dir.write(&format!("model/{part}/{}", file(number)), renamed(&own, str::to_owned))
    })
}
