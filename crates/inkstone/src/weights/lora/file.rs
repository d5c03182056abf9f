//! Reads a LoRA file and checks everything in it that can be checked without a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inkstone_tensor::{Device, regular};

use super::adapter::Adapter;
use super::keys;
use super::layers::Layers;
use super::{family, name_of, numbers};
use crate::error::{FOLDER_FILES, LoraProblem};
use crate::memory::Limits;
use crate::weights::identify;
use crate::weights::safetensors::whole::{Contents, Head};
use crate::{Error, Result};

/// The largest file that is read: LoRAs of Qwen-Image have up to 2 GB.
const LIMIT_BYTES: u64 = 8 << 30;

/// A LoRA file in memory: what happens to the file later does not matter to drawings.
#[derive(Debug)]
pub struct Lora {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) layers: Layers,
}

impl Lora {
    /// Reads a file, or the one in a folder as PEFT and diffusers write it.
    ///
    /// # Errors
    /// [`Error::ModelRead`], [`Error::ForeignFormat`], [`Error::Safetensors`]; [`Error::Lora`] for a file that is no
    /// LoRA or whose numbers cannot be used.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        Self::open_within(path, device, &Limits::default())
    }

    /// Reads a file that fits into memory. Only its head is read of one that does not.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::InsufficientMemory`].
    pub(super) fn open_within(path: &Path, device: &Device, limits: &Limits) -> Result<Self> {
        let refuse = |problem| Error::Lora { path: path.to_owned(), problem: Box::new(problem) };
        if path.is_dir() {
            let file = FOLDER_FILES.iter().map(|name| path.join(name)).find(|file| file.is_file());
            return Self::open_within(&file.ok_or_else(|| refuse(LoraProblem::Folder))?, device, limits);
        }
        identify::check_format(path)?;
        let failed = |source| Error::ModelRead { path: path.to_owned(), source };
        let file = regular::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        // The names alone tell a LoRA from a checkpoint of 40 GB, which is not to be read.
        let head = match Head::read(&file, bytes, path) {
            // A file that calls itself safetensors is told what is wrong with it.
            Err(Error::Safetensors { .. })
                if path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("safetensors")) =>
            {
                return Err(refuse(LoraProblem::NotSafetensors));
            }
            head => head?,
        };
        check_names(&head.names(), bytes).map_err(refuse)?;
        limits.check(bytes.saturating_add(head.sum_of(numbers::more_bytes)))?;
        let (mut stored, contents) = head.tensors(path, device)?;
        let metadata = std::mem::take(&mut stored.metadata);
        let adapter = Adapter::of(path, &metadata)?.map_err(refuse)?;
        let layers = Layers::of(numbers::readable(stored)?.map_err(refuse)?, &adapter).map_err(refuse)?;
        Ok(Self { path: path.to_owned(), contents, metadata, layers })
    }

    /// The file's name without its folders.
    #[must_use]
    pub fn name(&self) -> String {
        name_of(&self.path)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The SHA-256 of the file as it was read, 64 hexadecimal digits. The first call computes it; the file is not read
    /// again.
    #[must_use]
    pub fn sha256(&self) -> &str {
        self.contents.sha256()
    }

    /// Steps of the drawing that a Lightning LoRA was distilled for; `None` for any other LoRA.
    ///
    /// It is told by its file's name, or a title in its metadata, which says `lightning` and a number before `step`:
    /// `Qwen-Image-Lightning-8steps-V1.1.safetensors`. Nothing in the tensors tells.
    #[must_use]
    pub fn lightning_steps(&self) -> Option<usize> {
        /// Where trainers and sites write what a file is called.
        const TITLES: [&str; 4] = ["ss_output_name", "modelspec.title", "name", "title"];
        let titles = TITLES.iter().filter_map(|key| self.metadata.get(*key).cloned());
        titles.chain([self.name()]).find_map(|title| lightning_steps(&title))
    }
}

/// The number before `step` in a title that says `lightning`.
pub(super) fn lightning_steps(title: &str) -> Option<usize> {
    let title = title.to_ascii_lowercase();
    if !title.contains("lightning") {
        return None;
    }
    title.match_indices("step").find_map(|(at, _)| {
        let before = title[..at].trim_end_matches(['-', '_', ' ']);
        let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        before[before.len() - digits..].parse().ok().filter(|steps| (1..=100).contains(steps))
    })
}

/// Whether the names are those of a LoRA.
fn check_names(names: &[String], bytes: u64) -> Result<(), LoraProblem> {
    let all = || names.iter().map(String::as_str);
    if let Some(kind) = family::other_kind(all()) {
        return Err(LoraProblem::OtherKind { kind, family: family::of(all()) });
    }
    let holds = identify::holds(names);
    if holds != identify::A_LORA && all().all(|name| keys::parse(name).is_none()) {
        return Err(LoraProblem::NoLora { holds });
    }
    let unknown: Vec<String> = all().filter(|name| keys::parse(name).is_none()).map(str::to_owned).collect();
    if !unknown.is_empty() {
        return Err(LoraProblem::left_over(unknown, names.len(), family::of(all())));
    }
    if bytes > LIMIT_BYTES {
        return Err(LoraProblem::TooLarge { bytes, limit_bytes: LIMIT_BYTES });
    }
    Ok(())
}
