//! What a process that is killed leaves, looked at while another one is not.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A folder with what tells a model's, and a file of a name of its own.
fn model(folder: &Path, own: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(MODEL_INDEX), "{}").unwrap();
    fs::write(folder.join(own), "").unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn a_model_that_is_replaced_is_there_at_every_moment() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new");
    model(&to, "first");
    let other = dir.path().join("other");
    model(&other, "other");
    if exchange(&other, &to).is_err() {
        return; // a file system that cannot
    }
    fs::remove_dir_all(other).unwrap();
    let ended = AtomicBool::new(false);
    let missing = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let is_missing = || fs::symlink_metadata(&to).is_err();
            std::iter::from_fn(|| (!ended.load(Ordering::Relaxed)).then(is_missing)).filter(|m| *m).count()
        });
        for _ in 0..200 {
            let folder = Place::find(&to, &[], Existing::Replace).unwrap().begin().unwrap();
            model(folder.path(), "next");
            folder.publish().unwrap();
        }
        ended.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert_eq!(missing, 0);
    assert_eq!(names(dir.path()), ["new"]);
    assert_eq!(names(&to), [MODEL_INDEX, "next"]);
}

#[test]
fn names_that_are_exchanged_in_steps_end_the_same_and_a_failure_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [to, new] = ["new", "partial"].map(|name| dir.path().join(name));
    model(&to, "first");
    model(&new, "next");
    exchange_in_steps(&new, &to, &old("new")).unwrap();
    assert_eq!(names(dir.path()), ["new", "partial"]);
    assert_eq!([names(&to), names(&new)], [[MODEL_INDEX, "next"], ["first", MODEL_INDEX]]);
    exchange_in_steps(&dir.path().join("none"), &to, &old("new")).unwrap_err();
    assert_eq!(names(dir.path()), ["new", "partial"]);
    assert_eq!(names(&to), [MODEL_INDEX, "next"]);
}

/// Between two renamings of a process that lives, nobody gives its old model another name or removes it.
#[test]
fn what_a_process_has_put_aside_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (aside, to) = (dir.path().join(".new.old-1"), dir.path().join("new"));
    model(&aside, "first");
    let held = lock(&aside);
    let folder = Place::find(&to, &[], Existing::Refuse).unwrap().begin().unwrap();
    assert!(aside.is_dir() && !to.exists());
    drop((folder, held));
    Place::find(&to, &[], Existing::Replace).unwrap();
    assert!(!aside.exists() && to.join("first").exists());
}
