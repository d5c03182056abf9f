//! Finds the files that hold a component's weights: one, the shards that an index lists, or several that belong together
//! by their names.

mod siblings;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::folder::Folder;
use super::safetensors::SafeTensors;
use super::{Component, gguf, identify, json};
use crate::error::{GgufProblem, ShardProblem};
use crate::{Error, Result};
use siblings::Sibling;
pub(crate) use siblings::is_index_name;

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
    /// The names of several files that no index lists.
    names: Vec<String>,
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
        if let Some(path) = folder.find(&usual)? {
            return Ok(Self::one(path));
        }
        // A variant that diffusers saved, such as fp16, where there is nothing else.
        let is_index = |name: &str| is_index_name(name) && name.starts_with(stem);
        if let Some(path) = only(folder, dir, is_index).map_or(Ok(None), |name| folder.find(&name))? {
            return Self::from_index(folder, dir, &path);
        }
        for ending in [".safetensors", ".gguf"] {
            if let Some(shards) = Self::with_ending(folder, dir, ending)? {
                return Ok(shards);
            }
        }
        Err(without_safetensors(folder, dir, &usual))
    }

    /// The files of what was named for a component: a file, one of several that belong together, or their index.
    pub(super) fn named(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (is_index, sibling) = (is_index_name(name), Sibling::of(name));
        if !(is_index || sibling.is_some()) || !path.is_file() {
            return Ok(Self::one(path.to_owned()));
        }
        let beside = path.parent().filter(|beside| !beside.as_os_str().is_empty());
        let folder = Folder::open(beside.unwrap_or(Path::new(".")))?;
        match sibling {
            Some(sibling) => Self::siblings(&folder, ".", sibling, Some(path)),
            None => Self::from_index(&folder, ".", path),
        }
    }

    /// The only file of a folder with an ending, in whatever case it is written, or the only ones that belong together.
    fn with_ending(folder: &Folder, dir: &str, ending: &str) -> Result<Option<Self>> {
        let mut names = folder.list(dir);
        names.retain(|name| name.to_ascii_lowercase().ends_with(ending));
        let Some(first) = names.first() else { return Ok(None) };
        match Sibling::of(first) {
            Some(sibling) if names.iter().all(|name| sibling.is_beside(name)) => {
                Self::siblings(folder, dir, sibling, None).map(Some)
            }
            _ if names.len() == 1 => Ok(folder.find(&format!("{dir}/{first}"))?.map(Self::one)),
            _ => Ok(None),
        }
    }

    /// Several files that belong together: as their index lists them if there is one, else by their names. `given` is
    /// where the one is that was named.
    fn siblings(folder: &Folder, dir: &str, sibling: Sibling<'_>, given: Option<&Path>) -> Result<Self> {
        let own = sibling.names().nth(sibling.number - 1).unwrap_or_default();
        let path = given.map_or_else(|| folder.root().join(dir).join(&own), Path::to_owned);
        if sibling.count > SHARDS_LIMIT {
            let problem = ShardProblem::TooMany { what: "files", limit: SHARDS_LIMIT };
            return Err(Error::Shards { path, problem });
        }
        for index in sibling.indexes() {
            let Some(index) = folder.find(&format!("{dir}/{index}"))? else { continue };
            let listed = Self::from_index(folder, dir, &index)?;
            if listed.index.as_ref().is_some_and(|index| index.names.contains(&own)) {
                return Ok(listed);
            }
        }
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        let names: Vec<String> = sibling.names().collect();
        for name in &names {
            match given.filter(|_| *name == own).map(Path::to_owned) {
                Some(given) => files.push(given),
                None => match folder.find(&format!("{dir}/{name}"))? {
                    Some(file) => files.push(file),
                    None => missing.push(name.clone()),
                },
            }
        }
        if missing.is_empty() {
            return Ok(Self { files, names, index: None });
        }
        let (of, count) = (sibling.count, missing.len());
        Err(Error::Shards { path, problem: ShardProblem::Alone { of, count, first: first(missing) } })
    }

    /// A single file.
    pub(super) fn one(path: PathBuf) -> Self {
        Self { files: vec![path], names: Vec::new(), index: None }
    }

    /// The index, if there is one, and the names of the files; `None` of a single file.
    pub(super) fn listed(&self) -> Option<(Option<&Path>, &[String])> {
        match &self.index {
            Some(index) => Some((Some(&index.path), &index.names)),
            None if self.names.is_empty() => None,
            None => Some((None, &self.names)),
        }
    }

    /// Checks that GGUF files which were split are all here, in their order, as far as their heads tell.
    ///
    /// # Errors
    /// [`Error::Gguf`].
    pub(super) fn check_splits(&self) -> Result<()> {
        for (place, path) in self.files.iter().enumerate().filter(|(_, path)| identify::is_gguf(path)) {
            self.check_split(place, gguf::with_head(path, |head| Ok(head.split()))?)?;
        }
        Ok(())
    }

    /// The same of the file at a place, whose head says that it is such a part.
    fn check_split(&self, place: usize, split: Option<gguf::Split>) -> Result<()> {
        let want = gguf::Split { place: place as u64, count: self.files.len() as u64 };
        match split.filter(|split| *split != want) {
            None => Ok(()),
            Some(gguf::Split { place: number, count }) => {
                let problem = Box::new(GgufProblem::Split { number: number.saturating_add(1), count });
                Err(Error::Gguf { path: self.files[place].clone(), problem })
            }
        }
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
        Ok(Self { files, names: Vec::new(), index: Some(index) })
    }

    /// The tensors of all files in one, each in the file that the index names, if there is one.
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
        for (place, file) in files.into_iter().enumerate() {
            self.check_split(place, file.split)?;
            all.metadata.extend(file.metadata);
            let has = |file: &SafeTensors, name: &String| {
                let is_stored = file.tensors.contains_key(name) || file.quantized.contains_key(name);
                is_stored || file.foreign.contains_key(name)
            };
            let names = file.tensors.keys().chain(file.quantized.keys()).chain(file.foreign.keys());
            if let Some(name) = names.into_iter().find(|name| has(&all, name)) {
                let path = self.index.map_or_else(|| self.files[place].clone(), |index| index.path);
                return wrong(path, ShardProblem::Duplicate { name: name.clone() });
            }
            all.quantized.extend(file.quantized);
            all.shapes.extend(file.shapes);
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

/// The only file of a folder that is called so, with the folder's own name before it.
fn only(folder: &Folder, dir: &str, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
    let mut names = folder.list(dir).into_iter().filter(|name| is_wanted(name));
    names.next().filter(|_| names.next().is_none()).map(|name| format!("{dir}/{name}"))
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
