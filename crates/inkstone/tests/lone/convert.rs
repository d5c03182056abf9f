//! Files without a folder, parts in place of a folder's, and the embedded model, saved as folders in a smaller format.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use inkstone::Error;
use inkstone::convert::{Existing, Options, Report, convert};
use inkstone::error::PlaceProblem;
use inkstone::progress::{CancelToken, Silent};
use inkstone::weights::lora::LoraSource;
use inkstone::weights::{ModelSource, Parts, Quantization, RandomModel, Residence, SafeTensors, safetensors};
use inkstone_tensor::{DType, Shape, Tensor, ops};

use crate::files::{Dir, device, golden};
use crate::{ids, pixels, pixels_in, tiny};

const ALL: [Quantization; 3] = [Quantization::Int8, Quantization::Q8, Quantization::Q4];
const DIT: &str = "transformer/diffusion_pytorch_model.safetensors";

fn converted_with(source: &ModelSource, to: &Path, options: &Options) -> Result<Report, Error> {
    convert(source, to, options, &CancelToken::default(), &mut Silent)
}

fn options(quantization: Quantization) -> Options {
    let quantization = Some(quantization);
    Options {
        quantization,
        loras: Vec::new(),
        existing: Existing::Refuse,
        threads: Some(2),
        max_memory_bytes: None,
    }
}

fn converted(source: &ModelSource, to: &Path, quantization: Quantization) -> Result<Report, Error> {
    converted_with(source, to, &options(quantization))
}

fn lone(dir: &Dir) -> Parts {
    Parts {
        transformer: Some(tiny::comfy_transformer(dir)),
        text_encoder: Some(tiny::gguf_encoder(dir, &tiny::Tables::default())),
        vae: Some(tiny::wan_vae(dir)),
        tokenizer: None,
    }
}

/// The golden model with other weights for some parts.
fn with_parts(transformer: Option<PathBuf>, text_encoder: Option<PathBuf>) -> ModelSource {
    let parts = Parts { transformer, text_encoder, ..Parts::default() };
    ModelSource::Pieces { folder: golden("qwen_tiny"), parts }
}

fn folder(path: &Path) -> ModelSource {
    ModelSource::Folder(path.to_owned())
}

#[test]
fn lone_files_become_a_folder_that_draws_what_they_draw() {
    let dir = Dir::new("convert-lone");
    let parts = lone(&dir);
    let tokenizer = Some(golden("qwen_tiny/tokenizer/tokenizer.json"));
    let whole = Parts { tokenizer, ..Parts::default() };
    for (source, file) in [
        (ModelSource::Files(parts), "comfy.safetensors"),
        (ModelSource::Pieces { folder: dir.0.join(tiny::whole(&dir)), parts: whole }, "whole.safetensors"),
        // Of the folder that mflux saves everything has other names.
        (ModelSource::Folder(tiny::mflux(&dir)), "transformer/0.safetensors"),
    ] {
        for quantization in ALL {
            let to = dir.0.join("new");
            let report = match (converted(&source, &to, quantization), &source) {
                // Its VAE would have to be turned for that.
                (Err(Error::UnsupportedModel { .. }), ModelSource::Folder(_)) => continue,
                (report, _) => report.unwrap(),
            };
            assert_eq!(pixels(&folder(&to)), pixels_in(&source, Some(quantization)), "{source:?}");
            assert_eq!(ids(&folder(&to)), ids(&source), "{source:?}");
            let transformer = &report.components[1];
            assert_eq!(transformer.sources[0].name, file);
            assert!(transformer.layers.iter().any(|layer| layer.format.is_smaller()));
            assert!(report.components.iter().all(|part| part.copied_as.is_none()));
            fs::remove_dir_all(to).unwrap();
        }
    }
}

#[test]
fn the_embedded_model_becomes_the_folder_that_its_own_becomes() {
    let dir = Dir::new("convert-embedded");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny");
    let [of_program, of_folder] = ["program", "folder"].map(|name| dir.0.join(name));
    let report = converted(&ModelSource::Embedded, &of_program, Quantization::Q4).unwrap();
    assert_eq!(report.components, converted(&folder(&own), &of_folder, Quantization::Q4).unwrap().components);
    for name in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "transformer/config.json",
        DIT,
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ] {
        assert!(
            fs::read(of_program.join(name)).unwrap() == fs::read(of_folder.join(name)).unwrap(),
            "{name}"
        );
    }
}

/// The value of an 8-bit float (OFP8, e4m3): 4 bits of exponent with a bias of 7, 3 of mantissa.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7) / 8.0);
    let size = if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) };
    if byte & 0x80 == 0 { size } else { -size }
}

