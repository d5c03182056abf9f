//! Model files: from a folder on disk (or the embedded one) to tensors by name.

pub mod loader;

pub use loader::Loader;
