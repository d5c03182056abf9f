//! LoRAs: drawing with them, replaying, looking into files.

use std::fs;

use serde_json::Value;

use crate::dir::{Dir, golden};
#[cfg(target_os = "linux")]
use {
    crate::dir::{Run, finish},
    crate::group::Group,
};

/// Draws a small picture with the tiny model of the fixtures.
fn quick(more: &[&str]) -> Vec<String> {
    let model = golden("qwen_tiny");
    let base =
        ["generate", "a cat", "-m", model.to_str().unwrap(), "--size", "64x64", "--seed", "7", "--overwrite"];
    let steps = if more.contains(&"--steps") { &[][..] } else { &["--steps", "2"] };
    base.iter().chain(steps).chain(more).map(|s| (*s).to_owned()).collect()
}

fn lora(dir: &Dir, name: &str) -> String {
    fs::copy(golden("lora/qwen_diffusers.safetensors"), dir.path(name)).unwrap();
    name.to_owned()
}

#[test]
fn a_picture_records_its_loras_and_replays_with_them() {
    let dir = Dir::new();
    let plain = quick(&["-o", "plain.png"]);
    dir.ok(&plain);
    let file = lora(&dir, "ink.safetensors");
    dir.ok(quick(&["-o", "a.png", "--lora", &format!("{file}=0.5")]));
    assert_ne!(fs::read(dir.path("plain.png")).unwrap(), fs::read(dir.path("a.png")).unwrap());
    let info: Value = serde_json::from_str(&dir.ok(["info", "a.png", "--json"])).unwrap();
    let record = &info["loras"][0];
    assert_eq!((&record["name"], &record["scale"]), (&"ink.safetensors".into(), &0.5.into()));
    assert_eq!(record["sha256"].as_str().unwrap().len(), 64);

    let model = golden("qwen_tiny");
    let replay = |more: &[&str]| -> Vec<String> {
        let base = ["info", "--replay", "a.png", "-m", model.to_str().unwrap(), "-o", "again.png"];
        base.iter().chain(more).map(|s| (*s).to_owned()).collect()
    };
    // The scale is the stored one; the file must be named again and be the same.
    let run = dir.run(replay(&["--lora", &file]));
    assert!(run.code == Some(0) && run.stderr.contains("the pixels are those of a.png"), "{run:#?}");
    let missing = dir.refused(replay(&[]), "INK-0250", 2);
    assert!(
        missing.contains("ink.safetensors, which is not given") && missing.contains("--lora PATH"),
        "{missing}"
    );
    fs::copy(golden("lora/qwen_default.safetensors"), dir.path(&file)).unwrap();
    let changed = dir.refused(replay(&["--lora", &file]), "INK-0250", 2);
    assert!(changed.contains("is another one"), "{changed}");
}

#[test]
fn lightning_decides_what_flags_do_not() {
    let dir = Dir::new();
    let file = lora(&dir, "Qwen-Image-Lightning-4steps-V1.0.safetensors");
    let model = golden("qwen_tiny");
    let args =
        ["generate", "a cat", "-m", model.to_str().unwrap(), "--size", "64x64", "--lora", &file, "--dry-run"];
    let said = dir.ok(args);
    assert!(said.contains("steps: 4\n") && said.contains("true-cfg-scale: 1.0\n"), "{said}");
    let name = format!("loras: [{{\"name\":\"{file}\",\"scale\":1.0}}]");
    assert!(said.contains(&name), "{name} is not in {said}");
    let said = dir.ok(args.iter().copied().chain(["--steps", "8", "--true-cfg-scale", "2"]));
    assert!(said.contains("steps: 8\n") && said.contains("true-cfg-scale: 2.0\n"), "{said}");
}

