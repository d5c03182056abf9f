//! Models in a smaller format: the pictures they draw, the folders they are saved in, and what is refused.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here, in functions beside the tests too")]

#[path = "support/drawing.rs"]
mod drawing;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use inkstone::convert::{Existing, Options, Report, convert};
use inkstone::error::PlaceProblem;
use inkstone::pipeline::{Form, Made, Setting};
use inkstone::progress::{CancelToken, Observer, Silent, Stage};
use inkstone::weights::{
    Component, Format, MODEL_INDEX, ModelSource, Parts, Quantization, Residence, SafeTensors,
};
use inkstone::{Error, OpenOptions, Pipeline, Request, Result};
use inkstone_tensor::{DType, Device, cpu};
use sha2::{Digest, Sha256};

use drawing::{draw, psnr_db};

const ALL: [Quantization; 3] = [Quantization::Int8, Quantization::Q8, Quantization::Q4];
const DIT: &str = "transformer/diffusion_pytorch_model.safetensors";

/// A folder that is removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("inkstone-convert-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names of all that is there, hidden ones too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A copy of the small model under a name.
    fn copy_of_tiny(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        for folder in fs::read_dir(tiny()).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()) {
            let inside = to.join(folder.file_name().unwrap());
            fs::create_dir_all(&inside).unwrap();
            for file in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
                fs::copy(&file, inside.join(file.file_name().unwrap())).unwrap();
            }
        }
        fs::copy(tiny().join(MODEL_INDEX), to.join(MODEL_INDEX)).unwrap();
        to
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")
}

fn options(quantization: Quantization, existing: Existing) -> Options {
    Options {
        quantization: Some(quantization),
        loras: Vec::new(),
        existing,
        threads: Some(2),
        max_memory_bytes: None,
    }
}

fn converted(source: &Path, to: &Path, quantization: Quantization) -> Result<Report> {
    let options = options(quantization, Existing::Refuse);
    convert(&ModelSource::Folder(source.to_owned()), to, &options, &CancelToken::default(), &mut Silent)
}

fn open(source: &ModelSource, quantization: Option<Quantization>) -> Pipeline {
    Pipeline::open(source, &OpenOptions { threads: Some(2), quantization, ..OpenOptions::default() }).unwrap()
}

/// Asked for are 40 dB of q8 and 25 dB of q4. The worst of 347 pictures, drawings alone, on a colour and in pairs, have 41.8
/// and 27.6 dB (bench/quality.py); those that q4 draws worst are among these.
#[test]
fn pictures_in_q8_and_q4_are_those_of_the_model_as_stored() {
    // Things that the embedded model knows: of others it draws what small changes turn into something else.
    const PROMPTS: [&str; 8] = [
        "a red apple",
        "a cute honeybee",
        "一个仙人掌",
        "zebra",
        "doughnut",
        "a snowflake on a black background",
        "a laptop and a television",
        "a red apple and a green apple",
    ];
    let steps = open(&ModelSource::Embedded, None).model().defaults.steps;
    let want = draw(&mut open(&ModelSource::Embedded, None), &PROMPTS, steps).unwrap();
    for (quantization, least_db) in [(Quantization::Q8, 40.0), (Quantization::Q4, 27.0)] {
        let mut pipeline = open(&ModelSource::Embedded, Some(quantization));
        let got = draw(&mut pipeline, &PROMPTS, steps).unwrap();
        let formats = pipeline.layer_formats();
        let smaller = formats.iter().filter(|layer| layer.format.is_smaller()).count();
        assert!(10 * smaller > 9 * formats.len(), "{smaller} of {} layers", formats.len());
        let psnr: Vec<f64> = got.iter().zip(&want).map(|(g, w)| psnr_db(g, w)).collect();
        assert!(psnr.iter().all(|db| *db >= least_db), "{}: {psnr:.1?} dB", quantization.name());
        assert!(psnr.iter().any(|db| db.is_finite()), "{}: nothing was changed", quantization.name());
    }
}

