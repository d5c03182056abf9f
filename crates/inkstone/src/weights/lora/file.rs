//! Reads a LoRA file and checks everything in it that can be checked without a model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use inkstone_tensor::{DType, Device, regular};

use super::adapter::Adapter;
use super::keys::{self, Part};
use super::layers::Layers;
use super::{family, name_of, numbers};
use crate::error::{FOLDER_FILES, LoraProblem};
use crate::memory::Limits;
use crate::weights::identify;
use crate::weights::safetensors::whole::{Contents, Head};
use crate::{Error, Result};

/// The largest file that is read: LoRAs of Qwen-Image have up to 2 GB.
const LIMIT_BYTES: u64 = 8 << 30;

/// A LoRA file. Its head is read when it is opened, its numbers once they are needed; from then on what happens to the file
/// does not matter to drawings.
#[derive(Debug)]
pub struct Lora {
    pub(super) path: PathBuf,
    head: Head,
    pub(super) metadata: BTreeMap<String, String>,
    adapter: Adapter,
    /// As the head has them: shapes, and alphas, and no other numbers.
    outlined: Layers,
    whole: OnceLock<Whole>,
}

/// What was read.
#[derive(Debug)]
struct Whole {
    contents: Contents,
    layers: Layers,
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
        let lora = Self::open_head(path, device)?;
        limits.check(lora.memory_bytes())?;
        lora.read(device)?;
        Ok(lora)
    }

    /// Reads a file's head, which has all but its numbers. Alphas are read.
    ///
    /// # Errors
    /// As [`Self::open`], but for those about numbers.
    pub(super) fn open_head(path: &Path, device: &Device) -> Result<Self> {
        let refuse = |problem| Error::Lora { path: path.to_owned(), problem: Box::new(problem) };
        if path.is_dir() {
            let file = FOLDER_FILES.iter().map(|name| path.join(name)).find(|file| file.is_file());
            return Self::open_head(&file.ok_or_else(|| refuse(LoraProblem::Folder))?, device);
        }
        identify::check_format(path)?;
        let failed = |source| Error::ModelRead { path: path.to_owned(), source };
        let file = regular::open(path).map_err(failed)?;
        let head = match Head::read(file, path) {
            // A file that calls itself safetensors is told what is wrong with it.
            Err(Error::Safetensors { .. })
                if path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("safetensors")) =>
            {
                return Err(refuse(LoraProblem::NotSafetensors));
            }
            head => head?,
        };
        check_names(&head.names(), head.file_bytes()).map_err(refuse)?;
        let metadata = head.metadata().clone();
        let adapter = Adapter::of(path, &metadata)?.map_err(refuse)?;
        let is_alpha = |name: &str| keys::parse(name).is_some_and(|key| key.part == Part::Alpha);
        let outlined = numbers::readable(head.outline(path, device, is_alpha)?)?.map_err(refuse)?;
        let outlined = Layers::of(outlined, &adapter).map_err(refuse)?;
        Ok(Self { path: path.to_owned(), head, metadata, adapter, outlined, whole: OnceLock::new() })
    }

    /// Reads the numbers, if they were not read.
    ///
    /// # Errors
    /// [`Error::ModelRead`], no memory; [`Error::ModelChanged`] if something wrote to the file since its head was read;
    /// [`Error::Lora`] for numbers that cannot be used.
    pub(crate) fn read(&self, device: &Device) -> Result<()> {
        if self.whole.get().is_some() {
            return Ok(());
        }
        let refuse = |problem| Error::Lora { path: self.path.clone(), problem: Box::new(problem) };
        let (stored, contents) = self.head.whole(&self.path, device)?;
        let layers =
            Layers::of(numbers::readable(stored)?.map_err(refuse)?, &self.adapter).map_err(refuse)?;
        self.whole.get_or_init(|| Whole { contents, layers });
        Ok(())
    }

    /// The layers: with their numbers, if these were read.
    pub(super) fn layers(&self) -> &Layers {
        self.whole.get().map_or(&self.outlined, |whole| &whole.layers)
    }

    /// What it takes in memory at most, once it is read.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let of =
            |bytes: fn(DType) -> usize| self.head.numbers().map(move |(count, of)| count * bytes(of) as u64);
        let passing = of(numbers::passing_bytes).max().unwrap_or(0);
        self.head.file_bytes() + of(numbers::more_bytes).sum::<u64>() + passing
    }

    /// The size of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.head.file_bytes()
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

    /// The SHA-256 of the file as it was read, 64 hexadecimal digits. If it was not read yet, it is read through for this.
    ///
    /// # Errors
    /// [`Error::ModelRead`], [`Error::ModelChanged`].
    pub fn sha256(&self) -> Result<String> {
        match self.whole.get() {
            Some(whole) => Ok(whole.contents.sha256().to_owned()),
            None => self.head.sha256(&self.path),
        }
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
