//! Files that are named as arguments: pictures, and the settings in them. They come from strangers.

use std::io::{self, Read as _};
use std::path::Path;

use inkstone::codec::{self, Metadata, Origin};
use inkstone::memory::Limits;
use inkstone::request::Size;
use inkstone::{Error, Pixels};
use inkstone_tensor::regular;

use crate::failure::{Failure, Result, more_memory, printable};

/// A picture with its settings is at most this large.
const MAX_FILE_BYTES: u64 = 50 << 20;

/// The bytes of a file, if they are not too many and fit into memory.
pub(crate) fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let failed = |error: io::Error| Failure::read(path, &error);
    let file = regular::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len().min(MAX_FILE_BYTES);
    limits.check(len).map_err(|error| about_picture(path, error))?;
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let why = format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(Failure::usage(format!("{} is too large", path.display()), why, "give a smaller file"));
    }
    Ok(bytes)
}

/// The pixels of a picture, whose file was read, in some size.
pub(crate) fn resized(path: &Path, file: &[u8], size: Size, limits: &Limits) -> Result<Pixels> {
    codec::read_image_sized(file, size, limits).map_err(|error| about_picture(path, error))
}

/// What is wrong with a picture to start from; it may take more than there is.
fn about_picture(path: &Path, error: Error) -> Failure {
    let Error::InsufficientMemory { shortage, .. } = error else { return Failure::about(path, error) };
    Failure::from(error)
        .with_what(format!("the picture {} does not fit into memory", path.display()))
        .with_cure(format!("give a smaller picture, or {}", more_memory(shortage.limit.of)))
}

/// The pixels of a picture.
pub(crate) fn picture(path: &Path) -> Result<Pixels> {
    codec::read_image(&read(path, &Limits::now(None))?).map_err(|error| Failure::about(path, error))
}

/// The settings in a picture, or in the JSON file beside one, and who wrote them.
pub(crate) fn settings(path: &Path) -> Result<(Metadata, Origin)> {
    let bytes = read(path, &Limits::now(None))?;
    let found = if bytes.starts_with(b"{") {
        Metadata::from_json(&String::from_utf8_lossy(&bytes))
            .map(|settings| Some((settings, Origin::Inkstone)))
    } else if bytes.starts_with(b"\x89PNG") {
        Metadata::read_png(&bytes)
    } else {
        return Err(Failure::no_request(path, "it is no PNG and no .json, which are what holds one"));
    };
    let found = found.map_err(|error| Failure::about(path, error))?;
    found.ok_or_else(|| Failure::no_request(path, "nothing in it says how it was drawn"))
}

/// What is known, a line each, safe to show.
pub(crate) fn describe(settings: &Metadata) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(settings) else { return String::new() };
    fields.iter().map(|(name, value)| format!("{name}: {}\n", printable(&value.to_string()))).collect()
}
