//! What works.

use std::fs;

use inkstone::codec::Metadata;
use serde_json::Value;

use crate::dir::{Dir, copy_model, golden, pixels, quick, same_pixels, tiny};

#[test]
fn a_bare_prompt_draws_and_prints_the_path() {
    let dir = Dir::new();
    let run = dir.run(quick(&["a red apple"]));
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "inkstone-7.png\n"), "{run:#?}");
    assert!(run.stderr.contains("seed 7") && run.stderr.contains("denoise"), "{}", run.stderr);
    assert!(!run.stderr.contains('\r') && !run.stderr.contains('\x1b'), "{:?}", run.stderr);
    let picture = pixels(&dir.path("inkstone-7.png"));
    assert_eq!((picture.width_px, picture.height_px), (128, 128));
}

#[test]
fn without_a_seed_one_is_chosen_and_printed() {
    let dir = Dir::new();
    let run = dir.run(["a red apple", "--steps", "1"]);
    let seed =
        run.stdout.trim().strip_prefix("inkstone-").and_then(|s| s.strip_suffix(".png")).unwrap().to_owned();
    assert!(run.stderr.contains(&format!("seed {seed} ")), "{run:#?}");
}

#[test]
fn the_folder_and_the_embedded_model_draw_the_same() {
    let dir = Dir::new();
    dir.ok(quick(&["a red apple", "-o", "a.png"]));
    dir.ok(quick(&[
        "gen",
        "-p",
        "a red apple",
        "-m",
        tiny().to_str().unwrap(),
        "--size",
        "128x128",
        "-o",
        "b.png",
    ]));
    assert!(same_pixels(&dir.path("a.png"), &dir.path("b.png")));
}

#[test]
fn weights_from_other_files_replace_the_models_own() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data");
    let file = |name: &str| golden.join(name).to_str().unwrap().to_owned();
    let dir = Dir::new();
    let model = file("qwen_tiny");
    let base = ["a cat", "-m", &model, "--size", "64x64", "-o"];
    dir.ok(quick(&[&base[..], &["plain.png"]].concat()));
    let (gguf, mlx) = (file("gguf/qwen_tiny_q4_K.gguf"), file("formats/text_encoder_mlx.safetensors"));
    for (flags, name) in [
        (&["--transformer", &gguf][..], "qwen_tiny+qwen_tiny_q4_K.gguf"),
        (
            &["--diffusion-model", &gguf, "--llm", &mlx],
            "qwen_tiny+text_encoder_mlx.safetensors+qwen_tiny_q4_K.gguf",
        ),
    ] {
        dir.ok(quick(&[&base[..], &["other.png", "--overwrite"], flags].concat()));
        assert!(!same_pixels(&dir.path("plain.png"), &dir.path("other.png")));
        // A replay of it by other weights would be another picture.
        let bytes = fs::read(dir.path("other.png")).unwrap();
        let (stored, _) = Metadata::read_png(&bytes).unwrap().unwrap();
        assert_eq!(stored.model.unwrap(), name);
    }
    for flag in ["--transformer", "-m"] {
        let alone = dir.refused(["a cat", flag, &gguf], "INK-0318", 3);
        assert!(alone.contains("no text encoder and no VAE") && alone.contains("--model FOLDER"), "{alone}");
    }
    // All parts on their own are the folder's model.
    let parts =
        ["transformer", "text_encoder", "vae", "tokenizer"].map(|part| file(&format!("qwen_tiny/{part}")));
    let flags = ["--transformer", "--text-encoder", "--vae", "--tokenizer"];
    let parts = flags.iter().zip(&parts).flat_map(|(flag, path)| [*flag, path.as_str()]);
    dir.ok(quick(
        &["a cat", "--size", "64x64", "-o", "parts.png"].into_iter().chain(parts).collect::<Vec<_>>(),
    ));
    assert!(same_pixels(&dir.path("plain.png"), &dir.path("parts.png")));
}

