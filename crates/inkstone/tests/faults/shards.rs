//! Rows 16 to 18: shards and links.

use std::fs;

use inkstone::Error;
use inkstone::error::{JsonProblem, ShardProblem};
use inkstone::weights::{Component, Residence, SafeTensors, safetensors};
use inkstone_tensor::{DType, Shape, Tensor};

use crate::dir::{Dir, INDEX, WEIGHTS, copy_folder, device, golden, open, sample, transformer};

/// The transformer of the golden model in two shards with an index.
fn sharded(name: &str) -> Dir {
    let dir = Dir::model(name);
    let whole = SafeTensors::open(&dir.0.join(WEIGHTS), &device(), Residence::Owned).unwrap();
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    let mut map = serde_json::Map::new();
    let (mut first, mut second) = (whole.tensors.clone(), whole.tensors);
    first.retain(|name, _| name.len() % 2 == 0);
    second.retain(|name, _| name.len() % 2 == 1);
    for (file, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        dir.write(&format!("transformer/{file}"), safetensors::serialize(&tensors, &Default::default()));
        map.extend(tensors.keys().map(|name| (name.clone(), file.into())));
    }
    dir.write(INDEX, serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string());
    dir
}

fn shard_problem(dir: &Dir) -> ShardProblem {
    match dir.loader_error() {
        Error::Shards { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shards_are_one_model() {
    let dir = sharded("shards");
    let [mut one, mut two] = [open(&golden()).unwrap(), dir.open().unwrap()].map(|files| transformer(&files));
    assert_eq!(one.left_over(), two.left_over());
    assert_eq!(sample(&mut one), sample(&mut two));
}

#[test]
fn row_16_shards_outside_of_the_folder() {
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "../vae/diffusion_pytorch_model.safetensors",
        "..\\\\x.safetensors",
        "C:x.safetensors",
        "a\\u0000.safetensors",
        ".safetensors",
        "a.bin",
        "",
    ] {
        let dir = sharded("traversal");
        dir.edit(INDEX, "\"a.safetensors\"", &format!("\"{name}\""));
        assert!(matches!(shard_problem(&dir), ShardProblem::BadName { .. }), "{name}");
    }
}

#[test]
fn row_17_missing_shard_and_misplaced_tensors() {
    let dir = sharded("missing");
    fs::remove_file(dir.0.join("transformer/b.safetensors")).unwrap();
    let want = ShardProblem::MissingShards { count: 1, first: vec!["b.safetensors".into()] };
    assert_eq!(shard_problem(&dir), want);

    let dir = sharded("misplaced");
    let swapped = dir.read(INDEX).replace("a.safetensors", "?").replace("b.safetensors", "a.safetensors");
    dir.write(INDEX, swapped.replace('?', "b.safetensors"));
    match shard_problem(&dir) {
        ShardProblem::Misplaced { count, first } => {
            assert!(count > 5 && first.len() == 5, "{count} {first:?}");
            assert!(first[0].contains(" (not in "), "{first:?}");
        }
        other => panic!("{other:?}"),
    }

    let dir = sharded("twice");
    let extra = Tensor::from_f32(&device(), &[1.0], Shape::vector(1)).unwrap();
    for file in ["transformer/a.safetensors", "transformer/b.safetensors"] {
        let mut shard = SafeTensors::open(&dir.0.join(file), &device(), Residence::Owned).unwrap();
        shard.tensors.insert("extra".into(), extra.clone());
        dir.write(file, safetensors::serialize(&shard.tensors, &Default::default()));
    }
    assert_eq!(shard_problem(&dir), ShardProblem::Duplicate { name: "extra".into() });

    let dir = sharded("key-twice");
    dir.edit(INDEX, "\"weight_map\":{", "\"weight_map\":{\"img_in.weight\":\"a.safetensors\",");
    assert!(matches!(dir.loader_error(), Error::Json { problem: JsonProblem::Invalid { .. }, .. }));
}

#[cfg(unix)]
#[test]
fn row_18_links_stay_inside() {
    use std::os::unix::fs::symlink;

    let outside = Dir::empty("outside");
    outside.write("weights", fs::read(golden().join(WEIGHTS)).unwrap());
    let dir = Dir::model("link");
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    symlink(outside.0.join("weights"), dir.0.join(WEIGHTS)).unwrap();
    assert!(matches!(dir.loader_error(), Error::OutsideModel { .. }));
    fs::remove_file(dir.0.join(WEIGHTS)).unwrap();
    symlink(dir.0.join(WEIGHTS), dir.0.join(WEIGHTS)).unwrap();
    let error = dir.loader_error();
    assert!(matches!(error, Error::ModelRead { .. }), "a link to itself: {error:?}");
    assert_eq!(error.code(), "INK-0301");

    // The cache of huggingface_hub: a snapshot of links to blobs, which may be links into a store of the cache.
    let cache = Dir::empty("cache");
    let snapshot = cache.0.join("models--Qwen--Qwen-Image/snapshots/abc123");
    fs::create_dir_all(&snapshot).unwrap();
    copy_folder(&golden(), &snapshot);
    cache.write("models--Qwen--Qwen-Image/refs/main", "abc123");
    let file = snapshot.join(WEIGHTS);
    fs::create_dir_all(cache.0.join("models--Qwen--Qwen-Image/blobs")).unwrap();
    fs::create_dir_all(cache.0.join("blobs/ab")).unwrap();
    fs::rename(&file, cache.0.join("blobs/ab/hash")).unwrap();
    let blob = cache.0.join("models--Qwen--Qwen-Image/blobs/hash");
    symlink("../../blobs/ab/hash", &blob).unwrap();
    symlink("../../../blobs/hash", &file).unwrap(); // from snapshots/abc123/transformer
    for path in [&snapshot, &cache.0.join("models--Qwen--Qwen-Image")] {
        let files = open(path).unwrap();
        assert_eq!(files.name(), "Qwen/Qwen-Image");
        transformer(&files);
    }
    fs::remove_file(&blob).unwrap();
    symlink(outside.0.join("weights"), &blob).unwrap();
    let error = open(&snapshot).unwrap().loader(Component::Transformer, &device(), DType::F32).unwrap_err();
    assert!(matches!(error, Error::OutsideModel { boundary, .. } if boundary == cache.0));

    // A snapshot that is a link out of the cache, named by refs/main.
    cache.write("models--Qwen--Qwen-Image/refs/main", "../../../outside");
    assert!(matches!(open(&cache.0.join("models--Qwen--Qwen-Image")), Err(Error::UnsupportedModel { .. })));
}
