//! Models of files without a folder around them: the same pictures as from a folder, and what is missing is told.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here, in functions beside the tests too")]

#[path = "lone/convert.rs"]
mod convert;
#[path = "lone/errors.rs"]
mod errors;
#[path = "lone/files.rs"]
mod files;
#[path = "lone/shards.rs"]
mod shards;
#[path = "lone/tiny.rs"]
mod tiny;

use inkstone::text::PromptTokenizer;
use inkstone::weights::{ModelFiles, ModelSource, Parts, Quantization, ReadOptions, Strictness};
use inkstone::{OpenOptions, Pipeline, Precision};

use files::{Dir, golden};

const PROMPTS: [&str; 2] = ["a photo of a cat", "一只猫, 3.14"];

/// The pixels of small pictures.
fn pixels(source: &ModelSource) -> Vec<Vec<u8>> {
    pixels_in(source, None)
}

/// The same with weights in a smaller format.
fn pixels_in(source: &ModelSource, quantization: Option<Quantization>) -> Vec<Vec<u8>> {
    let read = ReadOptions { strictness: Strictness::RefuseExtra, ..ReadOptions::default() };
    let precision = Precision::F32;
    let options = OpenOptions { threads: Some(2), precision, quantization, read, ..OpenOptions::default() };
    let mut pipeline = Pipeline::open(source, &options).unwrap_or_else(|error| panic!("{source:?}: {error}"));
    let mut pictures = Vec::new();
    for prompt in PROMPTS {
        let request = inkstone::Request {
            prompt: prompt.into(),
            negative_prompt: Some(" ".into()),
            width_px: 64,
            height_px: 96,
            steps: 2,
            seed: 7,
            true_cfg_scale: 4.0,
            init: None,
        };
        let drawn = pipeline.draw(&[request], &Default::default(), &mut inkstone::progress::Silent).unwrap();
        pictures.push(drawn[0].pixels.rgb.clone());
    }
    assert_ne!(pictures[0], pictures[1]);
    pictures
}

/// The ids of prompts.
fn ids(source: &ModelSource) -> Vec<Vec<u32>> {
    let files = ModelFiles::open(source, ReadOptions::default()).unwrap();
    let tokenizer = PromptTokenizer::from_json(&files.tokenizer().unwrap()).unwrap();
    let texts = [PROMPTS[0], PROMPTS[1], "<|im_end|> tabs\tand   spaces\r\n\n12345 naïve 🐈‍⬛ don't", ""];
    texts.map(|text| tokenizer.encode(text).unwrap().ids).to_vec()
}

#[test]
fn three_files_draw_what_the_folder_draws() {
    let dir = Dir::new("three");
    let folder = tiny::folder(&dir);
    let want = (pixels(&ModelSource::Folder(folder.clone())), ids(&ModelSource::Folder(folder.clone())));
    let parts = Parts {
        transformer: Some(tiny::comfy_transformer(&dir)),
        text_encoder: Some(tiny::gguf_encoder(&dir, &tiny::Tables::default())),
        vae: Some(tiny::wan_vae(&dir)),
        tokenizer: None,
    };
    let tokenizer = Some(golden("qwen_tiny/tokenizer/tokenizer.json"));
    let encoder = Some(tiny::comfy_encoder(&dir));
    let pieces = |name: &str, parts: Parts| ModelSource::Pieces { folder: dir.0.join(name), parts };
    for source in [
        ModelSource::Files(parts.clone()),
        // The transformer's file in place of a folder, as `--model` names it.
        pieces("comfy.safetensors", Parts { transformer: None, ..parts.clone() }),
        pieces("encoder.gguf", Parts { text_encoder: None, ..parts.clone() }),
        // A text encoder of plain weights, and the tokenizer from elsewhere: a file, a folder.
        ModelSource::Files(Parts {
            text_encoder: encoder.clone(),
            tokenizer: tokenizer.clone(),
            ..parts.clone()
        }),
        ModelSource::Files(Parts {
            text_encoder: encoder,
            tokenizer: Some(folder.join("tokenizer")),
            ..parts
        }),
        // All in one file.
        pieces(&tiny::whole(&dir), Parts { tokenizer, ..Parts::default() }),
    ] {
        assert_eq!(ids(&source), want.1, "{source:?}");
        assert_eq!(pixels(&source), want.0, "{source:?}");
    }
}

#[test]
fn parts_in_folders_of_their_own_bring_their_configs() {
    // Heads of 32, which no shape could explain.
    let part = |name: &str| Some(golden("qwen_tiny").join(name));
    let parts = Parts {
        transformer: part("transformer"),
        text_encoder: part("text_encoder"),
        vae: part("vae"),
        tokenizer: part("tokenizer"),
    };
    let folder = ModelSource::Folder(golden("qwen_tiny"));
    assert_eq!(pixels(&ModelSource::Files(parts)), pixels(&folder));
}

