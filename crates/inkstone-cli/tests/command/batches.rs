//! Several pictures of one command: prompts, seeds, names, and what is drawn together.

use std::fs;

use serde_json::Value;

use super::dir::Dir;

fn events(text: &str, event: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|e| e["event"] == event).collect()
}

/// As many at a time as gain by it; each is there before the next one is decoded, with the bytes that it has alone.
#[test]
fn several_pictures_are_drawn_together() {
    let dir = Dir::new();
    // A picture of 512 x 512 with guidance has 2048 rows: two gain by being drawn together, a third does not.
    for (size, together, at_a_time) in [("64x64", "3", vec![3]), ("512x512", "3", vec![2, 1])] {
        let common = ["a cat", "--size", size, "--steps", "1", "--overwrite"];
        let several = ["--seed", "5", "--count", together, "--json", "-o", "{seed}.png"];
        let told = dir.ok([&common[..], &several].concat());
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let word = |event: &Value| match (event["event"].as_str(), event["stage"].as_str()) {
            (Some("stage"), Some("denoise")) => Some("denoise"),
            (Some("stage"), Some("decode")) => Some("decode"),
            (Some("picture"), _) => Some("picture"),
            _ => None,
        };
        let words: Vec<&str> = told.iter().filter_map(word).collect();
        let batch = |size: &usize| [vec!["denoise"], ["decode", "picture"].repeat(*size)].concat();
        assert_eq!(words, at_a_time.iter().flat_map(batch).collect::<Vec<_>>(), "{size}");
        dir.ok([&common[..], &["--seed", "6", "-o", "alone.png"]].concat());
        assert!(fs::read(dir.path("alone.png")).unwrap() == fs::read(dir.path("6.png")).unwrap(), "{size}");
    }
}

/// A picture of 64 x 64 with guidance has 32 rows, of which 128 pictures would be drawn together; 900 words are as many more each.
#[test]
fn rows_of_long_prompts_count() {
    let dir = Dir::new();
    let prompts: String = (0..20).map(|i| format!("{i}{}\n", " cat".repeat(900))).collect();
    dir.write("prompts", &prompts);
    let together = |more: &[&str]| {
        let told = dir.ok([&["--size", "64x64", "--dry-run", "--json"][..], more].concat());
        events(&told, "dry-run")[0]["together"].as_u64().unwrap()
    };
    let long = together(&["--prompts-file", "prompts"]);
    assert!((6..=8).contains(&long), "{long} of 8192 rows in all");
    assert_eq!(together(&["-p", "a cat", "--count", "10"]), 10);
}

/// Each file is the one that its prompt gives alone, to the byte: pixels, and the request in it.
#[test]
fn prompts_of_a_file_are_drawn_together() {
    let dir = Dir::new();
    let prompts = ["a cat", "two red apples beside a blue car on a yellow background", "熊猫"];
    dir.write("p.txt", format!("\u{feff}{}\r\n\n{}\n  {} \n", prompts[0], prompts[1], prompts[2]));
    let common = ["--size", "80x64", "--steps", "2", "--negative-prompt", "blur"];
    for more in [&[][..], &["--true-cfg-scale", "1"], &["-q", "int8"]] {
        let several = ["--prompts-file", "p.txt", "--seed", "3,9", "--json", "--overwrite", "-o", "{n}.png"];
        let told = dir.ok([&common[..], &several, more].concat());
        let stages = events(&told, "stage");
        assert_eq!(stages.iter().filter(|stage| stage["stage"] == "denoise").count(), 1, "{told}");
        let pictures = events(&told, "picture");
        assert_eq!(pictures.len(), 6);
        for (i, picture) in pictures.iter().enumerate() {
            let (prompt, seed) = (prompts[i / 2], [3, 9][i % 2]);
            let path = format!("{}.png", i + 1);
            assert_eq!(
                (&picture["path"], &picture["prompt"], &picture["seed"]),
                (&path.as_str().into(), &prompt.into(), &seed.into())
            );
            let seed = seed.to_string();
            let alone = ["-p", prompt, "--seed", &seed, "--overwrite", "-o", "alone.png"];
            dir.ok([&common[..], &alone, more].concat());
            let same = fs::read(dir.path("alone.png")).unwrap() == fs::read(dir.path(&path)).unwrap();
            assert!(same, "{prompt} {seed} {more:?}");
        }
    }
    assert!(dir.ok(["info", "6.png"]).contains("prompt: \"熊猫\""));
    dir.ok(["info", "--replay", "4.png", "-o", "replayed.png"]);
}

