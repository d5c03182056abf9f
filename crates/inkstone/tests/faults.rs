//! Rows 1 to 22 of the table of faults: weights, models, configs and tokenizers that are hostile or broken. A test
//! is named after its row.
#![allow(clippy::unwrap_used)] // as in tests

#[path = "faults/config.rs"]
mod config;
#[path = "faults/dir.rs"]
mod dir;
#[path = "faults/drawing.rs"]
mod drawing;
#[path = "faults/gguf.rs"]
mod gguf;
#[path = "faults/model.rs"]
mod model;
#[path = "faults/packed.rs"]
mod packed;
#[path = "faults/safetensors.rs"]
mod safetensors;
#[path = "faults/shards.rs"]
mod shards;
#[path = "faults/tokenizer.rs"]
mod tokenizer;

/// Every row of docs/faults.md names tests that are there.
#[test]
fn the_table_of_faults_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let (mut file, mut tests) = (String::new(), 0);
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        for name in line.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                file = std::fs::read_to_string(root.join("crates").join(name)).unwrap();
            } else {
                assert!(file.contains(&format!("#[test]\nfn {name}() {{")), "{name} of {line}");
                tests += 1;
            }
        }
    }
    assert!(tests > 50, "{tests}");
}