#[test]
fn fault_24_and_25_wrong_loras_are_refused_before_anything_is_drawn() {
    let dir = Dir::new();
    let file = lora(&dir, "x.safetensors");
    for scale in ["NaN", "inf", "1e9", "-11"] {
        let said = dir.refused(quick(&["--lora", &format!("{file}={scale}")]), "INK-0201", 2);
        assert!(said.contains("-10 to 10"), "{said}");
    }
    dir.refused(quick(&["--lora", "nothing.safetensors"]), "INK-0301", 3);
    dir.write("cut.safetensors", &fs::read(dir.path(&file)).unwrap()[..9000]);
    dir.refused(quick(&["--lora", "cut.safetensors"]), "INK-0305", 3);
    let checkpoint = golden("qwen_tiny/transformer/diffusion_pytorch_model.safetensors");
    let said = dir.refused(quick(&["--lora", checkpoint.to_str().unwrap()]), "INK-0211", 2);
    assert!(said.contains("it is no LoRA: it holds the transformer of Qwen-Image"), "{said}");
    // The embedded model has other sizes.
    let said = dir.refused(["a cat", "--lora", &file], "INK-0211", 2);
    assert!(said.contains("this model's has"), "{said}");
}

#[test]
fn inspect_tells_what_a_file_is() {
    let dir = Dir::new();
    let file = golden("lora/qwen_kohya.safetensors");
    let said = dir.ok(["lora", "inspect", file.to_str().unwrap()]);
    for line in ["made for: Qwen-Image", "dialect: kohya", "rank: 2", "alpha: 1", "type: bf16"] {
        assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
    }
    let json: Value =
        serde_json::from_str(&dir.ok(["lora", "inspect", file.to_str().unwrap(), "--json"])).unwrap();
    assert_eq!((&json["layers"], &json["ranks"]["2"]), (&31.into(), &31.into()));
    dir.write("x.safetensors", b"\x80\x04pickle");
    dir.refused(["lora", "inspect", "x.safetensors"], "INK-0306", 3);
}

#[test]
fn lokrs_are_drawn_with_inspected_and_merged() {
    let dir = Dir::new();
    dir.ok(quick(&["-o", "plain.png", "--dtype", "f32"]));
    let file = golden("lora/qwen_lokr_lycoris.safetensors");
    let file = file.to_str().unwrap();
    dir.ok(quick(&["-o", "a.png", "--lora", file, "--dtype", "f32"]));
    assert_ne!(fs::read(dir.path("plain.png")).unwrap(), fs::read(dir.path("a.png")).unwrap());
    let said = dir.ok(["lora", "inspect", file]);
    for line in ["made for: Qwen-Image", "kind: LoKr", "dialect: lycoris", "rank: 2", "alpha: 1"] {
        assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
    }
    assert!(said.lines().any(|l| l.starts_with("blocks: ") && l.contains("8x8 of 8x8 (")), "{said}");
    let whole = golden("lora/qwen_lokr_whole.safetensors");
    let said = dir.ok(["lora", "inspect", whole.to_str().unwrap()]);
    assert!(said.contains("rank: none: whole matrices\n") && said.contains("alpha: none\n"), "{said}");
    let model = golden("qwen_tiny");
    let model = model.to_str().unwrap();
    let run = dir.run(["convert", model, "-o", "merged", "--lora", file]);
    assert!(run.stderr.contains("qwen_lokr_lycoris.safetensors = 1: in 31 layers"), "{run:#?}");
    let said = dir.refused(["a cat", "-m", model, "--transformer", file], "INK-0303", 3);
    assert!(said.contains("holds a LoRA, not the transformer") && said.contains("--lora FILE"), "{said}");
}

#[test]
fn lohas_are_drawn_with_inspected_and_merged() {
    let dir = Dir::new();
    dir.ok(quick(&["-o", "plain.png", "--dtype", "f32"]));
    let file = golden("lora/qwen_loha_kohya.safetensors");
    let file = file.to_str().unwrap();
    dir.ok(quick(&["-o", "a.png", "--lora", file, "--dtype", "f32"]));
    assert_ne!(fs::read(dir.path("plain.png")).unwrap(), fs::read(dir.path("a.png")).unwrap());
    let said = dir.ok(["lora", "inspect", file]);
    for line in ["made for: Qwen-Image", "kind: LoHa", "dialect: kohya", "rank: 6", "alpha: 3", "type: f16"] {
        assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
    }
    let model = golden("qwen_tiny");
    let model = model.to_str().unwrap();
    let run = dir.run(["convert", model, "-o", "merged", "--lora", file]);
    assert!(run.stderr.contains("qwen_loha_kohya.safetensors = 1: in 11 layers"), "{run:#?}");
    let said = dir.refused(["a cat", "-m", model, "--transformer", file], "INK-0303", 3);
    assert!(said.contains("holds a LoRA, not the transformer") && said.contains("--lora FILE"), "{said}");
    let inspected =
        dir.ok(["lora", "inspect", golden("lora/qwen_lora_float8.safetensors").to_str().unwrap()]);
    assert!(inspected.lines().any(|l| l == "type: f8_e4m3"), "{inspected}");
}

