//! Automation of the project: `cargo xtask check` is what CI runs.

mod golden;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "cargo xtask COMMAND

  check    formatting, lints, documentation, golden hashes, all tests on the last CPU table of this machine, those of what
           is computed on the others, then 20 seconds of each fuzz target
  golden   compares golden/data with the hashes in its manifest
  size     builds the release binary, prints its size and how long the build took";

fn main() -> ExitCode {
    let command = env::args().nth(1).unwrap_or_default();
    let result = match command.as_str() {
        "check" => check(),
        "golden" => golden::check(&root()),
        "size" => size(),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    let deny = [("RUSTDOCFLAGS", "-D warnings")];
    cargo(&["fmt", "--all", "--check"], &[])?;
    golden::check(&root())?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"], &deny)?;
    let mut tables = cpu_tables();
    let last = tables.pop().unwrap_or_default();
    cargo(&["test", "--workspace", "--exclude", "inkstone-cli"], &[("INKSTONE_CPU", last)])?;
    for table in tables {
        computed(table)?;
    }
    // What the program says does not depend on the table.
    cargo(&["test", "--package", "inkstone-cli"], &[])?;
    smoke()
}

/// The tests of what depends on the CPU table: every kernel against its definition, networks and pictures against the
/// reference, formats of weights. What files, faults and plans are about runs once.
fn computed(table: &str) -> Result<()> {
    /// Of these targets what runs once, too: it takes long, and tells how often weights are loaded, or how good pictures in a
    /// format of weights are, whose kernels have a definition.
    const ONCE: [&str; 4] = [
        "pipeline::tests::prompts_of_later_batches_are_encoded_with_the_first",
        "pipeline::tests::ahead::",
        "pictures::pictures_in_int8_are_those_in_f32",
        "pictures_in_q8_and_q4_are_those_of_the_model_as_stored",
    ];
    const TARGETS: [&str; 5] = ["cpu", "golden", "int8", "lora", "convert"];
    let mut args = vec!["test", "--package", "inkstone-tensor", "--package", "inkstone", "--lib"];
    args.extend(TARGETS.iter().flat_map(|target| ["--test", *target]));
    args.push("--");
    args.extend(ONCE.iter().flat_map(|test| ["--skip", *test]));
    cargo(&args, &[("INKSTONE_CPU", table)])
}

/// Gives each fuzz target some time, two at once.
fn smoke() -> Result<()> {
    const SECONDS: (&str, &str) = ("INKSTONE_FUZZ_SECONDS", "20");
    let run = |targets: [&str; 3]| {
        let start = ["test", "--quiet", "--package", "inkstone", "--test", "fuzz", "--", "--exact"];
        cargo(&[&start[..], &targets].concat(), &[SECONDS])
    };
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| run(["safetensors", "model", "gguf"]));
        let here = run(["packed", "lora", "tokenizer"]);
        beside.join().unwrap_or_else(|_| Err("a fuzz target panicked".into())).and(here)
    })
}

/// The CPU tables that this machine can run, as `INKSTONE_CPU` names them.
fn cpu_tables() -> Vec<&'static str> {
    let mut tables = vec!["scalar"];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            tables.push("avx2");
        }
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
        {
            tables.push("avx512");
            if is_x86_feature_detected!("avx512bf16") {
                tables.push("avx512bf16");
            }
        }
    }
    tables
}

fn size() -> Result<()> {
    let start = Instant::now();
    cargo(&["build", "--release", "--package", "inkstone-cli"], &[])?;
    let seconds = start.elapsed().as_secs_f64();
    let binary = root().join("target/release/inkstone");
    let bytes = std::fs::metadata(&binary).map_err(|e| format!("{}: {e}", binary.display()))?.len();
    println!("{} bytes, built in {seconds:.0} s", bytes);
    Ok(())
}

/// Runs cargo in the project's root and says what it ran and for how long.
fn cargo(args: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let shown = format!(
        "{}cargo {}",
        variables.iter().map(|(k, v)| format!("{k}=\"{v}\" ")).collect::<String>(),
        args.join(" ")
    );
    println!("== {shown}");
    let start = Instant::now();
    let status = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(args)
        .envs(variables.iter().copied())
        .current_dir(root())
        .status()
        .map_err(|e| format!("{shown}: {e}"))?;
    println!("== {:.0} s", start.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("failed: {shown}")) }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
