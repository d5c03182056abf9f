//! Rows 12-21 of the table of faults: whole model folders that are broken, hostile or something else.
#![allow(clippy::unwrap_used)] // as in tests

use std::fs;
use std::path::{Path, PathBuf};

use inkstone::Error;
use inkstone::error::{FileFormat, Found, JsonProblem, ShardProblem, TokenizerProblem};
use inkstone::weights::{
    Component, Loader, ModelFiles, ModelSource, ReadOptions, Residence, SafeTensors, Scan, safetensors,
};
use inkstone_tensor::{DType, Device, Shape, Tensor};

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
const INDEX: &str = "transformer/diffusion_pytorch_model.safetensors.index.json";

fn device() -> Device {
    Device::cpu(&Default::default()).unwrap()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data/qwen_tiny")
}

/// A folder of the test's own that is removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn empty(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkstone-model-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    /// A copy of the tiny golden model.
    fn model(name: &str) -> Self {
        let dir = Self::empty(name);
        copy_folder(&golden(), &dir.0);
        dir
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, text.replacen(from, to, 1));
    }

    fn open(&self) -> Result<ModelFiles, Error> {
        open(&self.0)
    }

    /// The error of opening the transformer.
    fn loader_error(&self) -> Error {
        self.open().unwrap().loader(Component::Transformer, &device(), DType::F32).unwrap_err()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(path: &Path) -> Result<ModelFiles, Error> {
    ModelFiles::open(&ModelSource::Folder(path.to_owned()), ReadOptions::default())
}

fn found(result: Result<ModelFiles, Error>) -> Found {
    match result {
        Err(Error::UnsupportedModel { found, .. }) => found,
        other => panic!("{other:?}"),
    }
}

fn transformer(files: &ModelFiles) -> Loader {
    files.loader(Component::Transformer, &device(), DType::F32).unwrap()
}

/// The bytes of some tensors of a loader.
fn sample(loader: &mut Loader) -> Vec<u8> {
    let names = ["img_in.weight", "proj_out.bias", "transformer_blocks.0.attn.norm_q.weight"];
    let all = loader.left_over();
    assert!(names.iter().all(|name| all.iter().any(|own| own == name)));
    let shapes: [&[usize]; 3] = [&[48, 64], &[64], &[24]];
    names.iter().zip(shapes).flat_map(|(name, dims)| loader.tensor(name, dims).to_bytes()).collect()
}

#[test]
fn a_folder_is_opened_mapped_and_owned() {
    let read = |residence| {
        let options = ReadOptions { residence, scan: Scan::NotFinite, ..Default::default() };
        let files = ModelFiles::open(&ModelSource::Folder(golden()), options).unwrap();
        assert_eq!(files.name(), "qwen_tiny");
        for component in Component::ALL {
            assert!(files.json(component.config_name()).unwrap().starts_with('{'));
            files.loader(component, &device(), DType::F32).unwrap();
        }
        assert!(files.json("etc/passwd").is_err());
        files.check_intact().unwrap();
        sample(&mut transformer(&files))
    };
    assert_eq!(read(Residence::Mapped), read(Residence::Owned));
}

#[test]
fn the_embedded_model_is_used_in_place() {
    let files = ModelFiles::open(&ModelSource::Embedded, ReadOptions::default()).unwrap();
    assert_eq!(files.name(), "inkstone-tiny");
    files.tokenizer().unwrap();
    let on_disk = open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")).unwrap();
    for component in Component::ALL {
        let [embedded, folder] =
            [&files, &on_disk].map(|files| files.loader(component, &device(), DType::F32).unwrap());
        assert_eq!(embedded.left_over(), folder.left_over());
    }
    let [a, b] = [&files, &on_disk].map(|files| transformer(files).tensor("img_in.weight", &[192, 64]));
    assert_eq!(a.to_bytes(), b.to_bytes());
    let again = transformer(&files).tensor("img_in.weight", &[192, 64]);
    assert_eq!(a.bytes().as_ptr(), again.bytes().as_ptr(), "the same bytes of the program");
}

#[test]
fn another_model_is_called_by_its_name() {
    for (class, family) in [
        ("StableDiffusionPipeline", Some("Stable Diffusion, a UNet")),
        ("StableDiffusionXLImg2ImgPipeline", Some("Stable Diffusion XL")),
        ("StableDiffusion3Pipeline", Some("Stable Diffusion 3")),
        ("FluxPipeline", Some("FLUX.1")),
        ("Flux2KleinPipeline", Some("FLUX.2")),
        ("QwenImageEditPipeline", Some("Qwen-Image-Edit")),
        ("QwenImageEditPlusPipeline", Some("Qwen-Image-Edit 2509 or later")),
        ("QwenImageLayeredPipeline", Some("Qwen-Image-Layered")),
        ("QwenImage21Pipeline", Some("Qwen-Image 2.1")),
        ("MysteryPipeline", None),
    ] {
        let dir = Dir::model(class);
        dir.edit("model_index.json", "QwenImagePipeline", class);
        let error = dir.open().unwrap_err();
        assert!(error.to_string().contains(family.unwrap_or("unknown class")), "{error}");
        assert_eq!(found(Err(error)), Found::Pipeline { class: class.into(), family });
    }
    let dir = Dir::model("img2img");
    dir.edit("model_index.json", "QwenImagePipeline", "QwenImageImg2ImgPipeline");
    dir.open().unwrap();
    dir.edit("model_index.json", "QwenImageTransformer2DModel", "NunchakuTransformer");
    assert!(matches!(found(dir.open()), Found::Part { component: "transformer", .. }));
}

#[test]
fn what_is_no_model_folder_is_told() {
    let dir = Dir::empty("not-a-model");
    assert!(matches!(open(&dir.0.join("nowhere")), Err(Error::ModelNotFound { .. })));
    assert_eq!(found(dir.open()), Found::EmptyFolder);
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        dir.write(name, "");
    }
    let Found::NoIndex { entries } = found(dir.open()) else { panic!() };
    assert_eq!(entries, ["a", "b", "c", "d", "e", "2 more"]);
    let class = "QwenImageTransformer2DModel".to_owned();
    assert_eq!(found(open(&golden().join("transformer"))), Found::Component { class });
    assert_eq!(
        found(open(&golden().join(WEIGHTS))),
        Found::LoneFile { holds: "the transformer of Qwen-Image" }
    );
    assert_eq!(found(open(&golden().join("tokenizer/merges.txt"))), Found::OtherFile);
    let dir = Dir::model("no-vae");
    fs::remove_file(dir.0.join("vae/config.json")).unwrap();
    let Err(Error::MissingFile { path }) = dir.open() else { panic!() };
    assert!(path.ends_with("vae/config.json"));
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    dir.write("vae/config.json", "{}");
    let Error::MissingFile { path } = dir.loader_error() else { panic!() };
    assert!(path.ends_with(WEIGHTS));
}

