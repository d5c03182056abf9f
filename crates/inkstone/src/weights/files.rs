//! A whole model: its configs as text, its tokenizer, and a loader for each component.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use inkstone_tensor::{DType, Device, Ledger, MappedFile};

use super::folder::Folder;
use super::shards::Shards;
use super::{
    Component, Loader, RandomModel, Residence, SafeTensors, Strictness, comfy, embedded, gguf, identify,
    json, loader, names, scan, tokenizer,
};
use crate::error::JsonProblem;
use crate::models::qwen25_vl;
use crate::{Error, Result};

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder in the diffusers layout.
    Folder(PathBuf),
    /// A folder in the diffusers layout whose weights come from other files in part.
    Pieces {
        /// The folder: configs, tokenizer, and the weights that `parts` does not name.
        folder: PathBuf,
        /// Where the other weights are.
        parts: Parts,
    },
    /// The small model inside the program.
    Embedded,
    /// Qwen-Image with random weights, for benchmarks: no files are read.
    Random(RandomModel),
}

/// Weights in place of those of a model's folder: single files (safetensors or GGUF) or folders with an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The text encoder's.
    pub text_encoder: Option<PathBuf>,
    /// The transformer's.
    pub transformer: Option<PathBuf>,
    /// The VAE's.
    pub vae: Option<PathBuf>,
}

impl Parts {
    fn of(&self, component: Component) -> Option<&Path> {
        match component {
            Component::TextEncoder => self.text_encoder.as_deref(),
            Component::Transformer => self.transformer.as_deref(),
            Component::Vae => self.vae.as_deref(),
        }
    }
}

/// Whether weights are looked at for NaN and infinity when they are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scan {
    /// No: opening stays free of reading. Drawing stops at the first step that is not finite.
    #[default]
    Off,
    /// Yes; reads every byte.
    NotFinite,
}

/// How a model's files are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Where weights live.
    pub residence: Residence,
    /// What becomes of unknown tensors.
    pub strictness: Strictness,
    /// Whether values are checked.
    pub scan: Scan,
}

/// The name of the file that says what the model is.
pub const MODEL_INDEX: &str = "model_index.json";
/// The scheduler's config's name in the model's folder.
pub const SCHEDULER: &str = "scheduler/scheduler_config.json";
const TOKENIZER: &str = "tokenizer/tokenizer.json";

/// A model whose configs were read and checked; weights are opened by [`ModelFiles::loader`].
#[derive(Debug)]
pub struct ModelFiles {
    name: String,
    /// `None` for the embedded and random models.
    folder: Option<Folder>,
    parts: Parts,
    random: Option<RandomModel>,
    options: ReadOptions,
    /// Texts of the JSON files by relative name.
    texts: BTreeMap<&'static str, String>,
    /// Mapped weights that are still in use.
    mappings: Mutex<Vec<Weak<MappedFile>>>,
}

impl ModelFiles {
    /// Opens a model: finds out whether it is one that this engine draws with, reads and checks its configs.
    ///
    /// # Errors
    /// What is there instead of a Qwen-Image folder, a file that is missing, a config out of range.
    pub fn open(source: &ModelSource, options: ReadOptions) -> Result<Self> {
        let (mut random, mut parts) = (None, Parts::default());
        let (name, folder) = match source {
            ModelSource::Embedded => (embedded::NAME.to_owned(), None),
            ModelSource::Random(model) => {
                random = Some(*model);
                ("random".to_owned(), None)
            }
            ModelSource::Folder(path) | ModelSource::Pieces { folder: path, .. } => {
                if let ModelSource::Pieces { parts: given, .. } = source {
                    parts.clone_from(given);
                }
                if path.is_file() {
                    return Err(identify::lone_file(path));
                }
                let folder = Folder::open(path)?;
                (folder.model_name(), Some(folder))
            }
        };
        // Other weights draw other pictures: their files' names are part of the model's.
        let given = Component::ALL.iter().filter_map(|component| parts.of(*component)?.file_name());
        let name = given.fold(name, |name, file| format!("{name}+{}", file.to_string_lossy()));
        let mut files =
            Self { name, folder, parts, random, options, texts: BTreeMap::new(), mappings: Mutex::default() };
        files.read_configs(source)?;
        Ok(files)
    }

