//! Parts in several files: the same pictures from any one of them that is named, from their index and from their folder.

use std::fs;
use std::path::Path;

use inkstone::Error;
use inkstone::error::{GgufProblem, ShardProblem};
use inkstone::weights::{ModelFiles, ModelSource, Parts, ReadOptions};

use crate::files::{Dir, golden};
use crate::{ids, pixels, tiny};

const NAMES: [&str; 3] = ["q-00001-of-00003.gguf", "q-00002-of-00003.gguf", "q-00003-of-00003.gguf"];
const VARIANT: [&str; 2] =
    ["diffusion_pytorch_model.fp16", "diffusion_pytorch_model.safetensors.index.fp16.json"];

fn error(source: &ModelSource) -> Error {
    let files = ModelFiles::open(source, ReadOptions::default());
    files.and_then(|files| files.weight_bytes()).unwrap_err()
}

/// A folder in which a part is replaced.
fn with_transformer(folder: &Path, transformer: &Path) -> ModelSource {
    let parts = Parts { transformer: Some(transformer.to_owned()), ..Parts::default() };
    ModelSource::Pieces { folder: folder.to_owned(), parts }
}

#[test]
fn a_gguf_file_that_was_split_is_read_from_any_of_its_parts() {
    let dir = Dir::new("split");
    let folder = ModelSource::Folder(tiny::folder(&dir));
    let want = (pixels(&folder), ids(&folder));
    let parts = Parts {
        transformer: Some(tiny::comfy_transformer(&dir)),
        text_encoder: None,
        vae: Some(tiny::wan_vae(&dir)),
        tokenizer: None,
    };
    let named = |path: &Path| Parts { text_encoder: Some(path.to_owned()), ..parts.clone() };
    let files = tiny::split_encoder(&dir, NAMES);
    let mut sources = files.each_ref().map(|path| ModelSource::Files(named(path))).to_vec();
    sources.push(ModelSource::Pieces { folder: files[1].clone(), parts: parts.clone() });
    // In the folder of a part, alone.
    let inside =
        tiny::split_encoder(&dir, NAMES.map(|name| format!("encoder/{name}")).each_ref().map(String::as_str));
    let tokenizer = Some(golden("qwen_tiny/tokenizer/tokenizer.json"));
    let beside = Parts { tokenizer, ..named(inside[0].parent().unwrap()) };
    sources.push(ModelSource::Files(beside));
    for source in sources {
        assert_eq!(ids(&source), want.1, "{source:?}");
        assert_eq!(pixels(&source), want.0, "{source:?}");
    }

    fs::remove_file(&files[1]).unwrap();
    for path in [&files[0], &files[2]] {
        let error = error(&ModelSource::Files(named(path)));
        let want = ShardProblem::Alone { of: 3, count: 1, first: vec![NAMES[1].into()] };
        assert!(matches!(&error, Error::Shards { problem, .. } if *problem == want), "{error}");
        assert!(error.cure().contains("into one folder"), "{}", error.cure());
    }
}

#[test]
fn parts_of_a_gguf_file_under_other_names_are_told_so() {
    let dir = Dir::new("misnamed");
    let folder = tiny::folder(&dir);
    let open = |encoder: &Path, folder: &Path| {
        let parts = Parts { text_encoder: Some(encoder.to_owned()), ..Parts::default() };
        let source = ModelSource::Pieces { folder: folder.to_owned(), parts };
        let files = ModelFiles::open(&source, ReadOptions::default())?;
        let device = crate::files::device();
        files
            .loader(inkstone::weights::Component::TextEncoder, &device, inkstone_tensor::DType::F32)
            .map(drop)
    };
    let swapped = ["q-00002-of-00003.gguf", "q-00001-of-00003.gguf", "q-00003-of-00003.gguf"];
    for (names, named, part) in [(["a.gguf", "b.gguf", "c.gguf"], 1, 2), (swapped, 2, 2)] {
        let files = tiny::split_encoder(&dir, names);
        fs::write(folder.join("text_encoder/config.json"), "{}").unwrap();
        let with_config = open(&files[named], &folder).unwrap_err();
        fs::remove_file(folder.join("text_encoder/config.json")).unwrap();
        for error in [with_config, open(&files[named], &folder).unwrap_err()] {
            let Error::Gguf { problem, .. } = &error else { panic!("{error:?}") };
            assert_eq!(**problem, GgufProblem::Split { number: part, count: 3 });
            assert!(error.cure().contains("llama-gguf-split --merge"), "{}", error.cure());
        }
    }
}

