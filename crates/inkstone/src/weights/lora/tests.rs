mod difference;
mod faults;
mod head;
mod loha;
mod lokr;
mod settings;
mod types;

use std::collections::BTreeMap;
use std::path::Path;

use inkstone_tensor::{DType, Device, Shape, Tensor, cpu};

use super::file::lightning_steps;
use super::keys::{self, Dialect, Part};
use super::{Applied, Lora, Pending, SidePath};
use crate::error::LoraProblem;
use crate::weights::Loader;
use crate::weights::safetensors::serialize;
use crate::{Error, Result};

fn device() -> Device {
    Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap()
}

/// A file of these tensors: name, rows, columns (none for a scalar), the value of all elements.
struct Made(tempfile::TempPath);

impl Made {
    fn new(test: &str, tensors: &[(&str, &[usize], f32)], metadata: &[(&str, &str)]) -> Self {
        let device = device();
        let tensor = |dims: &[usize], value: f32| {
            let shape = Shape::new(dims).unwrap();
            Tensor::from_f32(&device, &vec![value; shape.count()], shape).unwrap()
        };
        let tensors = tensors.iter().map(|(name, dims, value)| ((*name).to_owned(), tensor(dims, *value)));
        Self::of(test, &serialize(&tensors.collect(), &notes(metadata)))
    }

    fn of(test: &str, bytes: &[u8]) -> Self {
        let file = tempfile::Builder::new().prefix(test).suffix(".safetensors").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Self(file.into_temp_path())
    }

    /// Tensors under other types: name, type, shape, bytes.
    fn stored(test: &str, tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Self {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, dtype, dims, bytes) in tensors {
            let begin = data.len();
            data.extend_from_slice(bytes);
            let entry =
                serde_json::json!({"dtype": dtype, "shape": dims, "data_offsets": [begin, data.len()]});
            header.insert((*name).to_owned(), entry);
        }
        let header = serde_json::Value::Object(header).to_string();
        let length = (header.len() as u64).to_le_bytes();
        Self::of(test, &[&length[..], header.as_bytes(), &data].concat())
    }

    fn open(&self) -> Result<Lora> {
        Lora::open(&self.0, &device())
    }

    fn problem(&self) -> LoraProblem {
        match self.open().unwrap_err() {
            Error::Lora { problem, .. } => *problem,
            other => panic!("{other}"),
        }
    }
}

