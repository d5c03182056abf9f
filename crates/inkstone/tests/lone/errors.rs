//! What is missing or does not fit in files without a folder is named, with what to do.

use inkstone::Error;
use inkstone::error::{Found, TokenizerProblem};
use inkstone::weights::{Component, ModelFiles, ModelSource, Parts, ReadOptions};

use crate::files::{Dir, golden};
use crate::tiny::{self, Tables};

fn parts(dir: &Dir, tables: &Tables) -> Parts {
    Parts {
        transformer: Some(tiny::comfy_transformer(dir)),
        text_encoder: Some(tiny::gguf_encoder(dir, tables)),
        vae: Some(tiny::wan_vae(dir)),
        tokenizer: None,
    }
}

fn open(parts: &Parts) -> Result<ModelFiles, Error> {
    ModelFiles::open(&ModelSource::Files(parts.clone()), ReadOptions::default())
}

#[test]
fn parts_that_are_missing_are_named() {
    let dir = Dir::new("missing");
    let whole = parts(&dir, &Tables::default());
    for (part, missing) in [
        (Parts { vae: None, ..whole.clone() }, vec![Component::Vae]),
        (Parts { transformer: None, ..whole.clone() }, vec![Component::Transformer]),
        (
            Parts { transformer: None, text_encoder: None, ..whole.clone() },
            vec![Component::TextEncoder, Component::Transformer],
        ),
        (Parts::default(), Component::ALL.to_vec()),
    ] {
        let error = open(&part).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("INK-0318", 3));
        assert!(missing.iter().all(|part| error.to_string().contains(part.name())), "{error}");
        let Error::MissingParts { missing: found } = error else { panic!() };
        assert_eq!(found, missing);
    }
}

#[test]
fn a_named_folder_without_weights_and_a_file_that_is_not_there_come_first() {
    let dir = Dir::new("nothing");
    let folder = dir.0.join("empty");
    std::fs::create_dir(&folder).unwrap();
    let named = |path: &std::path::Path| Parts { transformer: Some(path.to_owned()), ..Parts::default() };
    let whole = |parts| ModelSource::Pieces { folder: golden("qwen_tiny"), parts };
    for source in [ModelSource::Files(named(&folder)), whole(named(&folder))] {
        let error = ModelFiles::open(&source, ReadOptions::default())
            .and_then(|files| files.weight_bytes())
            .unwrap_err();
        let Error::UnsupportedModel { path, found: Found::NoWeights { wanted, usual } } = &error else {
            panic!("{error:?}")
        };
        assert_eq!((path, *wanted), (&folder, Component::Transformer));
        assert_eq!(usual, "diffusion_pytorch_model.safetensors");
        assert!(error.cure().contains("name the file itself"));
    }
    // Parts that are missing too are no help to who mistyped a name.
    let error = open(&named(&dir.0.join("none.safetensors"))).unwrap_err();
    assert!(matches!(error, Error::ModelRead { .. }), "{error:?}");
}

#[test]
fn files_of_other_parts_are_told() {
    let dir = Dir::new("swapped");
    let whole = parts(&dir, &Tables::default());
    let found = |source: &ModelSource| match ModelFiles::open(source, ReadOptions::default()) {
        Err(Error::UnsupportedModel { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    let swapped = Parts { vae: whole.transformer.clone(), transformer: whole.vae.clone(), ..whole.clone() };
    assert_eq!(found(&ModelSource::Files(swapped)), Found::OtherPart { wanted: Component::Transformer });
    let file = whole.vae.clone().unwrap();
    assert_eq!(found(&ModelSource::Pieces { folder: file, parts: whole.clone() }), Found::NamedTwice);
    let with_lora = Parts { transformer: Some(golden("lora/qwen_kohya.safetensors")), ..whole };
    assert_eq!(found(&ModelSource::Files(with_lora)), Found::LoneFile { holds: "a LoRA" });
}

#[test]
fn a_tokenizer_that_is_nowhere_is_asked_for() {
    let dir = Dir::new("no-tokenizer");
    let whole = parts(&dir, &Tables::default());
    let encoder = tiny::comfy_encoder(&dir);
    let without = Parts { text_encoder: Some(encoder.clone()), ..whole.clone() };
    let error = open(&without).unwrap().tokenizer().unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("INK-0319", 3));
    assert!(matches!(&error, Error::MissingTokenizer { path } if *path == encoder), "{error}");
    assert!(error.cure().contains("--tokenizer FILE"));
    for path in ["no/such/file.json", "qwen_tiny/vae"] {
        let elsewhere = Parts { tokenizer: Some(golden(path)), ..whole.clone() };
        let error = open(&elsewhere).unwrap().tokenizer().unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. } | Error::ModelNotFound { .. }), "{error}");
    }
}

#[test]
fn row_21_tables_of_a_gguf_that_lie() {
    let dir = Dir::new("tables");
    let refused = |change: &dyn Fn(&mut Tables)| {
        let mut tables = Tables::default();
        change(&mut tables);
        let files = open(&parts(&dir, &tables)).unwrap();
        match files.tokenizer() {
            Err(Error::Tokenizer { path, problem }) => {
                assert!(path.ends_with("encoder.gguf"));
                problem
            }
            other => panic!("{:?}", other.map(|text| text.len())),
        }
    };
    let model = refused(&|tables| tables.model = "llama");
    assert!(matches!(model, TokenizerProblem::NotQwen { part: "model", .. }), "{model}");
    let split = refused(&|tables| tables.split = "llama-bpe");
    assert!(matches!(split, TokenizerProblem::NotQwen { part: "pre-tokenizer", .. }), "{split}");
    let short = refused(&|tables| tables.types.truncate(300));
    assert!(matches!(short, TokenizerProblem::Refused { .. }), "{short}");
    let merge = refused(&|tables| tables.merges[2] = "one".into());
    assert_eq!(merge, TokenizerProblem::BadMerge { line: 3 });
    let beyond = refused(&|tables| {
        tables.tokens.push("beyond the embeddings".into());
        tables.types.push(1);
    });
    assert!(matches!(beyond, TokenizerProblem::IdOutOfRange { id: 512, .. }), "{beyond}");
    let many = refused(&|tables| tables.merges = vec!["a b".into(); 300_001]);
    assert!(matches!(many, TokenizerProblem::TooMany { what: "merges", .. }), "{many}");
    let mut twice = Tables::default();
    twice.tokens[3] = twice.tokens[4].clone();
    let error = open(&parts(&dir, &twice)).unwrap().tokenizer().unwrap_err();
    assert_eq!(error.code(), "INK-0310", "{error}");
}

#[test]
fn a_language_model_of_another_kind_is_told() {
    let dir = Dir::new("llama");
    let error = open(&parts(&dir, &Tables { architecture: "llama", ..Tables::default() })).unwrap();
    let config = error.json("text_encoder/config.json").unwrap();
    let error = inkstone::models::qwen25_vl::Config::from_json(config).unwrap_err();
    assert_eq!(error.code(), "INK-0320");
    assert!(error.to_string().contains("llama"), "{error}");
}