    fn read_configs(&mut self, source: &ModelSource) -> Result<()> {
        let root = match source {
            ModelSource::Folder(root) | ModelSource::Pieces { folder: root, .. } => root,
            ModelSource::Embedded | ModelSource::Random(_) => Path::new(embedded::NAME),
        };
        let index = match (self.read(MODEL_INDEX, json::CONFIG_LIMIT_BYTES), &self.folder) {
            (Err(Error::MissingFile { .. }), Some(folder)) => {
                return Err(identify::folder_without_index(root, folder));
            }
            (index, _) => index?,
        };
        let path = self.path(MODEL_INDEX);
        identify::check_index(root, &json::parse(&path, &index)?)?;
        self.keep(MODEL_INDEX, &index)?;
        for component in Component::ALL {
            let name = component.config_name();
            let bytes = self.read(name, json::CONFIG_LIMIT_BYTES)?;
            let config = json::parse(&self.path(name), &bytes)?;
            check_plain(component, &config)?;
            self.keep(name, &bytes)?;
        }
        let bytes = self.read(SCHEDULER, json::CONFIG_LIMIT_BYTES)?;
        json::parse(&self.path(SCHEDULER), &bytes)?;
        self.keep(SCHEDULER, &bytes)
    }

    fn keep(&mut self, name: &'static str, bytes: &[u8]) -> Result<()> {
        let text = String::from_utf8(bytes.to_vec()).map_err(|e| self.unfit(name, &e))?;
        self.texts.insert(name, text);
        Ok(())
    }

    /// A short name: the folder's, the repository's in a Hugging Face cache, or `inkstone-tiny`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of one of the model's JSON files, such as `transformer/config.json`: bounded, sound, no key twice.
    /// The numbers in it are for the reader to check.
    ///
    /// # Errors
    /// [`Error::MissingFile`] for any other name.
    pub fn json(&self, name: &str) -> Result<&str> {
        self.texts.get(name).map(String::as_str).ok_or_else(|| Error::MissingFile { path: self.path(name) })
    }

    fn unfit(&self, name: &str, error: &dyn std::error::Error) -> Error {
        Error::Json { path: self.path(name), problem: JsonProblem::Invalid { reason: error.to_string() } }
    }

    /// The tokenizer as the text of a tokenizer.json, checked. Folders that have vocab.json and merges.txt in its
    /// place, as the first Qwen-Image has, give the same text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::Json`], [`Error::MissingFile`].
    pub fn tokenizer(&self) -> Result<Vec<u8>> {
        let text_encoder = qwen25_vl::Config::from_json(self.json(Component::TextEncoder.config_name())?)?;
        let path = self.path(TOKENIZER);
        let bytes = match self.read(TOKENIZER, tokenizer::LIMIT_BYTES) {
            Err(Error::MissingFile { .. }) => Cow::Owned(self.tokenizer_from_parts()?),
            bytes => bytes?,
        };
        tokenizer::check(&path, &bytes, text_encoder.vocab_size as u64)?;
        Ok(bytes.into_owned())
    }

    /// Bytes of the file that the tokenizer is read from; 0 if it is not there.
    #[must_use]
    pub fn tokenizer_file_bytes(&self) -> usize {
        let Some(folder) = &self.folder else { return embedded::file(TOKENIZER).map_or(0, <[u8]>::len) };
        let names = [TOKENIZER, "tokenizer/vocab.json"];
        let sizes = names.iter().filter_map(|name| folder.find(name).ok()??.metadata().ok());
        sizes.map(|file| usize::try_from(file.len()).unwrap_or(usize::MAX)).next().unwrap_or(0)
    }

