//! Values of flags. A refusal says what is allowed; the message around it names the flag and what was given.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use inkstone::pipeline::VaeTiling;
use inkstone::request::{MAX_COUNT, MAX_GUIDANCE, MAX_SIDE_PX, MAX_STEPS, MIN_SIDE_PX, SIDE_STEP_PX};
use serde::{Deserialize, Deserializer, de};

/// What a flag allows, in words: the error of every parser here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Allowed(pub(crate) String);

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Allowed {}

fn whole(text: &str, allowed: impl Into<String>) -> Result<usize, Allowed> {
    text.parse().map_err(|_| Allowed(allowed.into()))
}

// Ranges are the library's to check; these refuse what is not a number at all, with the same words.

pub(super) fn side(text: &str) -> Result<usize, Allowed> {
    whole(text, side_rule())
}

fn side_rule() -> String {
    format!("{MIN_SIDE_PX} to {MAX_SIDE_PX} px in multiples of {SIDE_STEP_PX}")
}

/// A side that the library does not look at before it is used.
pub(super) fn exact_side(text: &str) -> Result<usize, Allowed> {
    let is_side = |px: &usize| (MIN_SIDE_PX..=MAX_SIDE_PX).contains(px) && px.is_multiple_of(SIDE_STEP_PX);
    side(text).ok().filter(is_side).ok_or_else(|| Allowed(side_rule()))
}

pub(super) fn steps(text: &str) -> Result<usize, Allowed> {
    whole(text, format!("a whole number, 1 to {MAX_STEPS}"))
}

pub(super) fn count(text: &str) -> Result<usize, Allowed> {
    whole(text, format!("a whole number, 1 to {MAX_COUNT}"))
}

/// A whole number from 1 to a limit.
pub(super) fn up_to<const MOST: u16>(text: &str) -> Result<u16, Allowed> {
    let number = text.parse().ok().filter(|n| (1..=MOST).contains(n));
    number.ok_or_else(|| Allowed(format!("a whole number, 1 to {MOST}")))
}

/// A number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub(crate) struct Threads(pub(crate) usize);

/// More threads than any machine has cores.
const MAX_THREADS: usize = 1024;

impl TryFrom<usize> for Threads {
    type Error = Allowed;

    fn try_from(n: usize) -> Result<Self, Allowed> {
        let allowed = Allowed(format!("a whole number, 1 to {MAX_THREADS}"));
        if (1..=MAX_THREADS).contains(&n) { Ok(Self(n)) } else { Err(allowed) }
    }
}

impl FromStr for Threads {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        // What is no number is refused like a number out of range.
        text.parse().unwrap_or(0).try_into()
    }
}

/// An amount of memory: a number, then M, G or T for powers of 1024, as in `12G` or `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Bytes(pub(crate) u64);

impl TryFrom<String> for Bytes {
    type Error = Allowed;

    fn try_from(text: String) -> Result<Self, Allowed> {
        text.parse()
    }
}

impl FromStr for Bytes {
    type Err = Allowed;

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    fn from_str(text: &str) -> Result<Self, Allowed> {
        const MIB: f64 = 1_048_576.0;
        let allowed =
            || Allowed("a number with M, G or T behind it, such as 12G or 800M, at least 1M".into());
        let lower = text.trim().to_ascii_lowercase();
        let number = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &lower[number.len()..] {
            "m" | "mb" | "mib" => MIB,
            "g" | "gb" | "gib" => MIB * 1024.0,
            "t" | "tb" | "tib" => MIB * 1024.0 * 1024.0,
            _ => return Err(allowed()),
        };
        let plain = number.chars().all(|c| c.is_ascii_digit() || c == '.');
        let bytes = if plain { number.parse::<f64>().map_err(|_| allowed())? * factor } else { 0.0 };
        if (MIB..=1e18).contains(&bytes) { Ok(Self(bytes as u64)) } else { Err(allowed()) }
    }
}