#[test]
fn a_folder_without_configs_is_read_by_its_shapes() {
    let dir = Dir::new("bare");
    let folder = tiny::folder(&dir);
    let want = pixels(&ModelSource::Folder(folder.clone()));
    for name in ["model_index.json", "transformer/config.json", "text_encoder/config.json", "vae/config.json"]
    {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    std::fs::remove_dir_all(folder.join("scheduler")).unwrap();
    assert_eq!(pixels(&ModelSource::Folder(folder)), want);
}

#[test]
fn a_folder_needs_no_config_of_a_part_that_is_named() {
    let dir = Dir::new("rest");
    let folder = tiny::folder(&dir);
    let want = pixels(&ModelSource::Folder(folder.clone()));
    let named = [
        ("transformer", Parts { transformer: Some(tiny::comfy_transformer(&dir)), ..Parts::default() }),
        (
            "text_encoder",
            Parts {
                text_encoder: Some(tiny::gguf_encoder(&dir, &tiny::Tables::default())),
                ..Parts::default()
            },
        ),
        ("vae", Parts { vae: Some(tiny::wan_vae(&dir)), ..Parts::default() }),
    ];
    for (part, parts) in named {
        let (there, away) = (folder.join(part), dir.0.join(part));
        std::fs::rename(&there, &away).unwrap();
        let source = ModelSource::Pieces { folder: folder.clone(), parts };
        assert_eq!(pixels(&source), want, "{part}");
        // One of another part does not help, and the missing one is named.
        let error = ModelFiles::open(&ModelSource::Folder(folder.clone()), ReadOptions::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&format!("{part}/config.json")), "{error}");
        // A folder that is named brings its config.
        let own = Parts {
            transformer: (part == "transformer").then(|| away.clone()),
            text_encoder: (part == "text_encoder").then(|| away.clone()),
            vae: (part == "vae").then(|| away.clone()),
            tokenizer: None,
        };
        assert_eq!(pixels(&ModelSource::Pieces { folder: folder.clone(), parts: own }), want, "{part}");
        std::fs::rename(&away, &there).unwrap();
    }
    // That of the folder counts where there are two.
    let parts = Parts { transformer: Some(dir.0.join("comfy.safetensors")), ..Parts::default() };
    dir.write("model/transformer/config.json", "{");
    let error = ModelFiles::open(&ModelSource::Pieces { folder, parts }, ReadOptions::default()).unwrap_err();
    assert_eq!(error.code(), "INK-0310", "{error}");
}

#[test]
fn a_folder_of_mflux_is_a_model() {
    let dir = Dir::new("mflux");
    let want = pixels(&ModelSource::Folder(tiny::folder(&dir)));
    let folder = tiny::mflux(&dir);
    assert_eq!(pixels(&ModelSource::Folder(folder.clone())), want);
    // Its parts replace those of others too.
    let parts = Parts { vae: Some(folder.join("vae")), ..Parts::default() };
    assert_eq!(pixels(&ModelSource::Pieces { folder: dir.0.join("model"), parts }), want);
}

#[test]
fn tokens_that_only_look_special_are_found_in_texts() {
    const CONTROL: i32 = 3;
    let dir = Dir::new("special");
    let mut tables = tiny::Tables::default();
    for (id, token) in [(510, "<|fim_prefix|>"), (511, "<|secret|>")] {
        (tables.tokens[id], tables.types[id]) = (token.into(), CONTROL);
    }
    let parts = Parts {
        transformer: Some(tiny::comfy_transformer(&dir)),
        text_encoder: Some(tiny::gguf_encoder(&dir, &tables)),
        vae: Some(tiny::wan_vae(&dir)),
        tokenizer: None,
    };
    let files = ModelFiles::open(&ModelSource::Files(parts), ReadOptions::default()).unwrap();
    // In the file each text has 8 bytes of length before it.
    let texts = tables.tokens.iter().chain(&tables.merges);
    assert_eq!(files.tokenizer_file_bytes(), texts.map(|text| 8 + text.len()).sum::<usize>());
    let tokenizer = PromptTokenizer::from_json(&files.tokenizer().unwrap()).unwrap();
    let ids = tokenizer.encode("a <|fim_prefix|> and a <|secret|>").unwrap().ids;
    assert_eq!((ids.contains(&510), ids.contains(&511)), (true, false), "{ids:?}");
}

#[test]
fn names_of_files_are_part_of_the_models() {
    let dir = Dir::new("names");
    let parts = Parts {
        transformer: Some(tiny::comfy_transformer(&dir)),
        text_encoder: Some(tiny::gguf_encoder(&dir, &tiny::Tables::default())),
        vae: Some(tiny::wan_vae(&dir)),
        tokenizer: None,
    };
    let files = ModelFiles::open(&ModelSource::Files(parts), ReadOptions::default()).unwrap();
    assert_eq!(files.name(), "encoder.gguf+comfy.safetensors+wan.safetensors");
}
