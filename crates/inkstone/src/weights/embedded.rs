//! The small model inside the program.

/// Puts bytes at the alignment that tensors want, so that they are used where they lie.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! model_file {
    ($name:literal) => {{
        static FILE: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny/", $name)));
        ($name, &FILE.0)
    }};
}

/// Name of the model in messages and pictures.
pub(super) const NAME: &str = "inkstone-tiny";

/// The file of this name.
pub(super) fn file(name: &str) -> Option<&'static [u8]> {
    let files: [(&str, &'static [u8]); 9] = [
        model_file!("model_index.json"),
        model_file!("scheduler/scheduler_config.json"),
        model_file!("text_encoder/config.json"),
        model_file!("text_encoder/model.safetensors"),
        model_file!("tokenizer/tokenizer.json"),
        model_file!("transformer/config.json"),
        model_file!("transformer/diffusion_pytorch_model.safetensors"),
        model_file!("vae/config.json"),
        model_file!("vae/diffusion_pytorch_model.safetensors"),
    ];
    files.into_iter().find(|(own, _)| *own == name).map(|(_, bytes)| bytes)
}
