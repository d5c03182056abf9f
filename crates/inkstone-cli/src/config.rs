//! Settings that are not flags: the environment, ./inkstone.toml and the user's config.toml, in this order.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use inkstone::request::MIN_SIDE_PX;
use serde::Deserialize;
use toml::{Table, Value};

use crate::args::{
    Bytes, Color, Common, Device, Dtype, Format, MetadataPlace, Offload, Quantize, Seed, Threads, Tiling,
};
use crate::failure::{Failure, Result};
use crate::terminal::Terminal;

#[cfg(test)]
mod tests;

/// The file looked for where the program is started.
const PROJECT_FILE: &str = "inkstone.toml";
/// Config files are a page; this one is not.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a config file or the environment may say, under the names of the flags.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) model: Option<PathBuf>,
    pub(crate) negative_prompt: Option<String>,
    pub(crate) width: Option<usize>,
    pub(crate) height: Option<usize>,
    pub(crate) steps: Option<usize>,
    pub(crate) seed: Option<Seed>,
    pub(crate) true_cfg_scale: Option<f32>,
    pub(crate) output: Option<String>,
    pub(crate) overwrite: Option<bool>,
    pub(crate) format: Option<Format>,
    pub(crate) metadata: Option<MetadataPlace>,
    pub(crate) device: Option<Device>,
    pub(crate) threads: Option<Threads>,
    pub(crate) dtype: Option<Dtype>,
    pub(crate) vae_tiling: Option<Tiling>,
    pub(crate) quantize: Option<Quantize>,
    pub(crate) max_memory: Option<Bytes>,
    pub(crate) offload: Option<Offload>,
    pub(crate) no_progress: Option<bool>,
    pub(crate) quiet: Option<bool>,
    pub(crate) verbose: Option<bool>,
    pub(crate) color: Option<Color>,
    pub(crate) offline: Option<bool>,
}

/// The names of [`Settings`], in its order.
pub(crate) const KEYS: &[&str] = &[
    "model",
    "negative-prompt",
    "width",
    "height",
    "steps",
    "seed",
    "true-cfg-scale",
    "output",
    "overwrite",
    "format",
    "metadata",
    "device",
    "threads",
    "dtype",
    "vae-tiling",
    "quantize",
    "max-memory",
    "offload",
    "no-progress",
    "quiet",
    "verbose",
    "color",
    "offline",
];

/// Where a setting was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Environment(String),
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(variable) => f.write_str(variable),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// All settings, each from the first place that has it.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) settings: Settings,
    pub(crate) values: BTreeMap<String, (Value, Origin)>,
}

impl Config {
    /// Reads the environment and the files that the flags leave.
    pub(crate) fn load(common: &Common, terminal: &Terminal) -> Result<Self> {
        let mut values = BTreeMap::new();
        for key in KEYS {
            let variable = variable(key);
            if let Some(text) = env::var_os(&variable).filter(|v| !v.is_empty()) {
                let value = from_environment(key, &variable, text)?;
                values.insert((*key).to_owned(), (value, Origin::Environment(variable)));
            }
        }
        for path in files(common) {
            let Some(table) = read(&path, common.config.is_some(), terminal)? else { continue };
            for (key, value) in table {
                values.entry(key).or_insert_with(|| (value, Origin::File(path.clone())));
            }
        }
        let table: Table = values.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        // Each value was read on its own, so all of them together can be.
        let settings =
            Settings::deserialize(table).map_err(|e| Failure::config("config", e.message(), ""))?;
        for (key, (value, origin)) in &values {
            check_range(key, &settings).map_err(|refusal| {
                let cure = format!("a flag wins over it: --{key}");
                Failure::config(&origin.to_string(), format!("{key} = {value}: {refusal}"), cure)
            })?;
        }
        Ok(Self { settings, values })
    }

    /// Flags of every command, with the settings behind them.
    pub(crate) fn complete(&self, common: &Common) -> Common {
        let set = &self.settings;
        Common {
            quiet: common.quiet || (set.quiet == Some(true) && !common.verbose),
            verbose: common.verbose || (set.verbose == Some(true) && !common.quiet),
            no_progress: common.no_progress || set.no_progress == Some(true),
            offline: common.offline || set.offline == Some(true),
            color: common.color.or(set.color),
            ..common.clone()
        }
    }
}

