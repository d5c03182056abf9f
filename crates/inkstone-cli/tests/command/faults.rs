//! Rows of the list of bad inputs, by number.

use std::ffi::OsString;
use std::fs::{self, File};
use std::process::Stdio;

use crate::dir::{Dir, copy_model, finish, same_pixels};

#[test]
fn row_38_to_42_values_out_of_range() {
    let dir = Dir::new();
    for (flag, value, what) in [
        ("--width", "0", "width is 0"),
        ("--width", "-1", "width is \"-1\""),
        ("--height", "65", "height is 65"),
        ("--height", "4112", "height is 4112"),
        ("--size", "1024x", "size is \"1024x\""),
        ("--size", "1024X1024 ", "size is \"1024X1024 \""),
        ("--size", "９６x９６", "size is \"９６x９６\""),
        ("--aspect", "16x9", "aspect is \"16x9\""),
        ("--steps", "0", "steps is 0"),
        ("--steps", "201", "steps is 201"),
        ("--steps", "1.5", "steps is \"1.5\""),
        ("--seed", "-2", "seed is \"-2\""),
        ("--seed", "18446744073709551616", "seed is \"18446744073709551616\""),
        ("--seed", "1.0", "seed is \"1.0\""),
        ("--true-cfg-scale", "nan", "true-cfg-scale is NaN"),
        ("--true-cfg-scale", "1e308", "true-cfg-scale is inf"),
        ("--cfg-scale", "-5", "true-cfg-scale is -5"),
        ("--count", "0", "count is 0"),
        ("--count", "11", "count is 11"),
        ("--threads", "0", "threads is \"0\""),
    ] {
        let run = dir.run(["a cat", flag, value]);
        assert!(run.code == Some(2) && run.stderr.contains(what), "{flag} {value}: {run:#?}");
        assert!(run.stderr.contains("  why: allowed is ") && run.stderr.contains("  try: "), "{run:#?}");
    }
    assert!(dir.files().is_empty());
}

/// Too little for a thread, or for the embedded weights: an error, wherever memory ends.
#[cfg(target_os = "linux")]
#[test]
fn row_77_limits_below_what_anything_takes() {
    let dir = Dir::new();
    for limit in ["-v 60000", "-v 80000", "-d 2000", "-d 8000"] {
        let run = finish(&mut dir.script("sh", &format!("ulimit {limit}; exec \"$0\" 'a red apple'")));
        assert!(run.code == Some(4) && run.stderr.contains("error[INK-040"), "{limit}: {run:#?}");
    }
    assert!(dir.files().is_empty());
}

#[test]
fn row_43_to_45_prompts() {
    let dir = Dir::new();
    dir.write("long.txt", "x".repeat(32_001));
    assert!(dir.refused(["--prompt-file", "long.txt"], "INK-0201", 2).contains("32001 characters"));
    dir.write("nul.txt", "a\0b");
    assert!(dir.refused(["--prompt-file", "nul.txt"], "INK-0201", 2).contains("NUL"));
    dir.refused([""], "INK-0250", 2);
    dir.refused(["  "], "INK-0250", 2);
    for (i, prompt) in
        ["<|im_end|><|vision_start|>", "a cat <lora:x:1>", "\u{202e}שלום 👩‍👩‍👧"].iter().enumerate()
    {
        let name = format!("{i}.png");
        dir.ok([prompt, "--steps", "1", "-o", &name]);
        assert!(dir.ok(["info", "--json", &name]).contains(&serde_json::to_string(prompt).unwrap()));
    }
}

#[test]
fn a_word_that_will_be_a_command_is_no_prompt() {
    let dir = Dir::new();
    assert!(dir.refused(["serve"], "INK-0250", 2).contains("-p serve"));
    assert!(dir.ok(["-p", "serve", "--dry-run"]).contains("prompt: \"serve\""));
    dir.refused(["a", "red", "apple"], "INK-0250", 2);
    dir.refused(["--steps", "4", "info", "a.png"], "INK-0250", 2);
}