#[test]
fn size_steps_and_several_seeds() {
    let dir = Dir::new();
    let out = dir.ok([
        "a cat",
        "--size",
        "80x64",
        "--steps",
        "1",
        "--seed",
        "3",
        "--seed",
        "9",
        "-o",
        "{n}-{seed}.png",
    ]);
    assert_eq!(out, "1-3.png\n2-9.png\n");
    assert_eq!((pixels(&dir.path("1-3.png")).width_px, pixels(&dir.path("2-9.png")).height_px), (80, 64));
    let out = dir.ok(["a cat", "--count", "2", "--steps", "1", "--seed", "3", "-o", "cat.png"]);
    assert_eq!(out, "cat-1.png\ncat-2.png\n");
    assert_eq!(pixels(&dir.path("cat-1.png")).rgb.len(), 3 * 128 * 128);
    dir.ok(["a cat", "--steps", "1", "--seed", "4", "-o", "alone.png"]);
    assert!(fs::read(dir.path("alone.png")).unwrap() == fs::read(dir.path("cat-2.png")).unwrap());
}

#[test]
fn a_converted_model_draws_what_its_format_on_load_draws() {
    let dir = Dir::new();
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny");
    let run = dir.run(["convert", tiny, "-q", "q4", "-o", "new"]);
    assert!(
        run.stdout == "new\n" && run.stderr.contains("median") && run.stderr.contains("img_in: as stored"),
        "{run:#?}"
    );
    dir.ok(["a red apple", "--steps", "2", "--seed", "1", "-m", "new", "-o", "a.png"]);
    dir.ok(["a red apple", "--steps", "2", "--seed", "1", "-m", tiny, "-q", "q4", "-o", "b.png"]);
    assert!(same_pixels(&dir.path("a.png"), &dir.path("b.png")));
    assert!(dir.ok(["info", "b.png"]).contains("quantize: \"q4\""));
    dir.ok(["info", "--replay", "b.png", "-m", tiny, "-o", "c.png"]);
    assert!(same_pixels(&dir.path("b.png"), &dir.path("c.png")));

    let again = dir.run(["convert", tiny, "-q", "q8", "-o", "new"]);
    assert!(again.code == Some(2) && again.stderr.contains("INK-0203"), "{again:#?}");
    let again = dir.run(["convert", "new", "-q", "q8", "-o", "newer"]);
    assert!(again.code == Some(3) && again.stderr.contains("INK-0315"), "{again:#?}");
    let bad = dir.run(["convert", tiny, "-q", "q3", "-o", "newer"]);
    assert!(bad.code == Some(2) && bad.stderr.contains("int8, q8, q4"), "{bad:#?}");
    let event = dir.ok(["convert", tiny, "-q", "q8", "-o", "new", "--overwrite", "--json", "--no-progress"]);
    assert!(event.contains("\"event\":\"converted\"") && event.contains("\"sha256\""), "{event}");
}

#[test]
fn what_is_in_no_folder_is_converted_too() {
    let dir = Dir::new();
    let dit = |folder: &str| {
        fs::read(dir.path(folder).join("transformer/diffusion_pytorch_model.safetensors")).unwrap()
    };
    dir.ok(["convert", "tiny", "-q", "q8", "-o", "own"]);
    dir.ok(["convert", tiny().to_str().unwrap(), "-q", "q8", "-o", "folder"]);
    assert!(dit("own") == dit("folder"));
    let part = |name: &str| golden(name).to_str().unwrap().to_owned();
    let (encoder, model) = (part("formats/text_encoder.gguf"), part("qwen_tiny"));
    let run = dir.run(["convert", &model, "--text-encoder", &encoder, "-q", "q4", "-o", "parts"]);
    assert!(run.code == Some(0) && run.stderr.contains("is quantized already (q5_0): copied"), "{run:#?}");
    let draw =
        |more: &[&str]| dir.ok([&["a cat", "--size", "64x64", "--steps", "1", "--seed", "1"], more].concat());
    draw(&["-m", "parts", "-o", "a.png"]);
    draw(&["-m", &model, "--text-encoder", &encoder, "-q", "q4", "-o", "b.png"]);
    assert!(same_pixels(&dir.path("a.png"), &dir.path("b.png")));
    // Parts without a folder, of which one is missing.
    let alone = ["convert", "--text-encoder", &encoder, "-q", "q4", "-o", "alone"];
    let said = dir.refused(alone, "INK-0318", 3);
    assert!(
        said.contains("has no transformer") && said.contains("name the folder of a whole model"),
        "{said}"
    );
}

