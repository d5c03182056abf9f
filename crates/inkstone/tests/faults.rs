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

/// Rows of the list of faults that docs/faults.md must have: those of files, LoRAs and memory.
const ROWS: [std::ops::RangeInclusive<u32>; 2] = [1..=27, 76..=79];
/// Rows without a test: the server's, which is not there yet.
const UNTESTED: [u32; 1] = [23];

/// docs/faults.md has every row once, and every row names tests that exist.
#[test]
fn the_table_of_faults_has_all_rows_and_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/faults.md")).unwrap();
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let Ok(row) = line.split('|').nth(1).unwrap().trim().parse::<u32>() else { continue };
        rows.push(row);
        let (mut file, mut tests) = (String::new(), 0);
        for name in line.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                file = std::fs::read_to_string(root.join("crates").join(name)).unwrap();
            } else {
                assert!(file.contains(&format!("#[test]\nfn {name}() {{")), "{name} of {line}");
                tests += 1;
            }
        }
        assert!((tests == 0) == UNTESTED.contains(&row), "{tests} tests: {line}");
    }
    let mut once = rows.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once, rows, "rows in order, each once");
    let lacking: Vec<u32> = ROWS.into_iter().flatten().filter(|row| !rows.contains(row)).collect();
    assert!(lacking.is_empty(), "docs/faults.md lacks {lacking:?}");
}