#[test]
fn a_converted_folder_draws_the_same_bytes_as_the_format_on_load() {
    const PROMPTS: [&str; 2] = ["a red apple", "a koala"];
    let dir = Dir::new();
    for quantization in ALL {
        let to = dir.path(quantization.name());
        let report = converted(&tiny(), &to, quantization).unwrap();
        let folder = |path: &Path| ModelSource::Folder(path.to_owned());
        let want = draw(&mut open(&folder(&tiny()), Some(quantization)), &PROMPTS, 3).unwrap();
        let got = draw(&mut open(&folder(&to), None), &PROMPTS, 3).unwrap();
        assert!(got == want, "{}", quantization.name());

        let on_disk = |name: &str| fs::metadata(to.join(name)).unwrap().len();
        let [encoder, transformer, vae] = &report.components[..] else { panic!() };
        assert_eq!(transformer.after_bytes, on_disk(DIT));
        assert_eq!(encoder.after_bytes, on_disk("text_encoder/model.safetensors"));
        assert_eq!(vae.after_bytes, on_disk("vae/diffusion_pytorch_model.safetensors"));
        if quantization == Quantization::Int8 {
            // A byte for two, and one of three temporal slices.
            let smaller = vae.layers.iter().filter(|layer| layer.format.is_smaller()).count();
            assert!(smaller > 30 && smaller + 6 == vae.layers.len(), "{smaller} of {:?}", vae.layers);
            assert!(vae.after_bytes < vae.before_bytes / 3);
        } else {
            assert!(vae.layers.is_empty() && vae.before_bytes.abs_diff(vae.after_bytes) < 50_000);
        }
        // Rows of this model are short and a sixth of its transformer stays in bf16.
        let part = if quantization == Quantization::Q4 { 0.45 } else { 0.75 };
        let sizes =
            [transformer.before_bytes, transformer.after_bytes].map(|b| f64::from(u32::try_from(b).unwrap()));
        assert!(sizes[1] < part * sizes[0], "{}: {sizes:?}", quantization.name());
    }
    assert_eq!(dir.names(), ["int8", "q4", "q8"]);
}

