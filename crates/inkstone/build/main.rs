//! Packs the embedded model's weights, so that the program carries two thirds of their bytes.
#![allow(clippy::print_stdout)] // how a build script speaks to cargo

mod pack;

use std::path::Path;
use std::{env, error, fs};

const WEIGHTS: [(&str, &str); 3] = [
    ("text_encoder", "model.safetensors"),
    ("transformer", "diffusion_pytorch_model.safetensors"),
    ("vae", "diffusion_pytorch_model.safetensors"),
];

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=build");
    let model = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../models/tiny");
    let out = env::var("OUT_DIR")?;
    for (component, file) in WEIGHTS {
        let path = model.join(component).join(file);
        println!("cargo:rerun-if-changed={}", path.display());
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        fs::write(Path::new(&out).join(component).with_extension("packed"), pack::pack(&bytes))?;
    }
    Ok(())
}