#[test]
fn row_12_weights_that_are_not_finite() {
    for bits in [0x7fc0_u16, 0xffc1, 0x7f80, 0xff80] {
        let dir = Dir::model("nan");
        let mut bytes = fs::read(dir.0.join(WEIGHTS)).unwrap();
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&bits.to_le_bytes());
        dir.write(WEIGHTS, bytes);
        let scan = |scan| {
            let options = ReadOptions { scan, ..Default::default() };
            let files = ModelFiles::open(&ModelSource::Folder(dir.0.clone()), options).unwrap();
            files.loader(Component::Transformer, &device(), DType::F32)
        };
        assert!(scan(Scan::Off).is_ok());
        match scan(Scan::NotFinite).unwrap_err() {
            Error::WeightsNotFinite { count: 1, first, .. } => assert_eq!(first.len(), 1),
            other => panic!("{other:?}"),
        }
    }
}

/// A pickle of protocol 2 as old `torch.save` wrote it, and the start of the zip that it writes today.
const PICKLES: [&[u8]; 2] =
    [b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl"];

#[test]
fn row_13_pickle_under_the_name_of_safetensors() {
    for (i, pickle) in PICKLES.iter().enumerate() {
        let dir = Dir::model(&format!("pickle{i}"));
        dir.write(WEIGHTS, pickle);
        let error = dir.loader_error();
        assert_eq!(error.code(), "INK-0306");
        assert!(error.to_string().contains("pickle is not supported"), "{error}");
        fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
        dir.write("transformer/Model.SafeTensors", pickle);
        assert!(matches!(dir.loader_error(), Error::ForeignFormat { format: FileFormat::Pickle, .. }));
        assert!(matches!(
            open(&dir.0.join("transformer/Model.SafeTensors")),
            Err(Error::ForeignFormat { .. })
        ));
        // A sound file may be called so.
        dir.write("transformer/Model.SafeTensors", fs::read(golden().join(WEIGHTS)).unwrap());
        transformer(&dir.open().unwrap());
    }
    let other = [
        (FileFormat::Gguf, &b"GGUF\x03\0\0\0\0\0\0\0"[..]),
        (FileFormat::LfsPointer, b"version https://git-lfs.github.com/spec/v1\n"),
        (FileFormat::Html, b"\n<!DOCTYPE html><html>"),
    ];
    for (want, bytes) in other {
        let dir = Dir::model("foreign");
        dir.write(WEIGHTS, bytes);
        assert!(matches!(dir.loader_error(), Error::ForeignFormat { format, .. } if format == want));
    }
}

#[test]
fn row_14_pickles_by_their_own_name() {
    for ending in ["bin", "ckpt", "pt", "pth"] {
        let dir = Dir::model(ending);
        fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
        let name = format!("transformer/diffusion_pytorch_model.{ending}");
        dir.write(&name, PICKLES[0]);
        for error in [dir.loader_error(), open(&dir.0.join(name)).unwrap_err()] {
            assert!(matches!(error, Error::ForeignFormat { format: FileFormat::Pickle, .. }), "{error:?}");
        }
    }
}

#[test]
fn row_15_file_truncated_while_in_use() {
    let dir = Dir::model("truncated");
    let files = dir.open().unwrap();
    let mut loader = transformer(&files);
    let was_bytes = fs::metadata(dir.0.join(WEIGHTS)).unwrap().len();
    files.check_intact().unwrap();
    // Another process, as `truncate` or a copy over the file would do it.
    let done = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(": > '{}'", dir.0.join(WEIGHTS).display()))
        .status();
    assert!(done.unwrap().success());
    assert!(sample(&mut loader).iter().all(|byte| *byte == 0), "lost pages read as zeros");
    let error = files.check_intact().unwrap_err();
    assert_eq!(error.code(), "INK-0312");
    assert!(matches!(error, Error::ModelChanged { was_bytes: was, is_bytes: 0, .. } if was == was_bytes));
    assert!(matches!(loader.finish(), Err(Error::ModelChanged { .. })), "the loading itself fails");
    // Weights that nobody holds any longer are no concern.
    files.check_intact().unwrap();
}