/// Whether a setting is one that a picture can be drawn with.
fn check_range(key: &str, settings: &Settings) -> std::result::Result<(), inkstone::Error> {
    let mut request = inkstone::Request {
        prompt: String::new(),
        negative_prompt: None,
        width_px: MIN_SIDE_PX,
        height_px: MIN_SIDE_PX,
        steps: 1,
        seed: 0,
        true_cfg_scale: 1.0,
        init: None,
    };
    match key {
        "negative-prompt" => request.negative_prompt.clone_from(&settings.negative_prompt),
        "width" => request.width_px = settings.width.unwrap_or(MIN_SIDE_PX),
        "height" => request.height_px = settings.height.unwrap_or(MIN_SIDE_PX),
        "steps" => request.steps = settings.steps.unwrap_or(1),
        "true-cfg-scale" => request.true_cfg_scale = settings.true_cfg_scale.unwrap_or(1.0),
        _ => {}
    }
    request.validate()
}

/// The environment variable of a setting.
pub(crate) fn variable(key: &str) -> String {
    format!("INKSTONE_{}", key.replace('-', "_").to_ascii_uppercase())
}

/// The files to read, the one that wins first.
pub(crate) fn files(common: &Common) -> Vec<PathBuf> {
    match &common.config {
        _ if common.no_config => Vec::new(),
        Some(path) => vec![path.clone()],
        None => [Some(PathBuf::from(PROJECT_FILE)), user_file()].into_iter().flatten().collect(),
    }
}

/// The user's own file; without a home folder there is none.
fn user_file() -> Option<PathBuf> {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = if cfg!(windows) {
        absolute("APPDATA")
    } else {
        absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))
    };
    Some(folder?.join("inkstone").join("config.toml"))
}

/// A setting from the environment: text, or a number or truth value where the setting is one.
fn from_environment(key: &str, variable: &str, text: OsString) -> Result<Value> {
    let text =
        text.into_string().map_err(|_| Failure::config(variable, "it is not UTF-8", "set it to text"))?;
    let readings = [
        Some(Value::String(text.clone())),
        text.parse().ok().map(Value::Integer),
        text.parse().ok().map(Value::Float),
        text.parse().ok().map(Value::Boolean),
    ];
    let mut refusal = None;
    for value in readings.into_iter().flatten() {
        match Settings::deserialize(Table::from_iter([(key.to_owned(), value.clone())])) {
            Ok(_) => return Ok(value),
            Err(error) => refusal = Some(error.message().to_owned()),
        }
    }
    let why = refusal.map_or_else(String::new, |r| format!("{text:?}: {r}"));
    Err(Failure::config(variable, why, format!("unset {variable}, or give what --{key} takes")))
}

/// A config file's settings; `None` if it is not there and nobody named it.
fn read(path: &Path, named: bool, terminal: &Terminal) -> Result<Option<Table>> {
    let mut bytes = Vec::new();
    let result = fs::File::open(path).and_then(|file| {
        warn_if_anybody_writes(path, &file, terminal);
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)
    });
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => return Ok(None),
        Err(error) => return Err(Failure::read(path, &error)),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
            let why = format!("it is larger than {MAX_FILE_BYTES} bytes");
            return Err(Failure::config(
                &path.display().to_string(),
                why,
                "a config file has a line a setting",
            ));
        }
        Ok(_) => {}
    }
    parse(&path.display().to_string(), &bytes).map(Some)
}

/// Reads a config file's text. `place` is its name in messages.
fn parse(place: &str, bytes: &[u8]) -> Result<Table> {
    // Windows editors begin files with a byte order mark.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
            let place = position(place, &before, before.len());
            return Err(Failure::config(&place, "it is not UTF-8", "save the file as UTF-8"));
        }
    };
    let checked = toml::from_str::<Settings>(text).and_then(|_| toml::from_str::<Table>(text));
    checked.map_err(|error| {
        let place = error.span().map_or_else(|| place.to_owned(), |span| position(place, text, span.start));
        Failure::config(&place, error.message(), "inkstone config show lists the settings")
    })
}

/// `file:line:column` of a byte of a text, counted from 1 in characters.
fn position(place: &str, text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{place}:{line}:{column}")
}

/// Anybody who can write the file decides which model runs and where files go.
#[cfg(unix)]
fn warn_if_anybody_writes(path: &Path, file: &fs::File, terminal: &Terminal) {
    use std::os::unix::fs::PermissionsExt;
    const OTHERS_WRITE: u32 = 0o002;
    let writable = file.metadata().is_ok_and(|m| m.len() > 0 && m.permissions().mode() & OTHERS_WRITE != 0);
    if writable {
        let path = path.display();
        terminal.warn(&format!("everybody on this machine can change {path}; chmod o-w {path} ends that"));
    }
}

#[cfg(not(unix))]
fn warn_if_anybody_writes(_path: &Path, _file: &fs::File, _terminal: &Terminal) {}