#[test]
fn what_stays_as_it_is_with_quantize_is_told() {
    let dir = Dir::new();
    let part = |name: &str| golden(name).to_str().unwrap().to_owned();
    let (model, transformer) = (part("qwen_tiny"), part("gguf/qwen_tiny_q4_K.gguf"));
    let with = ["a cat", "-m", &model, "--transformer", &transformer, "-q", "q4", "--size", "64x64"];
    let run = dir.run([&with[..], &["--steps", "1", "-o", "a.png"]].concat());
    let said = "the transformer is quantized already (";
    assert!(run.code == Some(0) && run.stderr.matches(said).count() == 1, "{run:#?}");
    // Its bytes are what int8 multiplies.
    let transformer = part("formats/transformer_convrot.safetensors");
    let bytes = ["a cat", "-m", &model, "--transformer", &transformer, "-q", "int8", "--size", "64x64"];
    let run = dir.run([&bytes[..], &["--steps", "1", "-o", "b.png"]].concat());
    assert!(run.code == Some(0) && !run.stderr.contains(said), "{run:#?}");
    let encoder = part("formats/text_encoder.gguf");
    let said = dir.refused([&with[..], &["--text-encoder", &encoder]].concat(), "INK-0315", 3);
    assert!(said.contains("without --quantize"), "{said}");
}

#[test]
fn a_picture_to_start_from() {
    let dir = Dir::new();
    dir.ok(quick(&["a red apple", "-o", "a=1.png"]));
    dir.ok(quick(&["a blue apple", "-i", "a=1.png=0.5", "-o", "b.png"]));
    dir.ok(quick(&["a blue apple", "--init-img", "a=1.png", "-o", "c.png"]));
    assert!(!same_pixels(&dir.path("b.png"), &dir.path("c.png")));
    // A replay needs the picture again, and then gives the same.
    assert!(dir.refused(["info", "--replay", "b.png"], "INK-0250", 2).contains("--image"));
    dir.ok(["info", "--replay", "b.png", "-i", "a=1.png", "-o", "d.png"]);
    assert!(same_pixels(&dir.path("b.png"), &dir.path("d.png")));
}

/// A safetensors file with one tensor more.
fn with_tensor(name: &str, file: &[u8]) -> Vec<u8> {
    let (len, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*len)).unwrap());
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let offsets = [data.len(), data.len() + 2];
    header[name] = serde_json::json!({"dtype": "BF16", "shape": [1], "data_offsets": offsets});
    let header = header.to_string();
    let len = (header.len() as u64).to_le_bytes();
    [&len, header.as_bytes(), data, &[0, 0]].concat()
}