/// The transformer of the golden model in two shards with an index.
fn sharded(name: &str) -> Dir {
    let dir = Dir::model(name);
    let whole = SafeTensors::open(&dir.0.join(WEIGHTS), &device(), Residence::Owned).unwrap();
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    let mut map = serde_json::Map::new();
    let (mut first, mut second) = (whole.tensors.clone(), whole.tensors);
    first.retain(|name, _| name.len() % 2 == 0);
    second.retain(|name, _| name.len() % 2 == 1);
    for (file, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        dir.write(&format!("transformer/{file}"), safetensors::serialize(&tensors, &Default::default()));
        map.extend(tensors.keys().map(|name| (name.clone(), file.into())));
    }
    dir.write(INDEX, serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string());
    dir
}

fn shard_problem(dir: &Dir) -> ShardProblem {
    match dir.loader_error() {
        Error::Shards { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shards_are_one_model() {
    let dir = sharded("shards");
    let [mut one, mut two] = [open(&golden()).unwrap(), dir.open().unwrap()].map(|files| transformer(&files));
    assert_eq!(one.left_over(), two.left_over());
    assert_eq!(sample(&mut one), sample(&mut two));
}

#[test]
fn row_16_shards_outside_of_the_folder() {
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "../vae/diffusion_pytorch_model.safetensors",
        "..\\\\x.safetensors",
        "C:x.safetensors",
        "a\\u0000.safetensors",
        ".safetensors",
        "a.bin",
        "",
    ] {
        let dir = sharded("traversal");
        dir.edit(INDEX, "\"a.safetensors\"", &format!("\"{name}\""));
        assert!(matches!(shard_problem(&dir), ShardProblem::BadName { .. }), "{name}");
    }
}

#[test]
fn row_17_missing_shard_and_misplaced_tensors() {
    let dir = sharded("missing");
    fs::remove_file(dir.0.join("transformer/b.safetensors")).unwrap();
    let want = ShardProblem::MissingShards { count: 1, first: vec!["b.safetensors".into()] };
    assert_eq!(shard_problem(&dir), want);

    let dir = sharded("misplaced");
    let swapped = dir.read(INDEX).replace("a.safetensors", "?").replace("b.safetensors", "a.safetensors");
    dir.write(INDEX, swapped.replace('?', "b.safetensors"));
    match shard_problem(&dir) {
        ShardProblem::Misplaced { count, first } => {
            assert!(count > 5 && first.len() == 5, "{count} {first:?}");
            assert!(first[0].contains(" (not in "), "{first:?}");
        }
        other => panic!("{other:?}"),
    }

    let dir = sharded("twice");
    let extra = Tensor::from_f32(&device(), &[1.0], Shape::vector(1)).unwrap();
    for file in ["transformer/a.safetensors", "transformer/b.safetensors"] {
        let mut shard = SafeTensors::open(&dir.0.join(file), &device(), Residence::Owned).unwrap();
        shard.tensors.insert("extra".into(), extra.clone());
        dir.write(file, safetensors::serialize(&shard.tensors, &Default::default()));
    }
    assert_eq!(shard_problem(&dir), ShardProblem::Duplicate { name: "extra".into() });

    let dir = sharded("key-twice");
    dir.edit(INDEX, "\"weight_map\":{", "\"weight_map\":{\"img_in.weight\":\"a.safetensors\",");
    assert!(matches!(dir.loader_error(), Error::Json { problem: JsonProblem::Invalid { .. }, .. }));
}

#[cfg(unix)]
#[test]
fn row_18_links_stay_inside() {
    use std::os::unix::fs::symlink;

    let outside = Dir::empty("outside");
    outside.write("weights", fs::read(golden().join(WEIGHTS)).unwrap());
    let dir = Dir::model("link");
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    symlink(outside.0.join("weights"), dir.0.join(WEIGHTS)).unwrap();
    assert!(matches!(dir.loader_error(), Error::OutsideModel { .. }));
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    symlink(dir.0.join(WEIGHTS), dir.0.join(WEIGHTS)).unwrap();
    let error = dir.loader_error();
    assert!(matches!(error, Error::ModelRead { .. }), "a link to itself: {error:?}");
    assert_eq!(error.code(), "INK-0301");

    // The cache of huggingface_hub: a snapshot of links to blobs, which may be links into a store of the cache.
    let cache = Dir::empty("cache");
    let snapshot = cache.0.join("models--Qwen--Qwen-Image/snapshots/abc123");
    fs::create_dir_all(&snapshot).unwrap();
    copy_folder(&golden(), &snapshot);
    cache.write("models--Qwen--Qwen-Image/refs/main", "abc123");
    let file = snapshot.join(WEIGHTS);
    fs::create_dir_all(cache.0.join("models--Qwen--Qwen-Image/blobs")).unwrap();
    fs::create_dir_all(cache.0.join("blobs/ab")).unwrap();
    fs::rename(&file, cache.0.join("blobs/ab/hash")).unwrap();
    let blob = cache.0.join("models--Qwen--Qwen-Image/blobs/hash");
    symlink("../../blobs/ab/hash", &blob).unwrap();
    symlink("../../../blobs/hash", &file).unwrap(); // from snapshots/abc123/transformer
    for path in [&snapshot, &cache.0.join("models--Qwen--Qwen-Image")] {
        let files = open(path).unwrap();
        assert_eq!(files.name(), "Qwen/Qwen-Image");
        transformer(&files);
    }
    fs::remove_file(&blob).unwrap();
    symlink(outside.0.join("weights"), &blob).unwrap();
    let error = open(&snapshot).unwrap().loader(Component::Transformer, &device(), DType::F32).unwrap_err();
    assert!(matches!(error, Error::OutsideModel { boundary, .. } if boundary == cache.0));

    // A snapshot that is a link out of the cache, named by refs/main.
    cache.write("models--Qwen--Qwen-Image/refs/main", "../../../outside");
    assert!(matches!(open(&cache.0.join("models--Qwen--Qwen-Image")), Err(Error::UnsupportedModel { .. })));
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_does_not_hang() {
    let dir = Dir::model("pipe");
    fs::remove_file(dir.0.join("vae/config.json")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(dir.0.join("vae/config.json")).status().unwrap();
    assert!(made.success());
    assert!(matches!(dir.open(), Err(Error::MissingFile { .. })));
}

#[test]
fn row_19_config_out_of_range() {
    use inkstone::models::{qwen_image, qwen_vae, qwen25_vl};
    use inkstone::sample::schedule::SchedulerConfig;

    type Check = fn(&str) -> Result<(), Error>;
    let transformer: Check = |text| qwen_image::Config::from_json(text).map(drop);
    let text_encoder: Check = |text| qwen25_vl::Config::from_json(text).map(drop);
    let vae: Check = |text| qwen_vae::Config::from_json(text).map(drop);
    let scheduler: Check = |text| SchedulerConfig::from_json(text).map(drop);
    let counts = ["1000000000", "0", "-1", "2.5", "\"4\"", "1e3", "true", "[4]", "18446744073709551616"];
    let reals = ["-1", "1e300", "\"1\"", "[]"];
    for (file, check, field, values) in [
        ("transformer/config.json", transformer, "num_layers", &counts[..]),
        ("transformer/config.json", transformer, "num_attention_heads", &counts),
        ("transformer/config.json", transformer, "attention_head_dim", &counts),
        ("transformer/config.json", transformer, "joint_attention_dim", &counts),
        (
            "transformer/config.json",
            transformer,
            "axes_dims_rope",
            &["[8, 8]", "[0, 8, 8]", "[9, 7, 8]", "8"],
        ),
        ("text_encoder/config.json", text_encoder, "num_hidden_layers", &counts),
        ("text_encoder/config.json", text_encoder, "hidden_size", &counts),
        ("text_encoder/config.json", text_encoder, "num_key_value_heads", &counts),
        ("text_encoder/config.json", text_encoder, "vocab_size", &counts),
        ("text_encoder/config.json", text_encoder, "rms_norm_eps", &reals),
        ("vae/config.json", vae, "base_dim", &counts),
        ("vae/config.json", vae, "z_dim", &counts),
        ("vae/config.json", vae, "dim_mult", &["[]", "[1, 0, 4, 4]", "[1, 2, 1e9, 4]", "4"]),
        ("vae/config.json", vae, "latents_std", &["[0]", "null", "[]", "1"]),
        ("scheduler/scheduler_config.json", scheduler, "num_train_timesteps", &counts),
        ("scheduler/scheduler_config.json", scheduler, "max_shift", &["1e300", "\"1\"", "[]"]),
        ("scheduler/scheduler_config.json", scheduler, "shift_terminal", &reals),
    ] {
        let whole: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(golden().join(file)).unwrap()).unwrap();
        check(&whole.to_string()).unwrap();
        for value in values {
            let mut config = whole.clone();
            config[field] = serde_json::Value::Null;
            let text =
                config.to_string().replacen(&format!("\"{field}\":null"), &format!("\"{field}\":{value}"), 1);
            let error = check(&text).expect_err(&format!("{file}: {field} {value}"));
            assert_eq!((error.code(), error.exit_code()), ("INK-0320", 3), "{field} {value}");
        }
        // NaN is no JSON, and a number beyond all numbers is none.
        for value in ["NaN", "Infinity", "1e999"] {
            let dir = Dir::model("nan-config");
            let text = whole.to_string().replacen('{', &format!("{{\"x\":{value},"), 1);
            dir.write(file, text);
            assert!(
                matches!(dir.open(), Err(Error::Json { problem: JsonProblem::Invalid { .. }, .. })),
                "{value}"
            );
        }
    }
}

#[test]
fn row_20_hostile_json() {
    let problem = |content: &[u8]| {
        let dir = Dir::model("json");
        dir.write("transformer/config.json", content);
        let error = dir.open().unwrap_err();
        assert_eq!(error.code(), "INK-0310");
        match error {
            Error::Json { path, problem } => {
                assert!(path.ends_with("transformer/config.json"));
                problem
            }
            other => panic!("{other:?}"),
        }
    };
    let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let reason = |content: &[u8]| match problem(content) {
        JsonProblem::Invalid { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(deep("[", "]").as_bytes()).contains("recursion limit"));
    assert!(reason(deep("{\"a\":", "}").as_bytes()).contains("recursion limit"));
    assert!(reason(b"{\"a\":1,\"a\":2}").contains("\"a\" occurs twice"));
    assert!(reason(b"{\"a\":{\"b\":1,\"b\":2}}").contains("\"b\" occurs twice"));
    assert!(reason(format!("[{}0]", "0,".repeat(20_000)).as_bytes()).contains("more than 10000 values"));
    for broken in ["{\"a\":NaN}", "{\"a\":1e999}", "{\"a\":1,}", "{} {}", "", "{\"a\":\"\\ud800\"}"] {
        reason(broken.as_bytes());
    }
    reason(b"{\"a\":\"\xff\"}");
    assert_eq!(problem(b"\xef\xbb\xbf{}"), JsonProblem::ByteOrderMark);
    let large = [b"{}".to_vec(), vec![b' '; 1_000_000]].concat();
    assert_eq!(problem(&large), JsonProblem::TooLarge { size_bytes: 1_000_002, limit_bytes: 1_000_000 });
    // A gigabyte that takes no disk.
    let dir = Dir::model("sparse");
    let file = fs::File::options().write(true).open(dir.0.join("vae/config.json")).unwrap();
    file.set_len(1 << 30).unwrap();
    let want = JsonProblem::TooLarge { size_bytes: 1 << 30, limit_bytes: 1_000_000 };
    assert!(matches!(dir.open(), Err(Error::Json { problem, .. }) if problem == want));
}

#[test]
fn row_20_foreign_quantization() {
    let dir = Dir::model("quantized");
    dir.edit(
        "transformer/config.json",
        "{",
        "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"},",
    );
    assert!(matches!(dir.open(), Err(Error::ModelConfig { field, .. }) if field == "quantization_config"));
}

const TOKENIZER: &str = "tokenizer/tokenizer.json";

fn tokenizer_problem(edit: impl Fn(&mut serde_json::Value)) -> TokenizerProblem {
    let dir = Dir::model("tokenizer");
    let mut value = serde_json::from_str(&dir.read(TOKENIZER)).unwrap();
    edit(&mut value);
    dir.write(TOKENIZER, value.to_string());
    let start = std::time::Instant::now();
    let error = dir.open().unwrap().tokenizer().unwrap_err();
    // A pattern that backtracks takes minutes; the rest is slack for a busy machine.
    assert!(start.elapsed().as_secs() < 5);
    match error {
        Error::Tokenizer { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn row_21_hostile_tokenizers() {
    let got = tokenizer_problem(|t| t["model"]["vocab"]["zzz"] = 512.into());
    assert_eq!(got, TokenizerProblem::IdOutOfRange { token: "zzz".into(), id: 512, vocab_size: 512 });
    let got = tokenizer_problem(|t| t["added_tokens"][0]["id"] = u64::MAX.into());
    assert!(matches!(got, TokenizerProblem::IdOutOfRange { id: u64::MAX, .. }));
    let got = tokenizer_problem(|t| t["model"]["vocab"]["zzz"] = 7.into());
    assert_eq!(got, TokenizerProblem::DuplicateId { id: 7 });
    let got = tokenizer_problem(|t| t["model"]["merges"][3] = "abc".into());
    assert_eq!(got, TokenizerProblem::BadMerge { line: 4 });
    let not_qwen = |edit: &dyn Fn(&mut serde_json::Value)| match tokenizer_problem(edit) {
        TokenizerProblem::NotQwen { part, got, .. } => (part, got),
        other => panic!("{other:?}"),
    };
    // Backtracks without end on "aaaa...b"; and 20 MB of it.
    let evil = |pattern: String| {
        not_qwen(&move |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern.clone().into()
        })
    };
    assert_eq!(evil("(a+)+$".into()), ("pre-tokenizer", "Split by (a+)+$".into()));
    let (part, got) = evil("(a+)+$".repeat(3_500_000));
    assert!(part == "pre-tokenizer" && got.len() < 100);
    let replace = serde_json::json!({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""});
    assert_eq!(not_qwen(&|t| t["normalizer"] = replace.clone()), ("normalizer", "Replace".into()));
    assert_eq!(not_qwen(&|t| t["decoder"] = replace.clone()).0, "decoder");
    assert_eq!(not_qwen(&|t| t["model"]["type"] = "WordPiece".into()).0, "model");
    assert_eq!(not_qwen(&|t| t["model"]["dropout"] = 0.5.into()).0, "dropout");
    assert_eq!(not_qwen(&|t| t["pre_tokenizer"] = serde_json::Value::Null).0, "pre-tokenizer");

    let dir = Dir::model("tokenizer-size");
    fs::File::options().write(true).open(dir.0.join(TOKENIZER)).unwrap().set_len(200 << 20).unwrap();
    let want = JsonProblem::TooLarge { size_bytes: 200 << 20, limit_bytes: 64_000_000 };
    assert!(matches!(dir.open().unwrap().tokenizer(), Err(Error::Json { problem, .. }) if problem == want));
    dir.write(TOKENIZER, r#"{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}"#);
    assert!(dir.open().unwrap().tokenizer().unwrap_err().to_string().contains("\"a\" occurs twice"));
}

#[test]
fn a_tokenizer_in_parts_is_the_same() {
    for model in ["golden/data/qwen_tiny", "models/tiny"] {
        let dir = Dir::empty("parts");
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model), &dir.0);
        let whole: serde_json::Value = serde_json::from_str(&dir.read(TOKENIZER)).unwrap();
        fs::remove_file(dir.0.join(TOKENIZER)).unwrap();
        let parts: serde_json::Value =
            serde_json::from_slice(&dir.open().unwrap().tokenizer().unwrap()).unwrap();
        assert_eq!(parts["model"]["vocab"], whole["model"]["vocab"]);
        assert_eq!(parts["pre_tokenizer"], whole["pre_tokenizer"]);
        assert_eq!(parts["added_tokens"], whole["added_tokens"]);
        let pair = |merge: &serde_json::Value| match merge.as_str() {
            Some(text) => serde_json::json!(text.split(" ").collect::<Vec<_>>()),
            None => merge.clone(),
        };
        let pairs =
            |merges: &serde_json::Value| merges.as_array().unwrap().iter().map(pair).collect::<Vec<_>>();
        assert_eq!(pairs(&parts["model"]["merges"]), pairs(&whole["model"]["merges"]));
    }
}

#[test]
fn errors_of_the_engine_keep_their_meaning() {
    let error = Error::from(Tensor::empty(&device(), DType::F32, Shape::vector(1 << 48)).unwrap_err());
    assert_eq!((error.code(), error.exit_code()), ("INK-0402", 4), "{error}");
    let options = inkstone_tensor::cpu::Options { isa: Some("mmx".into()), ..Default::default() };
    let error = Error::from(Device::cpu(&options).unwrap_err());
    assert_eq!((error.code(), error.exit_code()), ("INK-0202", 2), "{error}");
}