#[test]
fn a_converted_file_says_what_it_is_and_what_it_was_made_from() {
    let dir = Dir::new();
    let to = dir.path("q4");
    let report = converted(&tiny(), &to, Quantization::Q4).unwrap();
    let device = Device::cpu(&cpu::Options { threads: Some(1), isa: None }).unwrap();
    let file = SafeTensors::open(&to.join(DIT), &device, Residence::Mapped).unwrap();
    let hash: String =
        Sha256::digest(fs::read(tiny().join(DIT)).unwrap()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(file.metadata["inkstone.quantization"], "q4");
    assert_eq!(file.metadata["inkstone.sources"], format!("{{\"{DIT}\":\"{hash}\"}}"));
    let kept = &file.metadata["inkstone.kept"];
    assert!(kept.contains("\"img_in\"") && kept.contains("\"proj_out\"") && !kept.contains("attn"), "{kept}");
    assert_eq!(report.components[1].sources[0].sha256, hash);
    // The layout is MLX's: words of packed codes, a bf16 scale and bias for each 64.
    let n_in = file.tensors[&"img_in.weight".to_owned()].rows();
    // The text's stream, the picture's, a modulation.
    let layers = [("attn.add_q_proj", 4), ("attn.to_q", 5), ("txt_mod.1", 6)];
    let layers = layers.map(|(layer, bits)| (format!("transformer_blocks.0.{layer}"), bits));
    for (layer, bits) in &layers {
        let part = |part: &str| &file.tensors[&format!("{layer}.{part}")];
        let words = n_in / 32 * usize::from(*bits);
        assert_eq!((part("weight").dtype(), part("weight").cols()), (DType::U32, words), "{layer}");
        for scale in ["scales", "biases"] {
            assert_eq!((part(scale).dtype(), part(scale).cols()), (DType::Bf16, n_in / 64));
        }
    }
    // All of it is used where it lies.
    assert!(file.tensors.values().all(|t| t.bytes().as_ptr().addr().is_multiple_of(t.dtype().size_bytes())));
    for copied in
        [MODEL_INDEX, "scheduler/scheduler_config.json", "tokenizer/tokenizer.json", "vae/config.json"]
    {
        assert!(fs::read(to.join(copied)).unwrap() == fs::read(tiny().join(copied)).unwrap(), "{copied}");
    }
    // Each layer is told, with its bits and what it lost. 64 normal values reach over 4.7 deviations; a step of that loses
    // 1/sqrt(12) of its length, in all 1.36 deviations over the number of steps, and a fit by error a tenth less.
    let told = &report.components[1].layers;
    for (layer, want) in &layers {
        let format = told.iter().find(|l| l.name == *layer).unwrap().format;
        let Format::Affine { bits, lost } = format else { panic!("{layer}: {format}") };
        let steps = f64::from(2u8.pow(u32::from(*want)) - 1);
        assert!(bits == *want && lost * steps > 0.8 && lost * steps < 2.0, "{layer}: {format}");
    }
    assert!(told.iter().any(|l| l.name == "img_in" && matches!(l.format, Format::KeptFor(_))));
}

#[test]
fn what_is_quantized_is_not_quantized_again() {
    let dir = Dir::new();
    let to = dir.path("first");
    for quantization in ALL {
        let _ = fs::remove_dir_all(&to);
        converted(&tiny(), &to, quantization).unwrap();
        let error = converted(&to, &dir.path("second"), Quantization::Q8).unwrap_err();
        assert!(matches!(error, Error::AlreadyQuantized { .. }), "{error:?}");
        let mut pipeline = open(&ModelSource::Folder(to.clone()), Some(Quantization::Q4));
        let error = draw(&mut pipeline, &["a red apple"], 1).unwrap_err();
        assert!(matches!(error, Error::AlreadyQuantized { .. }), "{error:?}");
        assert_eq!(dir.names(), ["first"]);
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

fn small_request() -> Request {
    Request {
        prompt: "a cat".into(),
        negative_prompt: None,
        width_px: 64,
        height_px: 64,
        steps: 1,
        seed: 1,
        true_cfg_scale: 1.0,
        init: None,
    }
}

/// Networks of which everything is in 8-bit floats, convolutions too: the folder draws what the format on load draws.
#[test]
fn networks_cast_to_8_bit_floats_are_converted() {
    let dir = Dir::new();
    for (kind, quantization) in
        [("cast", Quantization::Int8), ("scaled", Quantization::Int8), ("cast", Quantization::Q4)]
    {
        let part = |name: &str| Some(golden(&format!("formats/{name}_{kind}.safetensors")));
        let parts = Parts { transformer: part("transformer"), vae: part("vae"), ..Parts::default() };
        let source = ModelSource::Pieces { folder: golden("qwen_tiny"), parts };
        let to = dir.path("new");
        let _ = fs::remove_dir_all(&to);
        let options = options(quantization, Existing::Refuse);
        convert(&source, &to, &options, &CancelToken::default(), &mut Silent).unwrap();
        let [folder, loaded] =
            [(ModelSource::Folder(to), None), (source, Some(quantization))].map(|(m, q)| {
                let drawn = open(&m, q).draw(&[small_request()], &CancelToken::default(), &mut Silent);
                drawn.unwrap().remove(0).pixels.rgb
            });
        assert!(folder == loaded, "{kind}, {}", quantization.name());
    }
}

/// A GGUF transformer beside an encoder of full size, and the other way round: what is quantized stays, the rest becomes
/// smaller.
#[test]
fn parts_that_are_quantized_stay_and_the_others_are_quantized() {
    let model = |parts| ModelSource::Pieces { folder: golden("qwen_tiny"), parts };
    let gguf = || Some(golden("gguf/qwen_tiny_q4_K.gguf"));
    let encoder = || Some(golden("formats/text_encoder.gguf"));
    let request = small_request();
    for (parts, changed) in [
        (Parts { transformer: gguf(), ..Parts::default() }, "model."),
        (Parts { text_encoder: encoder(), ..Parts::default() }, "transformer_blocks."),
    ] {
        let mut pipeline = open(&model(parts), Some(Quantization::Q4));
        let of = |form| pipeline.forecast_with(&request, Setting { form, ..Setting::default() });
        // `convert` copies it. A GGUF file of 4 bits takes as long as q4.
        let stored = of(Form::Stored).unwrap().made;
        for form in [Form::Loaded(Quantization::Int8), Form::Converted(Quantization::Q8)] {
            let forecast = of(form).unwrap();
            assert_eq!(forecast.steps, 1);
            for (component, is_gguf) in
                [(Component::Transformer, changed == "model."), (Component::TextEncoder, changed != "model.")]
            {
                let format = if is_gguf { stored[&component].format } else { form.quantization() };
                assert_eq!(forecast.made[&component], Made { format, is_changed: !is_gguf }, "{component:?}");
                assert_eq!(stored[&component].format.is_some(), is_gguf, "{component:?}");
            }
        }
        if changed == "model." {
            assert_eq!(stored[&Component::Transformer].format, Some(Quantization::Q4));
        }
        pipeline.draw(std::slice::from_ref(&request), &CancelToken::default(), &mut Silent).unwrap();
        let smaller: Vec<_> = pipeline.layer_formats().iter().filter(|l| l.format.is_smaller()).collect();
        assert!(!smaller.is_empty() && smaller.iter().all(|l| l.name.starts_with(changed)), "{smaller:?}");
    }
    let both = Parts { transformer: gguf(), text_encoder: encoder(), ..Parts::default() };
    let mut pipeline = open(&model(both), Some(Quantization::Q4));
    let error = pipeline.draw(&[request], &CancelToken::default(), &mut Silent).unwrap_err();
    assert!(
        matches!(&error, Error::AlreadyQuantized { component, .. } if component == "transformer"),
        "{error:?}"
    );
}

#[test]
fn a_place_that_is_taken_is_left_as_it_is() {
    let dir = Dir::new();
    let place = |to: &Path, existing| {
        let options = options(Quantization::Q8, existing);
        match convert(&ModelSource::Folder(tiny()), to, &options, &CancelToken::default(), &mut Silent) {
            Err(Error::ConvertPlace { problem, .. }) => Some(problem),
            other => other.map(|_| None).unwrap(),
        }
    };
    let mine = dir.path("mine");
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("letter.txt"), "dear").unwrap();
    assert_eq!(place(&mine, Existing::Refuse), Some(PlaceProblem::Exists));
    assert_eq!(place(&mine, Existing::Replace), Some(PlaceProblem::NoModel));
    assert_eq!(place(&mine.join("letter.txt"), Existing::Replace), Some(PlaceProblem::NoModel));
    assert_eq!(place(&dir.path("not/there"), Existing::Refuse), Some(PlaceProblem::NoParent));
    assert_eq!(place(&tiny(), Existing::Replace), Some(PlaceProblem::Source));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(dir.copy_of_tiny("theirs"), dir.path("link")).unwrap();
        assert_eq!(place(&dir.path("link"), Existing::Replace), Some(PlaceProblem::Link));
        assert!(dir.path("link").is_symlink() && dir.path("theirs").join(MODEL_INDEX).is_file());
        fs::remove_file(dir.path("link")).unwrap();
        fs::remove_dir_all(dir.path("theirs")).unwrap();
    }
    assert_eq!(place(&tiny().join("inside"), Existing::Refuse), Some(PlaceProblem::Source));
    assert_eq!(place(Path::new("/"), Existing::Replace), Some(PlaceProblem::NoName));
    assert_eq!(dir.names(), ["mine"]);
    assert_eq!(fs::read(mine.join("letter.txt")).unwrap(), b"dear");

    let model = dir.path("model");
    assert_eq!(place(&model, Existing::Refuse), None);
    fs::write(model.join("old"), "").unwrap();
    assert_eq!(place(&model, Existing::Replace), None);
    assert!(!model.join("old").exists() && model.join(DIT).exists());
    assert_eq!(dir.names(), ["mine", "model"]);
}

#[test]
fn what_a_killed_conversion_left_goes_with_the_next() {
    let dir = Dir::new();
    for left in [".new.partial-1", ".new.partial-Xy12z3", ".newer.partial-1"] {
        fs::create_dir(dir.path(left)).unwrap();
        fs::write(dir.path(left).join("weights"), "half of them").unwrap();
    }
    converted(&tiny(), &dir.path("new"), Quantization::Q8).unwrap();
    assert_eq!(dir.names(), [".newer.partial-1", "new"]);
}

/// Where two names cannot be exchanged in one step, a process may be killed when the old model has none.
#[test]
fn a_model_that_a_killed_conversion_put_aside_has_its_name_again() {
    let dir = Dir::new();
    let run = |existing| {
        let (options, cancel) = (options(Quantization::Q8, existing), CancelToken::default());
        convert(&ModelSource::Folder(tiny()), &dir.path("new"), &options, &cancel, &mut Silent)
    };
    dir.copy_of_tiny(".new.old-Xy12z3");
    fs::create_dir(dir.path(".new.partial-1")).unwrap();
    let error = run(Existing::Refuse).unwrap_err();
    assert!(matches!(error, Error::ConvertPlace { problem: PlaceProblem::Exists, .. }), "{error:?}");
    assert!(fs::read(dir.path("new").join(DIT)).unwrap() == fs::read(tiny().join(DIT)).unwrap());
    // One whose name is taken is of no more use, and what is no model never had the name.
    dir.copy_of_tiny(".new.old-2");
    fs::create_dir(dir.path(".new.old-3")).unwrap();
    run(Existing::Replace).unwrap();
    assert_eq!(dir.names(), ["new"]);
    assert!(fs::read(dir.path("new").join(DIT)).unwrap() != fs::read(tiny().join(DIT)).unwrap());
}

#[test]
fn of_two_conversions_to_one_place_one_is_refused() {
    let dir = Dir::new();
    let to = dir.path("new");
    let results = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| converted(&tiny(), &to, Quantization::Q4)));
        both.map(|thread| thread.join().unwrap())
    });
    let refused = |result: &Result<Report>| {
        matches!(result, Err(Error::ConvertPlace { problem: PlaceProblem::Exists, .. }))
    };
    assert_eq!(results.iter().filter(|result| refused(result)).count(), 1, "{results:?}");
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(dir.names(), ["new"]);
    open(&ModelSource::Folder(to), None);
}