/// The golden transformer in 8-bit floats, with the same values in f32.
fn widened(dir: &Dir) -> PathBuf {
    let file = golden("formats/transformer_fp8.safetensors");
    let file = SafeTensors::open(&file, &device(), Residence::Mapped).unwrap();
    let part = |name: &str, part: &str| file.tensors.get(&name.replace(".weight", part));
    let wide = |(name, tensor): (&String, &Tensor)| {
        if tensor.dtype() != DType::F8E4m3 {
            return Some((name.clone(), tensor.clone()));
        }
        let scale = part(name, ".scale_weight").or(part(name, ".weight_scale"));
        let floats = |t: &Tensor| {
            let vector = t.clone().reshape(Shape::vector(t.shape().count())).unwrap();
            ops::convert(&vector, DType::F32).unwrap().to_f32().unwrap()
        };
        let scales = scale.map_or(vec![1.0], floats);
        let of_row = |row: usize| if scales.len() == 1 { scales[0] } else { scales[row] };
        let bytes = tensor.to_bytes();
        let values: Vec<f32> =
            bytes.iter().enumerate().map(|(i, b)| e4m3(*b) * of_row(i / tensor.cols())).collect();
        Some((name.clone(), Tensor::from_f32(&device(), &values, *tensor.shape()).unwrap()))
    };
    let beside = ["scale_weight", "weight_scale", "scale_input", "scaled_fp8", "comfy_quant"];
    let tensors = file.tensors.iter().filter(|(name, _)| beside.iter().all(|end| !name.ends_with(end)));
    let tensors: BTreeMap<String, Tensor> = tensors.filter_map(wide).collect();
    dir.write("wide.safetensors", safetensors::serialize(&tensors, &BTreeMap::new()))
}

#[test]
fn floats_of_8_bits_are_weights_like_others() {
    let dir = Dir::new("convert-fp8");
    let fp8 = with_parts(Some(golden("formats/transformer_fp8.safetensors")), None);
    let wide = with_parts(Some(widened(&dir)), None);
    for quantization in ALL {
        let want = pixels_in(&wide, Some(quantization));
        assert!(pixels_in(&fp8, Some(quantization)) == want, "{}", quantization.name());
        let to = dir.0.join(quantization.name());
        let report = converted(&fp8, &to, quantization).unwrap();
        assert!(pixels(&folder(&to)) == want, "{}", quantization.name());
        // What is kept stays in 8 bits, with its scale.
        let file = SafeTensors::open(&to.join(DIT), &device(), Residence::Mapped).unwrap();
        let kept = report.components[1].layers.iter().filter(|layer| !layer.format.is_smaller());
        let kept: Vec<_> =
            kept.map(|layer| file.tensors[&format!("{}.weight", layer.name)].dtype()).collect();
        assert!(kept.contains(&DType::F8E4m3), "{kept:?}");
        let scales = file.tensors.keys().filter(|name| name.contains("scale_input") || name.contains("fp8"));
        assert_eq!(scales.count(), 0);
    }
    let lora = golden("lora/qwen_diffusers.safetensors");
    let loras = vec![LoraSource { path: lora, scale: 0.5 }];
    let with_lora = |quantization, name: &str| {
        let options = Options { quantization, loras: loras.clone(), ..options(Quantization::Q8) };
        converted_with(&fp8, &dir.0.join(name), &options)
    };
    for (quantization, alone, name) in [(Quantization::Q8, "q8", "lora8"), (Quantization::Q4, "q4", "lora4")]
    {
        assert_eq!(with_lora(Some(quantization), name).unwrap().components[1].merged_layers, 31);
        assert_ne!(pixels(&folder(&dir.0.join(name))), pixels(&folder(&dir.0.join(alone))));
    }
    // Without a format it would have to be rounded to 8 bits again.
    let error = with_lora(None, "none").unwrap_err();
    assert!(matches!(&error, Error::AlreadyQuantized { format, .. } if format == "f8_e4m3"), "{error:?}");
    assert!(error.cure().contains("add --quantize"), "{}", error.cure());
}