    fn tokenizer_from_parts(&self) -> Result<Vec<u8>> {
        let part = |name: &str| {
            let name = format!("tokenizer/{name}");
            Ok::<_, Error>((self.path(&name), self.read(&name, tokenizer::LIMIT_BYTES)?))
        };
        let missing = |e: Error| match e {
            // Both forms are missing; the one to ask for is tokenizer.json.
            Error::MissingFile { .. } => Error::MissingFile { path: self.path(TOKENIZER) },
            other => other,
        };
        let (vocab_path, vocab) = part("vocab.json").map_err(missing)?;
        let (merges_path, merges) = part("merges.txt").map_err(missing)?;
        let (config_path, config) = part("tokenizer_config.json")?;
        tokenizer::assemble((&vocab_path, &vocab), (&merges_path, &merges), (&config_path, &config))
    }

    /// Opens the weights of a component.
    ///
    /// # Errors
    /// Files that are missing, unsound, of another format or outside of the folder; with [`Scan::NotFinite`]
    /// [`Error::WeightsNotFinite`].
    pub fn loader(
        &self,
        component: Component,
        device: &Device,
        activations: DType,
    ) -> Result<Loader<'static>> {
        if self.random.is_some() {
            return Ok(Loader::random(component.name(), device, activations));
        }
        let (mut file, mappings) = self.tensors(component, device, self.options.residence)?;
        if self.options.scan == Scan::NotFinite {
            scan::check(component.name(), &file)?;
        }
        names::make_canonical(component, &mut file);
        Ok(Loader::new(component.name(), device, activations, file.tensors)
            .with_quantized(file.quantized)
            .with_foreign(file.foreign)
            .with_mappings(mappings)
            .with_strictness(self.options.strictness))
    }

    /// A component's tensors under the names that its network asks for.
    pub(crate) fn component(&self, component: Component, device: &Device) -> Result<SafeTensors> {
        let (mut file, _) = self.tensors(component, device, Residence::Mapped)?;
        names::make_canonical(component, &mut file);
        Ok(file)
    }

    /// The files of a component's weights; none of a model that is not in a folder.
    pub(crate) fn weight_files(&self, component: Component) -> Result<Vec<PathBuf>> {
        self.folder.as_ref().map_or(Ok(Vec::new()), |folder| Ok(self.shards(folder, component)?.files))
    }

    /// The folder without links; of a model that is in none only its name.
    pub(crate) fn root(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(embedded::NAME), Folder::root)
    }

    /// The same, if all weights are the folder's own; `None` otherwise.
    pub(crate) fn whole_folder(&self) -> Option<&Path> {
        let own = self.parts == Parts::default();
        self.folder.as_ref().filter(|_| own).map(Folder::root)
    }

    /// The names of what is in a folder of the folder, sorted.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.folder.as_ref().map_or(Vec::new(), |folder| folder.list(name))
    }

    /// Where a file of the folder is, which links must not leave.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        self.folder.as_ref().map_or(Ok(None), |folder| folder.find(name))
    }

    /// The same for a counting device: only headers are read.
    ///
    /// # Errors
    /// As [`ModelFiles::loader`], values not looked at.
    pub(crate) fn counted_loader(
        &self,
        component: Component,
        device: &Device,
        activations: DType,
        ledger: &Arc<Ledger>,
    ) -> Result<Loader<'static>> {
        let loader = if self.random.is_some() {
            Loader::random(component.name(), device, activations)
        } else {
            let (mut file, _) = self.tensors(component, device, Residence::Mapped)?;
            names::make_canonical(component, &mut file);
            Loader::new(component.name(), device, activations, file.tensors)
                .with_quantized(file.quantized)
                .with_foreign(file.foreign)
        };
        loader.counted(ledger, self.options.residence)
    }

    fn tensors(
        &self,
        component: Component,
        device: &Device,
        residence: Residence,
    ) -> Result<(SafeTensors, Vec<Arc<MappedFile>>)> {
        let Some(folder) = &self.folder else {
            let name = component.weights_name();
            let bytes = embedded::file(&name).ok_or_else(|| Error::MissingFile { path: self.path(&name) })?;
            let file = match residence {
                Residence::Mapped => SafeTensors::from_static(&self.path(&name), bytes, device)?,
                Residence::Owned => SafeTensors::from_bytes(&self.path(&name), bytes, device)?,
            };
            return Ok((file, Vec::new()));
        };
        let shards = self.shards(folder, component)?;
        let mut files = Vec::new();
        for path in &shards.files {
            identify::check_format(path)?;
            files.push(if identify::is_gguf(path) {
                gguf::open(path, device, residence)?
            } else {
                SafeTensors::open(path, device, residence)?
            });
        }
        let mapped: Vec<_> = files.iter_mut().filter_map(|file| file.mapping.take()).collect();
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.retain(|mapping| mapping.strong_count() > 0);
        mappings.extend(mapped.iter().map(Arc::downgrade));
        let mut file = shards.merge(files)?;
        comfy::join(component, &mut file)?;
        Ok((file, mapped))
    }

    /// The files of a component's weights: those that were given for it, else those of the model's folder.
    fn shards(&self, folder: &Folder, component: Component) -> Result<Shards> {
        match self.parts.of(component) {
            None => Shards::find(folder, component),
            Some(path) if path.is_dir() => Shards::find_in(&Folder::open(path)?, ".", component),
            Some(path) => Ok(Shards::one(path.to_owned())),
        }
    }

    /// Bytes of all weights on disk; 0 for models that are not there.
    ///
    /// # Errors
    /// Weights that are missing or outside of the folder.
    pub fn weight_bytes(&self) -> Result<u64> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let mut bytes = 0;
        for component in Component::ALL {
            for path in self.shards(folder, component)?.files {
                let source = |source| Error::ModelRead { path: path.clone(), source };
                bytes += std::fs::metadata(&path).map_err(source)?.len();
            }
        }
        Ok(bytes)
    }

    /// Whether the mapped weights that are in use are still what was opened. To be asked after each stage and
    /// step: what was computed from a file that shrank in the meantime is worthless.
    ///
    /// # Errors
    /// [`Error::ModelChanged`].
    pub fn check_intact(&self) -> Result<()> {
        let mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        mappings.iter().filter_map(Weak::upgrade).try_for_each(|file| loader::check_mapping(&file))
    }

    /// A file's path in messages.
    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn read(&self, name: &str, limit_bytes: u64) -> Result<Cow<'static, [u8]>> {
        let missing = || Error::MissingFile { path: self.path(name) };
        if let Some(random) = &self.random
            && let Some(component) = Component::ALL.into_iter().find(|c| c.config_name() == name)
        {
            return Ok(Cow::Owned(random.config(component).into_bytes()));
        }
        match &self.folder {
            None => embedded::file(name).map(Cow::Borrowed).ok_or_else(missing),
            Some(folder) => {
                let path = folder.find(name)?.ok_or_else(missing)?;
                json::read_file(&path, limit_bytes).map(Cow::Owned)
            }
        }
    }
}

/// Refuses weights that another program quantized in a way that is not read: their tensors mean something else than
/// their names say. MLX notes its own there too, which tensors' sizes say again.
fn check_plain(component: Component, config: &serde_json::Value) -> Result<()> {
    const FIELD: &str = "quantization_config";
    let is_mlx = |value: &serde_json::Value| {
        let affine = value.get("mode").is_none_or(|mode| mode == "affine");
        affine && value.get("quant_method").is_none() && value.get("bits").is_some()
    };
    match config.get(FIELD).filter(|value| !value.is_null()) {
        None => Ok(()),
        Some(value) if is_mlx(value) => Ok(()),
        Some(value) => Err(Error::ModelConfig {
            component: component.folder(),
            field: FIELD.into(),
            got: json::shown(&value.to_string()),
            allowed: "nothing, or what MLX writes there".into(),
        }),
    }
}