#[test]
fn one_picture_to_start_from_at_most() {
    let dir = Dir::new();
    dir.ok(["a cat", "--steps", "1", "--seed", "1", "-o", "a.png"]);
    let draw = ["a cat", "--steps", "1", "-i", "a.png"];
    dir.ok(draw);
    let told = dir.refused([&draw[..], &["--image", "a.png=0.5"]].concat(), "INK-0250", 2);
    assert!(told.contains("2 are given with --image"), "{told}");
    dir.refused(["info", "--replay", "a.png", "-i", "a.png", "-i", "a.png"], "INK-0250", 2);
}

#[test]
fn row_74_output_places_are_checked_before_anything_is_drawn() {
    let dir = Dir::new();
    dir.write("file", "");
    fs::create_dir(dir.path("dir.png")).unwrap();
    // So many steps that the test would not end if they were taken.
    let draw = |out: &str| ["a cat", "--steps", "200", "--size", "1024x1024", "-o", out].map(str::to_owned);
    for place in ["missing/a.png", "file/a.png", "a.jpg", "{seed}/../../x", "a\nb.png", "-"] {
        dir.refused(draw(place), "INK-0252", 2);
    }
    dir.refused(draw(&"x".repeat(300)), "INK-0252", 2);
    // A folder as output is a folder for the picture.
    dir.ok(["a cat", "--steps", "1", "--seed", "1", "-o", "dir.png"]);
    assert!(dir.path("dir.png/inkstone-1.png").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn row_74_a_folder_that_cannot_be_written() {
    let dir = Dir::new();
    // Nobody creates files there, not even root.
    dir.refused(["a cat", "--steps", "200", "-o", "/proc/self/fdinfo/a.png"], "INK-0450", 4);
}

/// Row 68: the room was there when it was looked at, and is gone while the model is written.
#[cfg(unix)]
#[test]
fn row_68_no_room_while_a_model_is_converted() {
    let dir = Dir::new();
    let old = dir.path("model");
    copy_model(&old);
    let files = fs::read_dir(old.join("transformer")).unwrap().count();
    let tiny = crate::dir::tiny();
    // The largest file in kilobytes: nothing, a part of the first file, all of it but not of the second.
    for limit in [0, 100, 4_000] {
        for place in ["-o new", "-o model --overwrite"] {
            let script = format!(
                "trap '' XFSZ; ulimit -f {limit}; exec \"$0\" convert \"$1\" -q q8 {place} 2>&1 | cat"
            );
            let told = finish(dir.script("bash", &script).arg(&tiny)).stdout;
            assert!(told.contains("error[INK-0411]: cannot write "), "{limit}: {told}");
            assert!(told.contains("  why: ") && told.contains("  try: "), "{limit}: {told}");
            assert_eq!(dir.files(), ["model"], "{limit}: nothing new, nothing hidden");
            assert_eq!(fs::read_dir(old.join("transformer")).unwrap().count(), files);
        }
    }
    dir.ok(["a cat", "-m", "model", "--steps", "1", "-o", "a.png"]);
}

#[cfg(unix)]
#[test]
fn row_74_no_room_while_the_picture_is_written() {
    let dir = Dir::new();
    dir.write("a.png", "old");
    // The largest file is 0 blocks; the signal that comes with it is ignored, so writing fails.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" 'a cat' --steps 1 --overwrite -o a.png 2>&1 | cat";
    let run = finish(&mut dir.script("bash", script));
    assert!(run.stdout.contains("error[INK-0450]") && run.stdout.contains("  why: "), "{run:#?}");
    assert_eq!(fs::read(dir.path("a.png")).unwrap(), b"old");
    assert_eq!(dir.files(), ["a.png"]);
}

#[test]
fn row_75_a_picture_that_exists() {
    let dir = Dir::new();
    let draw = ["a cat", "--steps", "1", "--seed", "1", "-o", "a.png"];
    dir.write("a.png", "mine");
    assert_eq!(dir.ok(draw), "a-2.png\n");
    assert_eq!(dir.ok(draw), "a-3.png\n");
    assert_eq!(fs::read(dir.path("a.png")).unwrap(), b"mine");
    assert_eq!(dir.ok([&draw[..], &["--overwrite"]].concat()), "a.png\n");
    assert!(same_pixels(&dir.path("a.png"), &dir.path("a-2.png")));
}

#[test]
fn row_80_weights_that_are_not_numbers_save_no_picture() {
    let dir = Dir::new();
    copy_model(&dir.path("model"));
    let weights = dir.path("model/transformer/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // The last tensor's last values become the bf16 NaN.
    let at = bytes.len() - 64;
    bytes[at..].copy_from_slice(&[0xc0, 0x7f].repeat(32));
    fs::write(&weights, bytes).unwrap();
    assert!(
        dir.refused(["a cat", "--steps", "4", "--size", "64x64", "-m", "model"], "INK-0501", 1)
            .contains("step 1")
    );
}

#[test]
fn a_model_that_is_none() {
    let dir = Dir::new();
    dir.refused(["a cat", "-m", "not-there"], "INK-0302", 3);
    fs::create_dir(dir.path("empty")).unwrap();
    dir.refused(["a cat", "-m", "empty"], "INK-0303", 3);
}

#[test]
fn a_dry_run_reads_no_weights() {
    let dir = Dir::new();
    copy_model(&dir.path("model"));
    let weights = dir.path("model/transformer/diffusion_pytorch_model.safetensors");
    // Numbers that are NaN: whoever computes with them says so.
    let mut file = std::fs::read(&weights).unwrap();
    let data = 8 + usize::try_from(u64::from_le_bytes(*file.first_chunk().unwrap())).unwrap();
    file[data..].fill(0xff);
    std::fs::write(&weights, &file).unwrap();
    assert!(dir.ok(["a cat", "-m", "model", "--dry-run"]).contains("model: \"model\""));
    dir.refused(["a cat", "-m", "model", "--steps", "1"], "INK-0501", 1);
    // A sparse file that is no model: headers are read, for the plan.
    File::create(&weights).unwrap().set_len(1 << 34).unwrap();
    dir.refused(["a cat", "-m", "model", "--dry-run"], "INK-0305", 3);
}

#[cfg(unix)]
#[test]
fn row_94_arguments_and_paths_that_are_not_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let dir = Dir::new();
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let run = dir.run([bytes(b"a \xff cat")]);
    assert!(run.code == Some(2) && run.stderr.contains("UTF-8"), "{run:#?}");
    let path = bytes(b"a\xff.png");
    let mut draw = dir.command(["a cat", "--steps", "1", "--seed", "1", "-o"]);
    let output = draw.arg(&path).output().unwrap();
    assert_eq!(output.stdout, b"a\xff.png\n", "{}", String::from_utf8_lossy(&output.stderr));
    let mut info = dir.command(["info"]);
    assert!(finish(info.arg(&path)).stdout.contains("seed: 1"));
    let mut from = bytes(b"a\xff.png=0.5");
    from.push("");
    let mut again = dir.command(["a cat", "--steps", "1", "-o", "b.png", "-i"]);
    assert_eq!(finish(again.arg(from)).code, Some(0));
}

#[test]
fn row_94_odd_names_and_bare_environments() {
    let dir = Dir::new();
    let draw = |out: &str| ["a cat", "--steps", "1", "--seed", "1", "-o", out].map(str::to_owned);
    assert_eq!(dir.ok(draw("./-a b.png")), "./-a b.png\n");
    assert_eq!(dir.ok(["a cat", "--steps", "1", "--output=-x.png"]), "-x.png\n");
    assert!(dir.ok(["info", "--", "-x.png"]).contains("steps: 1"));
    assert!(dir.ok(["--dry-run", "--", "-5 degrees"]).contains("prompt: \"-5 degrees\""));
    let long = format!("{}.png", "x".repeat(240));
    assert_eq!(dir.ok(draw(&long)), format!("{long}\n"));
    dir.refused(["info", &"x/".repeat(3000)], "INK-0250", 2);
    let run = finish(dir.command(draw("b.png")).env_clear());
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "b.png\n"), "{run:#?}");
    for (name, value) in [("TERM", "dumb"), ("NO_COLOR", "1"), ("HOME", "relative"), ("XDG_CONFIG_HOME", "")]
    {
        let run = finish(dir.command(["a cat", "--steps", "0"]).env(name, value));
        assert!(run.code == Some(2) && !run.stderr.contains('\x1b'), "{name}: {run:#?}");
    }
    let run = dir.run(["a cat", "--steps", "0", "--color", "always"]);
    assert!(run.stderr.starts_with("\x1b[1;31merror[INK-0201]: \x1b[0m"), "{run:#?}");
}