#[test]
fn values_that_are_not_finite_are_refused_and_leave_nothing() {
    let dir = Dir::new();
    let model = dir.copy_of_tiny("model");
    let file = model.join(DIT);
    let mut bytes = fs::read(&file).unwrap();
    let len = bytes.len();
    bytes[len - 2..].copy_from_slice(&[0xc0, 0x7f]); // a NaN in bf16
    fs::write(&file, bytes).unwrap();
    for quantization in ALL {
        let error = converted(&model, &dir.path("new"), quantization).unwrap_err();
        assert!(matches!(error, Error::WeightsNotFinite { .. }), "{error:?}");
        assert_eq!(dir.names(), ["model"]);
    }
}

/// Asks for an end after some steps.
struct Impatient(CancelToken, usize);

impl Observer for Impatient {
    fn advance(&mut self, stage: Stage, done: usize) {
        if stage == Stage::Convert && done == self.1 {
            self.0.cancel();
        }
    }
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let dir = Dir::new();
    for after in [1, 2, 150, 300] {
        let cancel = CancelToken::default();
        let mut observer = Impatient(cancel.clone(), after);
        let options = options(Quantization::Q4, Existing::Refuse);
        let error = convert(&ModelSource::Folder(tiny()), &dir.path("new"), &options, &cancel, &mut observer)
            .unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error:?}");
        assert_eq!(dir.names(), [""; 0], "after {after} steps");
    }
}