#[test]
fn a_tensor_too_many_is_a_warning() {
    let dir = Dir::new();
    copy_model(&dir.path("model"));
    let weights = dir.path("model/transformer/diffusion_pytorch_model.safetensors");
    fs::write(&weights, with_tensor("blocks.extra", &fs::read(&weights).unwrap())).unwrap();
    let draw = quick(&["a red apple", "-m", "model"]);
    let run = dir.run([&draw[..], &["-o", "a.png"]].concat());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "a.png\n"), "{run:#?}");
    let warnings: Vec<&str> = run.stderr.lines().filter(|l| l.starts_with("warning: ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("blocks.extra"), "{run:#?}");
    let quiet = dir.run([&draw[..], &["-o", "b.png", "-Q"]].concat());
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
    let events = dir.ok([&draw[..], &["-o", "c.png", "--json"]].concat());
    assert!(
        events.contains(
            r#"{"event":"warning","text":"the transformer has a tensor that is not used: blocks.extra"#
        ),
        "{events}"
    );
    dir.ok(quick(&["a red apple", "-o", "d.png"]));
    assert!(same_pixels(&dir.path("a.png"), &dir.path("d.png")));
}

#[test]
fn guidance_is_mapped_with_a_note() {
    let dir = Dir::new();
    let run = dir.run(["a cat", "--guidance", "2.5", "--dry-run"]);
    assert!(
        run.stdout.contains("true-cfg-scale: 2.5") && run.stderr.contains("--true-cfg-scale 2.5"),
        "{run:#?}"
    );
}

#[test]
fn events_are_one_json_object_a_line() {
    let dir = Dir::new();
    let run = dir.run(quick(&["a red apple", "--json"]));
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["path"], &last["seed"]),
        (&"picture".into(), &"inkstone-7.png".into(), &7.into())
    );
    let steps: Vec<u64> = events
        .iter()
        .filter(|e| e["event"] == "progress" && e["stage"] == "denoise")
        .map(|e| e["done"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2]);
    let run = dir.run(["a red apple", "--steps", "0", "--json"]);
    let error: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((run.code, &error["code"]), (Some(2), &"INK-0201".into()), "{run:#?}");
}

#[test]
fn quiet_and_verbose() {
    let dir = Dir::new();
    let run = dir.run(quick(&["a red apple", "-Q"]));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("inkstone-7.png\n", ""));
    let run = dir.run(quick(&["a red apple", "-v", "--no-progress"]));
    assert!(run.stderr.contains("peak memory"), "{}", run.stderr);
    for stage in ["text", "denoise", "decode", "total"] {
        assert!(run.stderr.lines().any(|l| l.starts_with(stage)), "{stage} is not in\n{}", run.stderr);
    }
    if cfg!(target_os = "linux") {
        assert!(run.stderr.contains("MiB"), "{}", run.stderr);
    }
}

#[test]
fn a_dry_run_prints_the_request_and_draws_nothing() {
    let dir = Dir::new();
    let out = dir.ok(["a \"red\" apple", "--aspect", "16:9", "--dry-run", "--seed", "5"]);
    for line in ["prompt: \"a \\\"red\\\" apple\"", "width: 176", "height: 96", "steps: 20", "seed: 5"] {
        assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
    }
    assert!(out.contains("true-cfg-scale: 4") && out.contains("negative-prompt: \" \""), "{out}");
    assert!(dir.files().is_empty());
}

#[test]
fn prompts_from_files() {
    let dir = Dir::new();
    dir.write("p.txt", "\u{feff}a cat\nin a hat\r\n");
    let out = dir.ok(["--prompt-file", "p.txt", "--dry-run"]);
    assert!(out.contains("prompt: \"a cat\\nin a hat\""), "{out}");
    dir.write("bad.txt", b"a \xff cat");
    dir.refused(["--prompt-file", "bad.txt"], "INK-0250", 2);
    dir.write("long.txt", "x".repeat(200_000));
    dir.refused(["--prompt-file", "long.txt"], "INK-0250", 2);
}

#[test]
fn help_completions_and_manual() {
    let dir = Dir::new();
    for args in [&["--help"][..], &["-h"], &["help", "generate"], &["info", "--help"], &["--version"]] {
        assert!(dir.ok(args).contains("inkstone"), "{args:?}");
    }
    let help = dir.ok(["generate", "--help"]);
    assert!(help.contains("{seed} {n} {model} {date}"), "{help}");
    for later in ["serve", "--mask"] {
        assert!(!help.contains(later), "{later} is in the help");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(dir.ok(["completions", shell]).contains("true-cfg-scale"));
    }
    assert!(dir.ok(["man"]).contains(".TH"));
}

#[test]
fn no_arguments_without_a_terminal() {
    let dir = Dir::new();
    let run = dir.run([""; 0]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(run.stderr.contains("Usage: inkstone") && run.stderr.contains("--prompt"), "{}", run.stderr);
}
