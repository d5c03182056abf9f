//! Rows 12 to 15: folders and files that are something else, broken or changed.

use std::fs;
use std::path::Path;

use inkstone::Error;
use inkstone::error::{FileFormat, Found};
use inkstone::weights::{Component, ModelFiles, ModelSource, ReadOptions, Residence, Scan};
use inkstone_tensor::{DType, Device, Shape, Tensor};

use crate::dir::{Dir, WEIGHTS, device, golden, open, sample, transformer};

fn found(result: Result<ModelFiles, Error>) -> Found {
    match result {
        Err(Error::UnsupportedModel { found, .. }) => found,
        other => panic!("{other:?}"),
    }
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
    for (name, others) in [
        (WEIGHTS, [Component::TextEncoder, Component::Vae]),
        ("text_encoder/model.safetensors", [Component::Transformer, Component::Vae]),
        ("vae/diffusion_pytorch_model.safetensors", [Component::TextEncoder, Component::Transformer]),
    ] {
        let error = open(&golden().join(name)).unwrap_err();
        assert_eq!(error.code(), "INK-0318");
        let Error::MissingParts { missing } = error else { panic!("{name}") };
        assert_eq!(missing, others, "{name}");
    }
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
        (FileFormat::LfsPointer, &b"version https://git-lfs.github.com/spec/v1\n"[..]),
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
fn errors_of_the_engine_keep_their_meaning() {
    let error = Error::from(Tensor::empty(&device(), DType::F32, Shape::vector(1 << 48)).unwrap_err());
    assert_eq!((error.code(), error.exit_code()), ("INK-0402", 4), "{error}");
    let options = inkstone_tensor::cpu::Options { isa: Some("mmx".into()), ..Default::default() };
    let error = Error::from(Device::cpu(&options).unwrap_err());
    assert_eq!((error.code(), error.exit_code()), ("INK-0202", 2), "{error}");
}
