//! A whole model: its configs as text, its tokenizer, and a loader for each component.

mod tokenizer;
mod weights;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use inkstone_tensor::{DType, Device, Ledger, MappedFile};

use super::folder::Folder;
use super::{
    Component, Loader, ModelSource, Parts, RandomModel, Residence, SafeTensors, Strictness, comfy, derive,
    embedded, gguf, identify, json, loader, names, scan,
};
use crate::error::JsonProblem;
use crate::{Error, Result};

pub(crate) use weights::WeightFile;

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
/// A part's config's name in its folder.
const CONFIG: &str = "config.json";

/// A model whose configs were read and checked; weights are opened by [`ModelFiles::loader`].
#[derive(Debug)]
pub struct ModelFiles {
    name: String,
    home: Home,
    parts: Parts,
    options: ReadOptions,
    /// Texts of the JSON files by relative name.
    texts: BTreeMap<&'static str, String>,
    /// Bytes of the tokenizer's tables in the text encoder's GGUF file; 0 where none was looked at.
    tables_bytes: usize,
    /// Mapped weights that are still in use.
    mappings: Mutex<Vec<Weak<MappedFile>>>,
}

/// Where what no part names comes from.
#[derive(Debug)]
enum Home {
    Folder(Folder),
    /// Nowhere: the parts are the whole model.
    Files,
    Embedded,
    Random(RandomModel),
}

impl ModelFiles {
    /// Opens a model: finds out whether it is one that this engine draws with, reads and checks its configs, or derives
    /// them from the shapes of the tensors where there are none.
    ///
    /// # Errors
    /// What is there instead of Qwen-Image, a file or a part that is missing, a config out of range.
    pub fn open(source: &ModelSource, options: ReadOptions) -> Result<Self> {
        let none = Parts::default();
        let (home, parts) = match source {
            ModelSource::Embedded => (Home::Embedded, none),
            ModelSource::Random(model) => (Home::Random(*model), none),
            ModelSource::Files(parts) => (Home::Files, parts.clone()),
            ModelSource::Folder(path) => Self::home(path, &none)?,
            ModelSource::Pieces { folder, parts } => Self::home(folder, parts)?,
        };
        let mut names: Vec<String> = match &home {
            Home::Folder(folder) => vec![folder.model_name()],
            Home::Files => Vec::new(),
            Home::Embedded => vec![embedded::NAME.to_owned()],
            Home::Random(_) => vec!["random".to_owned()],
        };
        // Other weights draw other pictures: their files' names are part of the model's.
        names.extend(parts.names());
        let name = names.join("+");
        let (texts, tables_bytes) = (BTreeMap::new(), 0);
        let mut files = Self { name, home, parts, options, texts, tables_bytes, mappings: Mutex::default() };
        files.read_configs(source)?;
        Ok(files)
    }

    /// What is at a path: a folder, or a file with weights.
    fn home(path: &Path, parts: &Parts) -> Result<(Home, Parts)> {
        if path.is_file() {
            return Ok((Home::Files, parts.with_file(path)?));
        }
        let folder = Folder::open(path)?;
        parts.check_kinds()?;
        Ok((Home::Folder(folder), parts.clone()))
    }

    fn read_configs(&mut self, source: &ModelSource) -> Result<()> {
        let root = match source {
            ModelSource::Folder(root) | ModelSource::Pieces { folder: root, .. } => root,
            _ => Path::new(embedded::NAME),
        };
        let index = match (self.read(MODEL_INDEX, json::CONFIG_LIMIT_BYTES), &self.home) {
            (Err(Error::MissingFile { .. }), Home::Files) => {
                self.check_named()?;
                self.parts.check_whole()?;
                return self.derive_configs();
            }
            (Err(Error::MissingFile { .. }), Home::Folder(folder)) => {
                // mflux saves weights and tokenizer alone.
                let has = |part: Component| !folder.list(part.folder()).is_empty();
                return match Component::ALL.into_iter().all(|part| has(part) || self.parts.of(part).is_some())
                {
                    true => self.derive_configs(),
                    false => Err(identify::folder_without_index(root, folder)),
                };
            }
            (index, _) => index?,
        };
        let path = self.path(MODEL_INDEX);
        identify::check_index(root, &json::parse(&path, &index)?)?;
        self.keep(MODEL_INDEX, &index)?;
        for component in Component::ALL {
            let name = component.config_name();
            match self.read(name, json::CONFIG_LIMIT_BYTES) {
                // A folder need not have what is named on its own.
                Err(Error::MissingFile { .. }) if self.parts.of(component).is_some() => {
                    self.derive_config(component)?;
                }
                bytes => self.keep_config(component, &self.path(name), &bytes?)?,
            }
        }
        let bytes = self.read(SCHEDULER, json::CONFIG_LIMIT_BYTES)?;
        json::parse(&self.path(SCHEDULER), &bytes)?;
        self.keep(SCHEDULER, &bytes)
    }

    /// The configs of a model without an index: those of its parts, and what is the same for all.
    fn derive_configs(&mut self) -> Result<()> {
        self.texts.extend(derive::frame());
        Component::ALL.into_iter().try_for_each(|component| self.derive_config(component))
    }

