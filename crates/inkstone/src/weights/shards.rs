//! Finds the files that hold a component's weights: one, or the shards that an index lists.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::folder::Folder;
use super::safetensors::SafeTensors;
use super::{Component, identify, json};
use crate::error::ShardProblem;
use crate::{Error, Result};

/// Largest index; Qwen-Image's has 0.2 MB.
const INDEX_LIMIT_BYTES: u64 = 16_000_000;
/// Most tensors of a component.
const TENSORS_LIMIT: usize = 100_000;
/// Most files of a component; Qwen-Image's transformer has 9.
const SHARDS_LIMIT: usize = 1_000;
/// Names that an error lists.
const NAMES_SHOWN: usize = 5;
/// Endings of files that may hold a pickle.
const PICKLE_ENDINGS: [&str; 4] = [".bin", ".ckpt", ".pt", ".pth"];

/// The files of a component's weights.
#[derive(Debug)]
pub(super) struct Shards {
    /// Where they are, links followed.
    pub(super) files: Vec<PathBuf>,
    index: Option<Index>,
}

/// What an index says.
#[derive(Debug, Default)]
struct Index {
    path: PathBuf,
    /// Names of files, in the order in which they first occur.
    names: Vec<String>,
    /// The number of the file that holds each tensor.
    file_of: BTreeMap<String, usize>,
    problem: Option<ShardProblem>,
}

impl Shards {
    /// Finds a component's files in its folder of a model.
    pub(super) fn find(folder: &Folder, component: Component) -> Result<Self> {
        Self::find_in(folder, component.folder(), component)
    }

    /// Finds a component's files in the folder `dir` of a folder.
    pub(super) fn find_in(folder: &Folder, dir: &str, component: Component) -> Result<Self> {
        let stem = component.weights_stem();
        // mflux gives every component the name that transformers has for a text encoder.
        for stem in [stem, Component::TextEncoder.weights_stem()] {
            let index = format!("{dir}/{stem}.safetensors.index.json");
            if let Some(path) = folder.find(&index)? {
                return Self::from_index(folder, dir, &path);
            }
        }
        let usual = format!("{dir}/{stem}.safetensors");
        let name = match folder.find(&usual)? {
            Some(path) => return Ok(Self::one(path)),
            None => only(folder, dir, ".safetensors").or_else(|| only(folder, dir, ".gguf")),
        };
        let found = name.map_or(Ok(None), |name| folder.find(&format!("{dir}/{name}")))?;
        found.map(Self::one).ok_or_else(|| without_safetensors(folder, dir, &usual))
    }

    /// A single file.
    pub(super) fn one(path: PathBuf) -> Self {
        Self { files: vec![path], index: None }
    }

    /// The index and the names of the files that it lists; `None` of a single file.
    pub(super) fn listed(&self) -> Option<(&Path, &[String])> {
        self.index.as_ref().map(|index| (index.path.as_path(), index.names.as_slice()))
    }

    fn from_index(folder: &Folder, dir: &str, path: &Path) -> Result<Self> {
        let bytes = json::read_file(path, INDEX_LIMIT_BYTES)?;
        let mut index = json::parse_with(path, &bytes, IndexSeed)?;
        path.clone_into(&mut index.path);
        if let Some(problem) = index.problem {
            return Err(Error::Shards { path: index.path, problem });
        }
        let mut files = Vec::new();
        let mut missing = Vec::new();
        for name in &index.names {
            match folder.find(&format!("{dir}/{name}"))? {
                Some(file) => files.push(file),
                None => missing.push(name.clone()),
            }
        }
        if !missing.is_empty() {
            let problem = ShardProblem::MissingShards { count: missing.len(), first: first(missing) };
            return Err(Error::Shards { path: index.path, problem });
        }
        Ok(Self { files, index: Some(index) })
    }

