//! Files that are named as arguments: pictures, and the settings in them. They come from strangers.

use std::io::Read as _;
use std::path::Path;

use inkstone::Pixels;
use inkstone::codec::{self, Metadata, Origin};
use inkstone_tensor::regular;

use crate::failure::{Failure, Result, printable};

/// A picture with its settings is at most this large.
const MAX_FILE_BYTES: u64 = 50 << 20;

/// The bytes of a file, within the limit.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = regular::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(Failure::read(path, &error)),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
            let why = format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20);
            Err(Failure::usage(format!("{} is too large", path.display()), why, "give a smaller file"))
        }
        Ok(_) => Ok(bytes),
    }
}

/// The pixels of a picture.
pub(crate) fn picture(path: &Path) -> Result<Pixels> {
    codec::read_image(&read_file(path)?).map_err(|error| Failure::about(path, error))
}

/// The settings in a picture, or in the JSON file beside one, and who wrote them.
pub(crate) fn settings(path: &Path) -> Result<(Metadata, Origin)> {
    let bytes = read_file(path)?;
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
