//! What a picture says of itself, and drawing it again.

use std::fs;

use inkstone::codec::{Metadata, png};
use serde_json::Value;

use crate::dir::{Dir, Run, copy_model, pixels, quick, same_pixels};

#[test]
fn replay_gives_the_same_pixels() {
    let dir = Dir::new();
    dir.ok([
        "a red apple",
        "--steps",
        "3",
        "--seed",
        "18446744073709551615",
        "--negative-prompt",
        "blur",
        "-o",
        "a.png",
    ]);
    let run = dir.run(["info", "--replay", "a.png", "-o", "b.png"]);
    assert_eq!(run.stdout, "b.png\n", "{run:#?}");
    assert!(run.stderr.contains("the pixels are those of a.png"), "{}", run.stderr);
    assert!(fs::read(dir.path("a.png")).unwrap() == fs::read(dir.path("b.png")).unwrap());
    // A request without guidance has none again.
    dir.ok([
        "a red apple",
        "--steps",
        "3",
        "--seed",
        "1",
        "--cfg-scale",
        "1",
        "--dtype",
        "f32",
        "-o",
        "c.png",
    ]);
    dir.ok(["info", "--replay", "c.png", "-o", "d.png"]);
    assert!(fs::read(dir.path("c.png")).unwrap() == fs::read(dir.path("d.png")).unwrap());
}

#[test]
fn a_picture_in_int8_says_so_and_is_drawn_again_so() {
    let dir = Dir::new();
    let run = dir.run(["a red apple", "--steps", "3", "--seed", "1", "-q", "int8", "-v", "-o", "a.png"]);
    assert!(run.stderr.contains("int8: ") && run.stderr.contains("  img_in: as stored"), "{run:#?}");
    assert!(dir.ok(["info", "a.png"]).contains("quantize: \"int8\""));
    dir.ok(["info", "--replay", "a.png", "-o", "b.png"]);
    assert!(same_pixels(&dir.path("a.png"), &dir.path("b.png")));
    // Another one is drawn as stored, whatever the settings of today say.
    dir.ok(["a red apple", "--steps", "3", "--seed", "1", "-o", "c.png"]);
    assert!(!same_pixels(&dir.path("a.png"), &dir.path("c.png")));
    dir.write("inkstone.toml", "quantize = \"int8\"\n");
    dir.ok(["info", "--replay", "c.png", "-o", "d.png"]);
    assert!(same_pixels(&dir.path("c.png"), &dir.path("d.png")));
}

#[test]
fn a_replay_that_comes_out_otherwise_fails() {
    let dir = Dir::new();
    dir.ok(quick(&["a red apple", "-o", "a.png"]));
    let identical = |run: &Run| -> Value {
        let events = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.into_iter().find(|e| e["event"] == "replay").unwrap()["identical"].clone()
    };
    let run = dir.run(["info", "--replay", "a.png", "-o", "b.png", "--json"]);
    assert_eq!((run.code, identical(&run)), (Some(0), true.into()), "{run:#?}");
    // The request of one picture in the pixels of another.
    let mut other = pixels(&dir.path("a.png"));
    other.rgb[0] ^= 1;
    let (settings, _) = Metadata::read_png(&fs::read(dir.path("a.png")).unwrap()).unwrap().unwrap();
    dir.write("a.png", png::write(&other, Some(&settings)).unwrap());
    let run = dir.run(["info", "--replay", "a.png", "-o", "c.png", "--json"]);
    assert_eq!((run.code, identical(&run)), (Some(1), false.into()), "{run:#?}");
    assert!(
        run.stderr.contains("error[INK-0550]: the new pixels are not those of a.png\n  why: "),
        "{run:#?}"
    );
    assert!(same_pixels(&dir.path("b.png"), &dir.path("c.png")));
}

#[test]
fn a_replay_by_another_model_is_refused_unless_a_flag_names_it() {
    let dir = Dir::new();
    copy_model(&dir.path("other"));
    dir.ok(quick(&["a red apple", "-m", "other", "-o", "a.png"]));
    let told = dir.refused(["info", "--replay", "a.png", "-o", "b.png"], "INK-0250", 2);
    assert!(told.contains("other drew it") && told.contains("--model"), "{told}");
    dir.ok(["info", "--replay", "a.png", "-o", "b.png", "-m", "other"]);
    // The embedded model has the same weights under another name.
    let run = dir.run(["info", "--replay", "a.png", "-o", "c.png", "-m", "tiny"]);
    assert!(run.code == Some(0) && run.stderr.contains("warning: "), "{run:#?}");
}

#[test]
fn info_prints_the_request() {
    let dir = Dir::new();
    dir.ok(quick(&["a red apple", "-o", "a.png"]));
    let text = dir.ok(["info", "a.png"]);
    for line in ["prompt: \"a red apple\"", "seed: 7", "steps: 2", "width: 128", "model: \"inkstone-tiny\""] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&dir.ok(["info", "a.png", "--json"])).unwrap();
    assert_eq!((&json["prompt"], &json["true_cfg_scale"]), (&"a red apple".into(), &4.0.into()));
}

#[test]
fn metadata_in_the_picture_beside_it_or_nowhere() {
    let dir = Dir::new();
    dir.ok(quick(&["a red apple", "-o", "a.png", "--metadata", "sidecar"]));
    dir.ok(quick(&["a red apple", "-o", "b.png", "--metadata", "none"]));
    assert_eq!(dir.files(), ["a.json", "a.png", "b.png"]);
    dir.refused(["info", "a.png"], "INK-0253", 2);
    assert!(dir.ok(["info", "a.json"]).contains("seed: 7"));
    dir.ok(["gen", "--config-from-metadata", "a.json", "-o", "c.png"]);
    assert!(same_pixels(&dir.path("a.png"), &dir.path("c.png")));
    // Flags win over what the file says.
    let out = dir.ok(["a cat", "-C", "a.json", "--seed", "8", "--dry-run"]);
    assert!(
        out.contains("prompt: \"a cat\"") && out.contains("seed: 8") && out.contains("steps: 2"),
        "{out}"
    );
}