pub(super) fn scale(text: &str) -> Result<f32, Allowed> {
    text.parse().map_err(|_| Allowed(format!("a number, 0 to {MAX_GUIDANCE}")))
}

/// Whether the VAE takes a picture in strips: `auto`, `off` or a number of lines, which a config file may write as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) struct Tiling(pub(crate) VaeTiling);

impl FromStr for Tiling {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        text.parse().map(Self).map_err(|error| match error {
            inkstone::Error::InvalidParam { allowed, .. } => Allowed(allowed),
            other => Allowed(other.to_string()),
        })
    }
}

impl TryFrom<Written> for Tiling {
    type Error = Allowed;

    fn try_from(written: Written) -> Result<Self, Allowed> {
        written.to_string().parse()
    }
}

/// A value that a config file writes as a number or as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(i64),
    Text(String),
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A seed as typed: any `u64`, or -1 for a random one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seed {
    Random,
    Fixed(u64),
}

impl FromStr for Seed {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        if text == "-1" {
            return Ok(Self::Random);
        }
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let seed = plain.then(|| text.parse().ok()).flatten();
        seed.map(Self::Fixed)
            .ok_or_else(|| Allowed(format!("a whole number, 0 to {}, or -1 for a random one", u64::MAX)))
    }
}

impl<'de> Deserialize<'de> for Seed {
    /// TOML's integers are `i64`; larger seeds are written as strings.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Written::deserialize(deserializer)?.to_string();
        text.parse()
            .map_err(|allowed: Allowed| de::Error::custom(format!("seed is {text}; allowed is {allowed}")))
    }
}

/// `PATH[=STRENGTH]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InitArg {
    pub(crate) path: PathBuf,
    pub(crate) strength: Option<f32>,
}

impl TryFrom<OsString> for InitArg {
    type Error = Allowed;

    fn try_from(text: OsString) -> Result<Self, Allowed> {
        let (path, strength) = path_and_number(text).ok_or_else(|| {
            Allowed("a file, or a file with = and a number behind it: PATH=STRENGTH, 0 to 1".into())
        })?;
        Ok(Self { path, strength })
    }
}

/// `PATH[=SCALE]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoraArg {
    pub(crate) path: PathBuf,
    pub(crate) scale: Option<f32>,
}

impl TryFrom<OsString> for LoraArg {
    type Error = Allowed;

    fn try_from(text: OsString) -> Result<Self, Allowed> {
        let (path, scale) = path_and_number(text).ok_or_else(|| {
            Allowed("a file, or a file with = and a number behind it: PATH=SCALE, -10 to 10".into())
        })?;
        Ok(Self { path, scale })
    }
}

/// What follows the last `=` is a number, or part of a file's name: of one that is there, or has an ending there.
fn path_and_number(text: OsString) -> Option<(PathBuf, Option<f32>)> {
    let whole = PathBuf::from(&text);
    let Some((path, number)) = split_last_equals(&text).filter(|_| !whole.exists()) else {
        return (!text.is_empty()).then_some((whole, None));
    };
    if let Some(number) = number.to_str().and_then(|number| number.parse().ok()) {
        return (!path.is_empty()).then(|| (path.into(), Some(number)));
    }
    let is_name = |ending: &OsStr| ending.to_string_lossy().starts_with(|c: char| c.is_ascii_alphabetic());
    PathBuf::from(number).extension().is_some_and(is_name).then_some((whole, None))
}

#[cfg(unix)]
fn split_last_equals(text: &OsStr) -> Option<(&OsStr, &OsStr)> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = text.as_bytes();
    let at = bytes.iter().rposition(|&b| b == b'=')?;
    Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

#[cfg(not(unix))]
fn split_last_equals(text: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let (path, strength) = text.to_str()?.rsplit_once('=')?;
    Some((OsStr::new(path), OsStr::new(strength)))
}
