//! Reads a LoRA file and checks everything in it that can be checked without a model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use inkstone_tensor::{Device, Tensor};

use super::adapter::Adapter;
use super::keys::{self, Dialect, Part};
use super::{family, name_of};
use crate::error::LoraProblem;
use crate::weights::identify;
use crate::weights::safetensors::whole::{Contents, Head};
use crate::{Error, Result};

/// The largest file that is read: LoRAs of Qwen-Image have up to 2 GB.
const LIMIT_BYTES: u64 = 8 << 30;
/// The highest rank. Beyond it a LoRA is no shorter than the weight.
const MAX_RANK: usize = 3072;
/// The largest magnitude of alpha.
const MAX_ALPHA: u32 = 100_000;

/// The two factors of a layer.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    /// The layer as the file names it, without prefix.
    pub(super) layer: String,
    /// `[rank, n_in]`
    pub(super) down: Tensor,
    /// `[n_out, rank]`
    pub(super) up: Tensor,
    pub(super) alpha: f32,
    /// What alpha is divided by: the rank, or its root.
    divisor: f32,
}

impl Factors {
    pub(super) fn rank(&self) -> usize {
        self.down.rows()
    }

    /// What the product of the factors is multiplied with.
    pub(super) fn factor(&self) -> f32 {
        self.alpha / self.divisor
    }
}

/// A LoRA file in memory: what happens to the file later does not matter to drawings.
#[derive(Debug)]
pub struct Lora {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    pub(super) dialect: Dialect,
    pub(super) metadata: BTreeMap<String, String>,
    /// By [`keys::flat`] name.
    pub(super) layers: BTreeMap<String, Factors>,
    pub(super) has_alphas: bool,
}

impl Lora {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::ModelRead`], [`Error::ForeignFormat`], [`Error::Safetensors`]; [`Error::Lora`] for a file that is no
    /// LoRA or whose numbers cannot be used.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let refuse = |problem| Error::Lora { path: path.to_owned(), problem: Box::new(problem) };
        identify::check_format(path)?;
        let failed = |source| Error::ModelRead { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
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
        let (stored, contents) = head.tensors(path, device)?;
        if let Some((name, stored)) = stored.foreign.first_key_value() {
            return Err(refuse(LoraProblem::Type { tensor: name.clone(), have: (*stored).to_owned() }));
        }
        let adapter = Adapter::of(path, &stored.metadata)?.map_err(refuse)?;
        let (layers, dialect, has_alphas) = layers(stored.tensors, &adapter).map_err(refuse)?;
        let metadata = stored.metadata;
        Ok(Self { path: path.to_owned(), contents, dialect, metadata, layers, has_alphas })
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
    if all().all(|name| keys::parse(name).is_none()) {
        return Err(LoraProblem::NoLora { holds: identify::holds(names) });
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

type Layers = (BTreeMap<String, Factors>, Dialect, bool);

fn layers(tensors: BTreeMap<String, Tensor>, adapter: &Adapter) -> Result<Layers, LoraProblem> {
    let factors =
        tensors.iter().filter(|(name, _)| keys::parse(name).is_some_and(|key| key.part != Part::Alpha));
    if let Some((name, _)) = factors.into_iter().find(|(_, tensor)| !tensor.is_finite()) {
        return Err(LoraProblem::NotFinite { tensor: name.clone() });
    }
    let (mut downs, mut ups, mut alphas) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut names = BTreeSet::new();
    let mut dialect = Dialect::Plain;
    for (name, tensor) in tensors {
        let Some(key) = keys::parse(&name) else { continue };
        dialect = key.dialect;
        let parts = match key.part {
            Part::Down => &mut downs,
            Part::Up => &mut ups,
            Part::Alpha => &mut alphas,
        };
        if !tensor.dtype().is_float() {
            return Err(LoraProblem::Type { have: tensor.dtype().to_string(), tensor: name });
        }
        let flat = keys::flat(key.layer);
        names.insert((flat.clone(), key.layer.to_owned()));
        if parts.insert(flat, tensor).is_some() {
            return Err(LoraProblem::Twice { layer: key.layer.to_owned() });
        }
    }
    let has_alphas = !alphas.is_empty() || adapter.has_alphas();
    let mut layers = BTreeMap::new();
    for (flat, layer) in names {
        let half = |missing| LoraProblem::Half { layer: layer.clone(), missing };
        let down = downs.remove(&flat).ok_or_else(|| half("down (A)"))?;
        let up = ups.remove(&flat).ok_or_else(|| half("up (B)"))?;
        let stored = alphas.remove(&flat).map(|alpha| alpha_of(&layer, &alpha)).transpose()?;
        let rank = down.rows();
        check_shapes(&layer, &down, &up)?;
        let alpha =
            stored.map_or_else(|| adapter.alpha(&layer), |alpha| Ok(Some(alpha)))?.unwrap_or(rank as f32);
        if alpha == 0.0 || !(0.0..=MAX_ALPHA as f32).contains(&alpha.abs()) {
            return Err(LoraProblem::Alpha { layer, got: alpha.to_string(), limit: MAX_ALPHA });
        }
        let divisor = if adapter.by_root { (rank as f32).sqrt() } else { rank as f32 };
        layers.insert(flat, Factors { layer, down, up, alpha, divisor });
    }
    Ok((layers, dialect, has_alphas))
}

fn alpha_of(layer: &str, stored: &Tensor) -> Result<f32, LoraProblem> {
    match stored.to_f32().ok().as_deref() {
        Some([alpha]) => Ok(*alpha),
        _ => Err(LoraProblem::Alpha {
            layer: layer.to_owned(),
            got: format!("{} numbers", stored.shape().count()),
            limit: MAX_ALPHA,
        }),
    }
}

fn check_shapes(layer: &str, down: &Tensor, up: &Tensor) -> Result<(), LoraProblem> {
    match (down.shape().dims(), up.shape().dims()) {
        (&[rank, _], &[_, columns]) if rank == columns && (1..=MAX_RANK).contains(&rank) => Ok(()),
        _ => Err(LoraProblem::Shapes {
            layer: layer.to_owned(),
            down: down.shape().to_string(),
            up: up.shape().to_string(),
        }),
    }
}
