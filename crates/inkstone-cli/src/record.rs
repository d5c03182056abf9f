//! The request that a picture carries, and how it is read back: from a stranger's file, so only known fields, checked.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use inkstone::Request;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Pictures to start from and pictures with requests are at most this large.
const MAX_PICTURE_BYTES: u64 = 50 << 20;

/// A request as it is kept. A field that is not there takes the default again.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Record {
    pub(crate) model: Option<String>,
    pub(crate) prompt: Option<String>,
    pub(crate) negative_prompt: Option<String>,
    pub(crate) width: Option<usize>,
    pub(crate) height: Option<usize>,
    pub(crate) steps: Option<usize>,
    pub(crate) seed: Option<u64>,
    pub(crate) true_cfg_scale: Option<f32>,
    pub(crate) strength: Option<f32>,
}

/// The bytes of a file that was named as an argument, within the limit for pictures.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PICTURE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(Failure::read(path, &error)),
        Ok(_) if bytes.len() as u64 > MAX_PICTURE_BYTES => {
            let why = format!("it is larger than {} MiB", MAX_PICTURE_BYTES >> 20);
            Err(Failure::usage(format!("{} is too large", path.display()), why, "give a smaller file"))
        }
        Ok(_) => Ok(bytes),
    }
}

impl Record {
    pub(crate) fn of(_request: &Request, _model: &inkstone::pipeline::ModelInfo) -> Self {
        todo!()
    }
    pub(crate) fn to_json(&self) -> Result<Vec<u8>> {
        todo!()
    }
    pub(crate) fn read(_path: &Path) -> Result<Self> {
        todo!()
    }
    pub(crate) fn describe(&self) -> String {
        todo!()
    }
}

pub(crate) fn encode(_pixels: &inkstone::Pixels, _record: Option<&Record>) -> Result<Vec<u8>> {
    todo!()
}
pub(crate) fn decode(_path: &Path, _bytes: &[u8]) -> Result<inkstone::Pixels> {
    todo!()
}