    /// The tensors of all files in one, each in the file that the index names.
    pub(super) fn merge(self, files: Vec<SafeTensors>) -> Result<SafeTensors> {
        let wrong = |path: PathBuf, problem| Err(Error::Shards { path, problem });
        if let Some(index) = &self.index {
            let holds = |file: &SafeTensors, name: &str| {
                file.tensors.contains_key(name) || file.foreign.contains_key(name)
            };
            let misplaced: Vec<String> = index
                .file_of
                .iter()
                .filter(|(name, file)| !holds(&files[**file], name))
                .map(|(name, file)| format!("{name} (not in {})", index.names[*file]))
                .collect();
            if !misplaced.is_empty() {
                let problem = ShardProblem::Misplaced { count: misplaced.len(), first: first(misplaced) };
                return wrong(index.path.clone(), problem);
            }
        }
        let mut all = SafeTensors::default();
        for file in files {
            all.metadata.extend(file.metadata);
            all.quantized.extend(file.quantized);
            all.shapes.extend(file.shapes);
            let twice = file.tensors.keys().chain(file.foreign.keys());
            let mut twice =
                twice.filter(|name| all.tensors.contains_key(*name) || all.foreign.contains_key(*name));
            if let (Some(name), Some(index)) = (twice.next(), &self.index) {
                return wrong(index.path.clone(), ShardProblem::Duplicate { name: name.clone() });
            }
            all.tensors.extend(file.tensors);
            all.foreign.extend(file.foreign);
        }
        Ok(all)
    }
}

fn first(mut names: Vec<String>) -> Vec<String> {
    names.truncate(NAMES_SHOWN);
    names
}

/// The only file of a folder with an ending, in whatever case it is written.
fn only(folder: &Folder, dir: &str, ending: &str) -> Option<String> {
    let names = folder.list(dir).into_iter();
    let mut names = names.filter(|name| name.to_ascii_lowercase().ends_with(ending));
    names.next().filter(|_| names.next().is_none())
}

/// The error for a component without safetensors files: a pickle is called one.
fn without_safetensors(folder: &Folder, dir: &str, usual: &str) -> Error {
    for name in folder.list(dir) {
        if PICKLE_ENDINGS.iter().any(|ending| name.to_ascii_lowercase().ends_with(ending)) {
            let found = folder.find(&format!("{dir}/{name}"));
            let checked = found.and_then(|path| path.map_or(Ok(()), |path| identify::check_format(&path)));
            if let Err(error) = checked {
                return error;
            }
        }
    }
    Error::MissingFile { path: folder.root().join(usual) }
}

/// Whether a shard lies beside the index and is a safetensors file by its name.
fn is_shard_name(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors").unwrap_or_default();
    !stem.is_empty()
        && stem.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !stem.starts_with('.')
}

struct IndexSeed;

impl<'de> DeserializeSeed<'de> for IndexSeed {
    type Value = Index;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Index, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for IndexSeed {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a weight_map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
        let mut index = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                map.next_value::<IgnoredAny>()?;
            } else if index.is_some() {
                return Err(json::twice(&key));
            } else {
                index = Some(map.next_value_seed(WeightMapSeed)?);
            }
        }
        index.ok_or_else(|| A::Error::missing_field("weight_map"))
    }
}

struct WeightMapSeed;

impl<'de> DeserializeSeed<'de> for WeightMapSeed {
    type Value = Index;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Index, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMapSeed {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a file for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
        let mut index = Index::default();
        let mut numbers = BTreeMap::new();
        while let Some((tensor, file)) = map.next_entry::<String, String>()? {
            if index.problem.is_some() {
                continue;
            }
            if !is_shard_name(&file) {
                index.problem = Some(ShardProblem::BadName { name: json::shown(&file) });
                continue;
            }
            let next = numbers.len();
            let number = *numbers.entry(file.clone()).or_insert(next);
            if number == next {
                index.names.push(file);
            }
            if index.file_of.contains_key(&tensor) {
                return Err(json::twice(&tensor));
            }
            index.file_of.insert(tensor, number);
            let over = |what, limit| Some(ShardProblem::TooMany { what, limit });
            if index.names.len() > SHARDS_LIMIT {
                index.problem = over("files", SHARDS_LIMIT);
            } else if index.file_of.len() > TENSORS_LIMIT {
                index.problem = over("tensors", TENSORS_LIMIT);
            }
        }
        Ok(index)
    }
}