#[test]
fn prompts_have_names_of_their_own() {
    let dir = Dir::new();
    let draw = ["-p", "a cat", "-p", "a dog, red", "--size", "64x64", "--steps", "1", "--seed", "5"];
    let run = dir.run(draw);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "inkstone-5-1.png\ninkstone-5-2.png\n"),
        "{run:#?}"
    );
    assert!(run.stderr.contains("1 to 2 of 2: 2 prompts  seed 5  64x64"), "{}", run.stderr);
    assert!(dir.ok(["info", "inkstone-5-2.png"]).contains("prompt: \"a dog, red\""));
    let told = dir.ok([&draw[..], &["--seed", "6", "-o", "{seed}.png", "--dry-run", "--json"]].concat());
    let told = events(&told, "dry-run");
    let paths: Vec<&Value> = told.iter().map(|event| &event["output"]).collect();
    assert_eq!(paths, ["5-1.png", "6-2.png", "5-3.png", "6-4.png"]);
    assert!(told.iter().all(|event| event["together"] == 4), "{told:?}");
}

#[test]
fn prompts_that_are_refused() {
    let dir = Dir::new();
    dir.write("none.txt", "\n  \n");
    dir.write("nul.txt", "a cat\na\0b\n");
    dir.write("many.txt", "a cat\n".repeat(1001));
    dir.write("long.txt", "x\n".repeat(5_000_000));
    assert!(dir.refused(["--prompts-file", "none.txt"], "INK-0250", 2).contains("no prompt"));
    assert!(dir.refused(["--prompts-file", "nul.txt"], "INK-0201", 2).contains("nul.txt line 2"));
    assert!(dir.refused(["--prompts-file", "many.txt"], "INK-0250", 2).contains("1001 pictures"));
    assert!(dir.refused(["--prompts-file", "long.txt"], "INK-0250", 2).contains("too long"));
    dir.refused(["--prompts-file", "missing.txt"], "INK-0250", 2);
    dir.refused(["-p", "a cat", "-p", " "], "INK-0250", 2);
    dir.refused(["-p", "a cat", "--prompts-file", "many.txt"], "INK-0250", 2);
}

/// What does not fit together is drawn in groups, within the limit, to the same bytes.
#[test]
fn little_memory_draws_in_groups() {
    let dir = Dir::new();
    let prompts = ["a cat", "a dog on a blue background", "two roses", "熊猫"];
    let args = |prompts: &[&'static str], more: &[&str]| -> Vec<String> {
        let prompts = prompts.iter().flat_map(|prompt| ["-p", prompt]);
        let common = ["--size", "256x256", "--steps", "1", "--seed", "2", "--json"];
        prompts.chain(common).chain(more.iter().copied()).map(str::to_owned).collect()
    };
    let plan = |prompts: &[&'static str], more: &[&str]| {
        let told = dir.ok(args(prompts, &[more, &["--dry-run"]].concat()));
        let first = &events(&told, "dry-run")[0];
        (first["together"].as_u64(), first["memory"]["resident_bytes"].as_u64().unwrap())
    };
    let ((all, largest), (one, smallest)) = (plan(&prompts, &[]), plan(&prompts[..1], &[]));
    assert!(all == Some(4) && one.is_none() && smallest < largest, "{all:?} {one:?} {smallest} {largest}");
    let limit_bytes = smallest.midpoint(largest);
    let limit = format!("{:.2}M", limit_bytes as f64 / f64::from(1 << 20));
    let limit = ["--max-memory", limit.as_str()];
    let (some, resident) = plan(&prompts, &limit);
    assert!(some < Some(4) && resident <= limit_bytes, "{some:?} {resident}");

    dir.ok(args(&prompts, &["-o", "free-{n}.png"]));
    let told = dir.ok(args(&prompts, &[&limit[..], &["-o", "tight-{n}.png"]].concat()));
    let stages = events(&told, "stage");
    assert!(stages.iter().filter(|stage| stage["stage"] == "denoise").count() > 1, "{told}");
    for n in 1..=prompts.len() {
        let read = |name: &str| fs::read(dir.path(format!("{name}-{n}.png"))).unwrap();
        assert!(read("free") == read("tight"), "{n}");
    }
}