#[test]
fn a_sharded_variant_of_a_folder_is_read() {
    let dir = Dir::new("variant");
    let folder = tiny::folder(&dir);
    let source = ModelSource::Folder(folder.clone());
    let want = pixels(&source);
    let shards = tiny::shards(&dir, "transformer", VARIANT[0], VARIANT[1]);
    tiny::shards(&dir, "text_encoder", "model.fp16", "model.safetensors.index.fp16.json");
    assert_eq!(pixels(&source), want);
    // The names say the same without an index.
    let index = folder.join("transformer").join(VARIANT[1]);
    let listed = fs::read(&index).unwrap();
    fs::remove_file(&index).unwrap();
    assert_eq!(pixels(&source), want);
    // Another variant beside it: which one is wanted nobody knows.
    fs::write(folder.join("transformer/diffusion_pytorch_model.bf16.safetensors"), "").unwrap();
    assert_eq!(error(&source).code(), "INK-0304");
    fs::write(&index, &listed).unwrap();
    assert_eq!(pixels(&source), want);
    fs::remove_file(&shards[2]).unwrap();
    let error = error(&source);
    assert!(matches!(&error, Error::Shards { problem: ShardProblem::MissingShards { .. }, .. }), "{error}");
}

#[test]
fn an_index_and_one_of_its_shards_stand_for_all() {
    let dir = Dir::new("named");
    let folder = tiny::folder(&dir);
    let want = pixels(&ModelSource::Folder(folder.clone()));
    for [name, index] in [["t", "t.safetensors.index.json"], VARIANT] {
        let whole = fs::read(folder.join("transformer/diffusion_pytorch_model.safetensors")).unwrap();
        let shards = tiny::shards(&dir, "transformer", name, index);
        let index = folder.join("transformer").join(index);
        for path in [&index, &shards[0], &shards[1]] {
            assert_eq!(pixels(&with_transformer(&folder, path)), want, "{path:?}");
        }
        // An index that is hostile is no better for being named, nor is it for a shard.
        let listed = fs::read_to_string(&index).unwrap();
        fs::write(&index, listed.replace(&format!("{name}-00002"), "../x-00002")).unwrap();
        for path in [&index, &shards[1]] {
            let error = error(&with_transformer(&folder, path));
            assert!(
                matches!(&error, Error::Shards { problem: ShardProblem::BadName { .. }, .. }),
                "{path:?}: {error}"
            );
        }
        fs::remove_file(&index).unwrap();
        assert_eq!(pixels(&with_transformer(&folder, &shards[2])), want);
        fs::remove_file(&shards[0]).unwrap();
        let error = error(&with_transformer(&folder, &shards[1]));
        let text = error.to_string();
        assert!(
            text.contains("it is one of 3, and 1 of them are not beside it") && text.contains("-00001-of"),
            "{text}"
        );
        for shard in &shards[1..] {
            fs::remove_file(shard).unwrap();
        }
        fs::write(folder.join("transformer/diffusion_pytorch_model.safetensors"), whole).unwrap();
    }
}

/// Thousands of files are asked for by no name: the limit comes first.
#[test]
fn a_name_of_too_many_shards_is_refused() {
    let dir = Dir::new("many");
    let folder = tiny::folder(&dir);
    for name in ["a-00001-of-99999.safetensors", "a-00001-of-99999.gguf"] {
        let path = dir.write(name, "");
        let error = error(&with_transformer(&folder, &path));
        let want = ShardProblem::TooMany { what: "files", limit: 1000 };
        assert!(matches!(&error, Error::Shards { problem, .. } if *problem == want), "{error}");
    }
}
