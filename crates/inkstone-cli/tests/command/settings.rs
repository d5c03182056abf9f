//! Config files and the environment.

use std::fs;

use crate::dir::{Dir, finish};

#[test]
fn flags_win_over_the_environment_over_files() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path(".config/inkstone")).unwrap();
    fs::write(dir.path(".config/inkstone/config.toml"), "steps = 11\ntrue-cfg-scale = 2\nwidth = 96\n")
        .unwrap();
    dir.write("inkstone.toml", "steps = 12\ntrue-cfg-scale = 3.5\n");
    let out = finish(dir.command(["a cat", "--dry-run"]).env("INKSTONE_STEPS", "13")).stdout;
    for line in ["steps: 13", "true-cfg-scale: 3.5", "width: 96", "height: 128"] {
        assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
    }
    let out = finish(dir.command(["a cat", "--dry-run", "--steps", "14"]).env("INKSTONE_STEPS", "13")).stdout;
    assert!(out.contains("steps: 14\n"), "{out}");
    assert!(dir.ok(["a cat", "--dry-run", "--no-config"]).contains("steps: 20\n"));
    dir.write("other.toml", "steps = 15");
    let out = dir.ok(["a cat", "--dry-run", "--config", "other.toml"]);
    assert!(out.contains("steps: 15\n") && out.contains("width: 128\n"), "{out}");
}

#[test]
fn config_show_tells_where_settings_come_from() {
    let dir = Dir::new();
    dir.write("inkstone.toml", "steps = 12\n");
    let out = finish(dir.command(["config", "show", "--origin"]).env("INKSTONE_SEED", "5")).stdout;
    assert!(out.contains("steps = 12  # inkstone.toml\n"), "{out}");
    assert!(out.contains("INKSTONE_SEED\n"), "{out}");
    assert!(dir.ok(["config", "path"]).lines().any(|l| l == "inkstone.toml"));
    // What is shown is a config file.
    dir.write("shown.toml", dir.ok(["config", "show"]));
    assert!(dir.ok(["config", "show", "--config", "shown.toml"]).contains("steps = 12\n"));
}

#[test]
fn row_95_wrong_config_files() {
    let dir = Dir::new();
    for (text, place) in [
        ("steps = 12\nstpes = 3\n", "inkstone.toml:2:1"),
        ("steps = \"many\"\n", "inkstone.toml:1:9"),
        ("\u{feff}steps = true\n", "inkstone.toml:1:9"),
        ("steps = 12\nsteps = 13\n", "inkstone.toml:2:1"),
        ("steps = 12\n[", "inkstone.toml:2:"),
        ("steps = 0\n", "inkstone.toml"),
        ("threads = 0\n", "inkstone.toml:1:11"),
    ] {
        dir.write("inkstone.toml", text);
        let error = dir.refused(["a cat", "--dry-run"], "INK-0251", 2);
        assert!(error.contains(place), "{text:?} gives {error}");
    }
    dir.write("inkstone.toml", "\u{feff}steps = 9\r\n");
    assert!(dir.ok(["a cat", "--dry-run"]).contains("steps: 9\n"));
    dir.refused(["a cat", "--config", "not-there.toml"], "INK-0250", 2);
    fs::remove_file(dir.path("inkstone.toml")).unwrap();
    let run = finish(dir.command(["a cat", "--dry-run"]).env("INKSTONE_STEPS", "many"));
    assert!(run.code == Some(2) && run.stderr.contains("INKSTONE_STEPS"), "{run:#?}");
}

#[cfg(unix)]
#[test]
fn row_95_a_config_file_that_everybody_can_write() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    let path = dir.write("inkstone.toml", "steps = 9\n");
    let warning = "everybody on this machine can change";
    assert!(!dir.run(["a cat", "--dry-run"]).stderr.contains(warning));
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    let run = dir.run(["a cat", "--dry-run"]);
    assert!(run.code == Some(0) && run.stderr.contains(warning), "{run:#?}");
}