fn notes(metadata: &[(&str, &str)]) -> BTreeMap<String, String> {
    metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The paths around a layer of a network whose activations are of this type, at a scale of 0.5.
fn paths(file: &Made, [n_in, n_out]: [usize; 2], activations: DType) -> Result<Vec<SidePath>> {
    let loras = [Applied { lora: file.open()?.into(), scale: 0.5 }];
    let mut loader = Loader::new("transformer", &device(), activations, BTreeMap::new()).with_loras(&loras);
    let paths = loader.side_paths(LAYER, n_in, n_out);
    loader.finish().map(|()| paths)
}

const LAYER: &str = "transformer_blocks.0.attn.to_q";
const ALPHA: &str = "transformer_blocks.0.attn.to_q.alpha";

/// A layer of rank 2 from 4 to 6 with one more tensor.
fn with(test: &str, more: &[(&str, &[usize], f32)]) -> Made {
    let (a, b) = (format!("{LAYER}.lora_A.weight"), format!("{LAYER}.lora_B.weight"));
    let mut tensors: Vec<(&str, &[usize], f32)> = vec![(&a, &[2, 4], 0.5), (&b, &[6, 2], 1.0)];
    tensors.extend(more);
    Made::new(test, &tensors, &[])
}

#[test]
fn names_of_all_dialects_are_read() {
    let cases = [
        ("transformer.a.b.lora_A.weight", Dialect::Diffusers, "a.b", Part::Down),
        ("transformer.a.b.lora.up.weight", Dialect::Diffusers, "a.b", Part::Up),
        ("diffusion_model.a.b.lora_B.weight", Dialect::DiffusionModel, "a.b", Part::Up),
        ("model.diffusion_model.a.lora_down.weight", Dialect::DiffusionModel, "a", Part::Down),
        ("lora_unet_a_b.lora_up.weight", Dialect::Kohya, "a_b", Part::Up),
        ("lora_unet_a_b.alpha", Dialect::Kohya, "a_b", Part::Alpha),
        ("base_model.model.a.b.lora_A.weight", Dialect::Peft, "a.b", Part::Down),
        ("a.b.lora_A.default.weight", Dialect::Plain, "a.b", Part::Down),
        ("a.b.lora_up.default.weight", Dialect::Plain, "a.b", Part::Up),
        ("lora_transformer_a_b.lora_down.weight", Dialect::Kohya, "a_b", Part::Down),
        ("transformer.a.lora_B", Dialect::Diffusers, "a", Part::Up),
        ("transformer.a.b.lora.down.weight", Dialect::Diffusers, "a.b", Part::Down),
        ("base_model.model.a.b.lora_B.my-style_2.weight", Dialect::Peft, "a.b", Part::Up),
        (
            "transformer_blocks.0.attn.to_out.0.lora_down.weight",
            Dialect::Plain,
            "transformer_blocks.0.attn.to_out.0",
            Part::Down,
        ),
    ];
    for (name, dialect, layer, part) in cases {
        assert_eq!(keys::parse(name), Some(keys::Key { dialect, layer, part }), "{name}");
    }
    for name in ["a.weight", "lora_A.weight", "transformer..lora_A.bias", ".alpha", "", "lora_unet_.alpha"] {
        assert_eq!(keys::parse(name), None, "{name:?}");
    }
    // A name of an adapter is a module's, so something stands behind it; an alpha has none.
    for name in ["a.lora_B.bias", "a.lora_A.default", "a.alpha.default", "a.lora_A.x.y.weight"] {
        assert_eq!(keys::parse(name), None, "{name:?}");
    }
}

#[test]
fn a_layer_gets_scale_times_alpha_over_rank() {
    let kohya = with("alpha", &[("transformer_blocks.0.attn.to_q.alpha", &[], 3.0)]);
    let plain = with("no_alpha", &[]);
    let adapter = r#"{"transformer.lora_alpha": 8, "transformer.r": 2, "transformer.use_dora": false}"#;
    let (a, b) = (format!("{LAYER}.lora_A.weight"), format!("{LAYER}.lora_B.weight"));
    let noted =
        Made::new("noted", &[(&a, &[2, 4], 0.5), (&b, &[6, 2], 1.0)], &[("lora_adapter_metadata", adapter)]);
    for (file, want) in [(kohya, 0.5 * 3.0 / 2.0), (plain, 0.5), (noted, 0.5 * 8.0 / 2.0)] {
        let lora = file.open().unwrap().into();
        let mut pending = Pending::from(Applied { lora, scale: 0.5 });
        assert!(pending.layer("transformer_blocks.0.attn.to_k", 4, 6).is_none());
        let path = paths(&file, [4, 6], DType::F32).unwrap().remove(0);
        assert!((path.factor - want).abs() < 1e-6, "{} {want}", path.factor);
        let down = path.down.as_ref().unwrap();
        assert_eq!((down.n_in(), down.n_out(), path.up.n_in(), path.up.n_out()), (4, 2, 2, 6));
        assert!(path.left.is_empty() && path.groups() == 1);
    }
}

#[test]
fn a_folder_of_peft_is_its_weights() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/lora/peft_lokr");
    let (whole, file) = (Lora::open(&folder, &device()), folder.join("adapter_model.safetensors"));
    assert_eq!(whole.unwrap().sha256().unwrap(), Lora::open(&file, &device()).unwrap().sha256().unwrap());
    let error = Lora::open(folder.parent().unwrap(), &device()).unwrap_err();
    assert_eq!(error.code(), "INK-0211");
    assert!(error.to_string().contains("pytorch_lora_weights.safetensors"), "{error}");
}

#[test]
fn lightning_is_told_by_its_name() {
    for (name, steps) in [
        ("Qwen-Image-Lightning-4steps-V1.0.safetensors", Some(4)),
        ("Qwen-Image-Lightning-8steps-V1.1-bf16.safetensors", Some(8)),
        ("qwen_image_lightning_8_steps.safetensors", Some(8)),
        ("Qwen-Image-Edit-Lightning-4-step.safetensors", Some(4)),
        ("Qwen-Image-Lightning.safetensors", None),
        ("lightning-steps.safetensors", None),
        ("my-1000steps.safetensors", None),
        ("lightning-99999999999999999999steps", None),
    ] {
        assert_eq!(lightning_steps(name), steps, "{name}");
    }
}

#[test]
fn a_summary_tells_what_is_in_a_file() {
    let file = with("summary", &[("transformer_blocks.0.attn.to_q.alpha", &[], 3.0)]);
    let summary = file.open().unwrap().summary().unwrap();
    assert_eq!((summary.layers, summary.dialect.as_str(), summary.family), (1, "plain", Some("Qwen-Image")));
    assert_eq!(summary.ranks, BTreeMap::from([(2, 1)]));
    assert_eq!(summary.alphas, BTreeMap::from([("3".to_owned(), 1)]));
    assert_eq!(summary.kinds, BTreeMap::from([("attn.to_q".to_owned(), 1)]));
    assert_eq!(summary.sha256.len(), 64);
}