#[test]
fn a_part_that_is_quantized_is_copied() {
    let dir = Dir::new("convert-copied");
    for (file, name, format) in [
        ("formats/text_encoder.gguf", "text_encoder/model.gguf", "q5_0"),
        ("formats/text_encoder_mlx.safetensors", "text_encoder/model.safetensors", "affine codes"),
    ] {
        let source = with_parts(None, Some(golden(file)));
        for quantization in [Quantization::Int8, Quantization::Q4] {
            let to = dir.0.join("new");
            let report = converted(&source, &to, quantization).unwrap();
            let encoder = &report.components[0];
            assert_eq!(encoder.copied_as.as_deref(), Some(format));
            assert!(encoder.before_bytes == encoder.after_bytes && encoder.layers.is_empty());
            assert!(fs::read(to.join(name)).unwrap() == fs::read(golden(file)).unwrap());
            assert_eq!(pixels(&folder(&to)), pixels_in(&source, Some(quantization)), "{file}");
            fs::remove_dir_all(to).unwrap();
        }
    }
    for (file, name) in [
        ("formats/transformer_convrot.safetensors", DIT),
        ("gguf/qwen_tiny_q8_0.gguf", "transformer/diffusion_pytorch_model.gguf"),
    ] {
        let source = with_parts(Some(golden(file)), None);
        let to = dir.0.join("new");
        let report = converted(&source, &to, Quantization::Q4).unwrap();
        let [encoder, transformer] = [&report.components[0], &report.components[1]];
        assert!(transformer.copied_as.is_some() && encoder.copied_as.is_none(), "{report:?}");
        assert!(encoder.layers.iter().any(|layer| layer.format.is_smaller()));
        assert!(fs::read(to.join(name)).unwrap() == fs::read(golden(file)).unwrap());
        assert_eq!(pixels(&folder(&to)), pixels_in(&source, Some(Quantization::Q4)), "{file}");
        fs::remove_dir_all(to).unwrap();
    }
}

/// Where something would be rounded twice, or nothing is left.
#[test]
fn what_cannot_be_copied_is_refused() {
    let dir = Dir::new("convert-refused");
    let [bytes, blocks] = ["formats/transformer_convrot.safetensors", "gguf/qwen_tiny_q8_0.gguf"]
        .map(|file| Some(golden(file)));
    let encoder = Some(golden("formats/text_encoder.gguf"));
    let loras = vec![LoraSource { path: golden("lora/qwen_diffusers.safetensors"), scale: 0.5 }];
    let plain = |quantization| options(quantization);
    let merging = Options { loras, ..options(Quantization::Q4) };
    for (transformer, encoder, options, format) in [
        (blocks.clone(), encoder, plain(Quantization::Q4), "q8_0"),
        (blocks, None, merging, "q8_0"),
        // The folder would not say that its bytes are to be multiplied.
        (bytes, None, plain(Quantization::Int8), "int8"),
    ] {
        let error =
            converted_with(&with_parts(transformer, encoder), &dir.0.join("new"), &options).unwrap_err();
        let Error::AlreadyQuantized { component, format: found, .. } = &error else { panic!("{error:?}") };
        assert!(component == "transformer" && found.starts_with(format), "{error}");
        assert!(error.cure().contains("as it was published"), "{}", error.cure());
    }
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
}

#[test]
fn shards_of_an_encoder_that_is_quantized_are_copied_with_their_index() {
    let dir = Dir::new("convert-shards");
    let file = golden("formats/text_encoder_mlx.safetensors");
    let file = SafeTensors::open(&file, &device(), Residence::Mapped).unwrap();
    let (mut map, mut shards) = (BTreeMap::new(), [BTreeMap::new(), BTreeMap::new()]);
    for (i, (name, tensor)) in file.tensors.into_iter().enumerate() {
        map.insert(name.clone(), format!("{}.safetensors", i % 2));
        shards[i % 2].insert(name, tensor);
    }
    let index = serde_json::json!({ "weight_map": map });
    dir.write("encoder/model.safetensors.index.json", index.to_string());
    for (i, shard) in shards.iter().enumerate() {
        let bytes = safetensors::serialize(shard, &BTreeMap::new());
        dir.write(&format!("encoder/{i}.safetensors"), bytes);
    }
    let source = with_parts(None, Some(dir.0.join("encoder")));
    converted(&source, &dir.0.join("new"), Quantization::Q4).unwrap();
    assert_eq!(pixels(&folder(&dir.0.join("new"))), pixels_in(&source, Some(Quantization::Q4)));
}

#[test]
fn what_is_read_is_not_replaced_and_what_is_not_there_not_converted() {
    let dir = Dir::new("convert-place");
    let model = tiny::folder(&dir);
    let inside = model.join("mine.safetensors");
    let parts = lone(&dir);
    fs::rename(parts.transformer.as_ref().unwrap(), &inside).unwrap();
    let parts = Parts { transformer: Some(inside.clone()), ..parts };
    let options = Options { existing: Existing::Replace, ..options(Quantization::Q8) };
    let error = converted_with(&ModelSource::Files(parts), &model, &options).unwrap_err();
    assert!(matches!(error, Error::ConvertPlace { problem: PlaceProblem::Source, .. }), "{error:?}");
    assert!(inside.exists());
    let random = ModelSource::Random(RandomModel { blocks: 1, layers: 1 });
    let error = converted_with(&random, &dir.0.join("new"), &options).unwrap_err();
    assert!(matches!(error, Error::InvalidParam { param: "model", .. }), "{error:?}");
}