    /// The config of weights that may have none: from the part's own folder, or from the shapes of its tensors.
    fn derive_config(&mut self, component: Component) -> Result<()> {
        let name = component.config_name();
        let path = match self.parts.of(component) {
            Some(part) if part.is_dir() => Folder::open(part)?.find(CONFIG)?,
            Some(_) => None,
            None => self.find(name)?,
        };
        if let Some(path) = path {
            return self.keep_config(component, &path, &json::read_file(&path, json::CONFIG_LIMIT_BYTES)?);
        }
        let (mut tensors, mut noted) = (Vec::new(), derive::Noted::default());
        let Some(shards) = self.shards(component)? else { return Ok(()) };
        for (place, file) in shards.files.iter().enumerate() {
            if component == Component::TextEncoder && identify::is_gguf(file) {
                // A head with a tokenizer's tables takes milliseconds: one look for all that it says.
                let look = |head: &gguf::Header<'_>| {
                    let tables_bytes = super::tokenizer::tables::bytes(head);
                    Ok((gguf::shapes_of(head), derive::Noted::of(head), tables_bytes))
                };
                let (shapes, notes, tables_bytes) = gguf::with_head(file, look)?;
                // Of a file that was split the first part has them.
                if place == 0 {
                    (noted, self.tables_bytes) = (notes, tables_bytes);
                }
                tensors.extend(shapes);
            } else {
                tensors.extend(identify::shapes(file)?);
            }
        }
        let config = derive::config(component, &tensors, &noted);
        let config = config.map_err(|error| shards.check_splits().err().unwrap_or(error))?;
        self.texts.insert(name, config);
        Ok(())
    }

    fn keep_config(&mut self, component: Component, path: &Path, bytes: &[u8]) -> Result<()> {
        check_plain(component, &json::parse(path, bytes)?)?;
        self.keep(component.config_name(), bytes)
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
        if matches!(self.home, Home::Random(_)) {
            return Ok(Loader::random(component.name(), device, activations));
        }
        let (mut file, mappings) = self.tensors(component, device, self.options.residence)?;
        if self.options.scan == Scan::NotFinite {
            scan::check(component.name(), &file)?;
        }
        names::make_canonical(component, &mut file);
        Ok(Loader::new(component.name(), device, activations, file.tensors)
            .with_quantized(file.quantized)
            .with_shapes(file.shapes)
            .with_foreign(file.foreign)
            .with_order(file.order)
            .with_mappings(mappings)
            .with_strictness(self.options.strictness))
    }

    /// A component's tensors under the names that its network asks for.
    pub(crate) fn component(&self, component: Component, device: &Device) -> Result<SafeTensors> {
        let (mut file, _) = self.tensors(component, device, Residence::Mapped)?;
        names::make_canonical(component, &mut file);
        Ok(file)
    }

    fn folder(&self) -> Option<&Folder> {
        if let Home::Folder(folder) = &self.home { Some(folder) } else { None }
    }

    /// The names of what is in a folder of the folder, sorted.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.folder().map_or(Vec::new(), |folder| folder.list(name))
    }

    /// Where a file of the folder is, which links must not leave.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        self.folder().map_or(Ok(None), |folder| folder.find(name))
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
        let loader = if matches!(self.home, Home::Random(_)) {
            Loader::random(component.name(), device, activations)
        } else {
            let (mut file, _) = self.tensors(component, device, Residence::Mapped)?;
            names::make_canonical(component, &mut file);
            Loader::new(component.name(), device, activations, file.tensors)
                .with_quantized(file.quantized)
                .with_shapes(file.shapes)
                .with_foreign(file.foreign)
                .with_order(file.order)
        };
        loader.counted(ledger, self.options.residence)
    }

    fn tensors(
        &self,
        component: Component,
        device: &Device,
        residence: Residence,
    ) -> Result<(SafeTensors, Vec<Arc<MappedFile>>)> {
        let Some(shards) = self.shards(component)? else {
            let name = component.weights_name();
            let bytes =
                embedded::weights(&name)?.ok_or_else(|| Error::MissingFile { path: self.path(&name) })?;
            let file = match residence {
                Residence::Mapped => SafeTensors::from_static(&self.path(&name), bytes, device)?,
                Residence::Owned => SafeTensors::from_bytes(&self.path(&name), bytes, device)?,
            };
            return Ok((file, Vec::new()));
        };
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
        match &self.home {
            Home::Folder(folder) => {
                let path = folder.find(name)?.ok_or_else(missing)?;
                json::read_file(&path, limit_bytes).map(Cow::Owned)
            }
            Home::Files => Err(missing()),
            Home::Random(random) => {
                if let Some(component) = Component::ALL.into_iter().find(|c| c.config_name() == name) {
                    return Ok(Cow::Owned(random.config(component).into_bytes()));
                }
                embedded::file(name).map(Cow::Borrowed).ok_or_else(missing)
            }
            Home::Embedded => embedded::file(name).map(Cow::Borrowed).ok_or_else(missing),
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