#[test]
fn differences_of_norms_and_biases_are_drawn_with_inspected_and_merged() {
    let dir = Dir::new();
    let file = golden("lora/qwen_lora_diff.safetensors");
    let file = file.to_str().unwrap();
    dir.ok(quick(&["-o", "plain.png", "--dtype", "f32"]));
    dir.ok(quick(&["-o", "a.png", "--lora", file, "--dtype", "f32"]));
    assert_ne!(fs::read(dir.path("plain.png")).unwrap(), fs::read(dir.path("a.png")).unwrap());
    let said = dir.ok(["lora", "inspect", file]);
    // Five weights, 31 biases and 9 norms.
    for line in ["made for: Qwen-Image", "kind: LoRA (26), difference (45)", "dialect: diffusion_model"] {
        assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
    }
    let model = golden("qwen_tiny");
    let run = dir.run(["convert", model.to_str().unwrap(), "-o", "merged", "--lora", file]);
    assert!(run.stderr.contains("qwen_lora_diff.safetensors = 1: in 31 layers"), "{run:#?}");
}

#[test]
fn convert_puts_a_lora_into_the_weights() {
    let dir = Dir::new();
    let (model, file) = (golden("qwen_tiny"), lora(&dir, "ink.safetensors"));
    let convert = |more: &[&str]| -> Vec<String> {
        let base = ["convert", model.to_str().unwrap(), "-o", "merged"];
        base.iter().chain(more).map(|s| (*s).to_owned()).collect()
    };
    let run = dir.run(convert(&["--lora", &format!("{file}=0.5")]));
    assert!(run.code == Some(0) && run.stdout.trim() == "merged", "{run:#?}");
    assert!(run.stderr.contains("ink.safetensors = 0.5: in 31 layers"), "{run:#?}");
    let draw = ["a cat", "-m", "merged", "--size", "64x64", "--steps", "2", "--dtype", "f32", "-o", "a.png"];
    dir.ok(draw);

    let both = dir.ok(convert(&["--lora", &file, "-q", "q8", "--overwrite", "--json", "--no-progress"]));
    let event: Value = serde_json::from_str(both.lines().last().unwrap()).unwrap();
    assert_eq!((&event["quantize"], &event["loras"][0]["scale"]), (&"q8".into(), &1.0.into()));
    assert_eq!(event["components"][1]["merged_layers"], 31);

    let said = dir.refused(convert(&["--overwrite"]), "INK-0201", 2);
    assert!(said.contains("quantize is nothing") && said.contains("or LoRAs to merge"), "{said}");
    dir.refused(convert(&["--lora", &format!("{file}=99"), "--overwrite"]), "INK-0201", 2);
}

#[test]
fn what_is_no_lora_or_no_part_is_told_what_it_is() {
    let dir = Dir::new();
    let model = golden("qwen_tiny");
    let model = model.to_str().unwrap();
    dir.write("README.md", "# A page about something, long enough for a header");
    let said = dir.refused(["lora", "inspect", "README.md"], "INK-0211", 2);
    assert!(said.contains("it is no safetensors file") && !said.contains("download"), "{said}");
    let file = lora(&dir, "ink.safetensors");
    let said = dir.refused(["a cat", "-m", model, "--transformer", &file], "INK-0303", 3);
    assert!(said.contains("holds a LoRA, not the transformer") && said.contains("--lora FILE"), "{said}");
    let encoder = golden("qwen_tiny/text_encoder/model.safetensors");
    let encoder = encoder.to_str().unwrap();
    let said = dir.refused(["a cat", "-m", model, "--transformer", encoder], "INK-0303", 3);
    assert!(
        said.contains("holds a language model, not the transformer") && said.contains("its own part"),
        "{said}"
    );
    let said = dir.refused(["a cat", "-m", model, "--vae", "README.md"], "INK-0303", 3);
    assert!(said.contains("holds no weights, not the VAE"), "{said}");
    // Made for another size of the same model: both sizes, and whose fault it may be.
    let said = dir.refused(["a cat", "--lora", &file], "INK-0211", 2);
    assert!(
        said.contains("this model's has") && said.contains("try: give a LoRA that was made for this model"),
        "{said}"
    );
}