#[cfg(unix)]
#[test]
fn row_94_standard_output_is_closed() {
    let dir = Dir::new();
    for args in [
        &["--help"][..],
        &["a cat", "--steps", "1"],
        &["a cat", "--steps", "2", "--json"],
        &["completions", "bash"],
    ] {
        let mut child = dir.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("panic") && !stderr.contains("error"), "{args:?}: {stderr}");
    }
    if let Ok(full) = File::options().write(true).open("/dev/full") {
        let run = finish(dir.command(["--help"]).stdout(full));
        assert!(run.code == Some(4) && run.stderr.contains("INK-0450"), "{run:#?}");
    }
}

/// A PNG of one pixel with this text where the request is.
fn png_with(text: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.add_itxt_chunk("inkstone".into(), text.into()).unwrap();
    encoder.write_header().unwrap().write_image_data(&[0, 0, 0]).unwrap();
    file
}

#[test]
fn row_96_hostile_metadata() {
    let dir = Dir::new();
    for json in
        ["{", "[]", "{\"steps\": \"x\"}", "{\"steps\": -1}", "{\"seed\": 1e999}", "{\"prompt\": 7}", "null"]
    {
        dir.write("a.png", png_with(json));
        for args in [&["info", "a.png"][..], &["info", "--replay", "a.png"], &["a cat", "-C", "a.png"]] {
            let run = dir.run(args);
            assert!(run.code == Some(2) && run.stderr.contains("error[INK-"), "{json} {args:?}: {run:#?}");
        }
    }
    dir.write("a.png", png_with(&format!("{{\"prompt\": \"{}\"}}", "x".repeat(3 << 20))));
    assert_eq!(dir.run(["info", "a.png"]).code, Some(2));
    // Values out of range are refused like any others.
    dir.write(
        "a.png",
        png_with("{\"prompt\": \"a cat\", \"steps\": 4000000000, \"width\": 64, \"height\": 64}"),
    );
    dir.refused(["info", "--replay", "a.png"], "INK-0201", 2);
    // Control characters of a stranger do not reach the terminal.
    dir.write("a.png", png_with("{\"prompt\": \"\\u001b[2J\\u009b1m\"}"));
    let shown = dir.ok(["info", "a.png"]);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

#[test]
fn a_file_that_holds_no_request() {
    let dir = Dir::new();
    dir.write("a.txt", "no picture");
    let told = dir.refused(["info", "a.txt"], "INK-0253", 2);
    assert!(told.contains("it is no PNG and no .json"), "{told}");
    dir.write("a.json", "{\"steps\": 4}");
    let told = dir.refused(["info", "--replay", "a.json"], "INK-0253", 2);
    assert!(told.contains("its settings name no prompt"), "{told}");
    let told = dir.refused(["bench", "--isa", "mmx", "linear/16x16x16"], "INK-0202", 2);
    assert!(told.contains("try: choose another --isa, or leave it out"), "{told}");
}

#[test]
fn row_96_a_stored_path_is_not_followed() {
    let dir = Dir::new();
    let secret = dir.write("secret.png", png_with("{}"));
    let stored = serde_json::json!({
        "prompt": "a cat", "steps": 1, "seed": 1, "width": 64, "height": 64,
        "model": "/etc/passwd", "output": "/tmp/owned.png", "url": "http://127.0.0.1:1/x",
    });
    dir.write("a.png", png_with(&stored.to_string()));
    let told = dir.refused(["info", "--replay", "a.png", "-o", "b.png"], "INK-0250", 2);
    assert!(told.contains("/etc/passwd") && told.contains("--model"), "{told}");
    // A flag chooses the model, and the picture goes where a flag says.
    let run = dir.run(["gen", "-C", "a.png", "-o", "b.png", "-m", "tiny"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "b.png\n"), "{run:#?}");
    let mut with_image = stored;
    with_image["image"] = secret.to_string_lossy().into();
    with_image["strength"] = 0.5.into();
    dir.write("a.png", png_with(&with_image.to_string()));
    assert!(dir.refused(["info", "--replay", "a.png"], "INK-0250", 2).contains("--image"));
    dir.refused(["gen", "-C", "a.png"], "INK-0250", 2);
}
