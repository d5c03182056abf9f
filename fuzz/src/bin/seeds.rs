//! Writes the inputs to begin with into the folders that libFuzzer reads, and the words that it may use.
//!
//! `cargo run --bin seeds -- OUT LIMIT`: `OUT/NAME/seed-0`, ..., those of at most `LIMIT` bytes, and `OUT/words`.

use std::fs;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = PathBuf::from(arguments.next().expect("a folder"));
    let limit: usize = arguments.next().and_then(|limit| limit.parse().ok()).expect("a number of bytes");
    for target in &inkstone_fuzz::TARGETS {
        let folder = out.join(target.name);
        fs::create_dir_all(&folder)?;
        let seeds = inkstone_fuzz::Session::seeds_of(target.name);
        for (number, seed) in seeds.iter().enumerate().filter(|(_, seed)| seed.len() <= limit) {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    let word = |word: &&str| -> String {
        let bytes: String = word.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
        format!("\"{bytes}\"\n")
    };
    fs::write(out.join("words"), inkstone_fuzz::mutate::WORDS.iter().map(word).collect::<String>())
}