#[test]
fn convert_says_what_to_do_in_its_own_words() {
    let dir = Dir::new();
    let said = dir.refused(["convert", "nothing", "-q", "q4", "-o", "out"], "INK-0302", 3);
    assert!(
        said.contains("try: name the folder or file of a model that is there") && !said.contains("--model"),
        "{said}"
    );
    let (model, file) = (golden("qwen_tiny"), lora(&dir, "ink.safetensors"));
    let said = dir.refused(["convert", model.to_str().unwrap(), "-o", "out"], "INK-0201", 2);
    assert!(said.contains("try: say what to do: -q int8, q8 or q4, or --lora FILE"), "{said}");
    let part = golden("qwen_tiny/transformer/diffusion_pytorch_model.safetensors");
    let said = dir.refused(["convert", part.to_str().unwrap(), "-q", "q4", "-o", "out"], "INK-0318", 3);
    assert!(said.contains("or name the folder of a whole model") && said.contains("--vae"), "{said}");
    let said = dir.refused(["lora", "inspect", part.to_str().unwrap()], "INK-0211", 2);
    assert!(said.contains("try: give the safetensors file of a LoRA"), "{said}");
    dir.ok(["convert", model.to_str().unwrap(), "-q", "q4", "-o", "q4"]);
    let said = dir.refused(["convert", "q4", "--lora", &file, "-o", "out"], "INK-0315", 3);
    assert!(said.contains("try: draw with --lora") && !said.contains("--quantize"), "{said}");
}

/// A LoRA of 288 MiB, of which nothing but its head is on the disk.
#[cfg(target_os = "linux")]
fn large(dir: &Dir) -> &'static str {
    const BYTES: usize = 3072 * 3072 * 4;
    let parts = (0..4).flat_map(|block| [(block, "lora_A"), (block, "lora_B")]).enumerate();
    let tensors = parts.map(|(i, (block, part))| {
        let name = format!("transformer_blocks.{block}.attn.to_q.{part}.weight");
        let range = [i * BYTES, (i + 1) * BYTES];
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[3072,3072],\"data_offsets\":{range:?}}}")
    });
    let head = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    let path =
        dir.write("large.safetensors", [&(head.len() as u64).to_le_bytes()[..], head.as_bytes()].concat());
    fs::File::options().write(true).open(path).unwrap().set_len((8 + head.len() + 8 * BYTES) as u64).unwrap();
    "large.safetensors"
}

/// What does not fit is refused from its head, by `ulimit` and in a real control group.
#[cfg(target_os = "linux")]
#[test]
fn row_77_inspecting_a_lora_that_does_not_fit() {
    let dir = Dir::new();
    let file = large(&dir);
    let refused = |run: &Run, cure: &str| {
        let told = "error[INK-0401]: the LoRA large.safetensors does not fit into memory\n  why: it needs ";
        assert!(run.code == Some(4) && run.stderr.starts_with(told), "{run:#?}");
        assert!(run.stderr.ends_with(&format!("  try: {cure}\n")), "{run:#?}");
    };
    for (flag, cure) in [("-v", "raise ulimit -v"), ("-d", "raise ulimit -d")] {
        let script = format!("ulimit {flag} 250000; exec \"$0\" lora inspect {file}");
        refused(&finish(&mut dir.script("sh", &script)), cure);
    }
    if let Some(group) = Group::new(100 << 20) {
        refused(&group.run(&dir, &format!("lora inspect {file}")), "give the container more memory");
    }
}
