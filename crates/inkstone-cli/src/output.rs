//! Where pictures go: names from a template, and files that are whole or not there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use inkstone::Request;
use tempfile::NamedTempFile;

use crate::failure::{Failure, Result, folder_of};

#[cfg(test)]
mod tests;

/// The name of a file unless its user gives one.
const DEFAULT_NAME: &str = "inkstone-{seed}.png";
/// Endings of pictures that this version does not write.
const OTHER_FORMATS: &[&str] =
    &["jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "avif", "jxl", "heic", "ppm"];
/// `picture-2.png` and so on up to this one.
const MAX_NUMBER: usize = 9999;

/// Whether a file that exists may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    Number,
}

/// What tells the pictures of one command apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// There is one.
    Alone,
    /// No two have the same seed.
    Seeds,
    /// Only their numbers.
    Numbers,
}

impl Apart {
    pub(crate) fn of(requests: &[Request]) -> Self {
        let seeds: HashSet<u64> = requests.iter().map(|request| request.seed).collect();
        match requests.len() {
            0 | 1 => Self::Alone,
            pictures if pictures == seeds.len() => Self::Seeds,
            _ => Self::Numbers,
        }
    }
}

/// What a template's fields stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) seed: u64,
    /// Number of the picture, from 1.
    pub(crate) n: usize,
    pub(crate) model: &'a str,
}

/// A path with `{seed}`, `{n}`, `{model}` and `{date}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(PathBuf);

impl Template {
    /// A template for pictures, which never share a name.
    pub(crate) fn new(given: Option<&OsStr>, apart: Apart) -> Result<Self> {
        let given = Path::new(given.unwrap_or(OsStr::new(DEFAULT_NAME)));
        let ends_open = given.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path = if ends_open || given.is_dir() { given.join(DEFAULT_NAME) } else { given.to_owned() };
        let refuse =
            |why: String| Err(Failure::output_place(given, why, "inkstone generate --help shows --output"));
        if given.as_os_str().is_empty() || given == Path::new("-") {
            return refuse(
                "a file's name is needed; standard output carries the names of the pictures".into(),
            );
        }
        let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        if OTHER_FORMATS.contains(&ending.as_str()) {
            return refuse(format!("this version writes PNG, not {ending}"));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        if ending == "png" {
            name = path.file_stem().unwrap_or_default().to_owned();
        }
        let text = path.to_str().unwrap_or_default();
        let told_apart = match apart {
            Apart::Alone => true,
            Apart::Seeds => text.contains("{seed}") || text.contains("{n}"),
            Apart::Numbers => text.contains("{n}"),
        };
        if !told_apart {
            name.push("-{n}");
        }
        name.push(".png");
        let template = Self(path.with_file_name(name));
        // Other values have the same form: what goes wrong with any goes wrong with these.
        let sample = Fields { seed: 0, n: 1, model: "model" };
        match template.expand(sample) {
            Ok(_) => Ok(template),
            Err(why) => refuse(why),
        }
    }

    /// The path of one picture.
    pub(crate) fn path(&self, fields: Fields<'_>) -> Result<PathBuf> {
        self.expand(fields).map_err(|why| Failure::output_place(&self.0, why, ""))
    }

    fn expand(&self, fields: Fields<'_>) -> std::result::Result<PathBuf, String> {
        // A path that is not text has no fields.
        let Some(text) = self.0.to_str() else { return Ok(self.0.clone()) };
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(format!("its name has the control character {control:?}"));
        }
        let mut pieces = text.split('{');
        let mut path = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (field, rest) = piece.split_once('}').ok_or("a { lacks its }")?;
            match field {
                "seed" => path.push_str(&fields.seed.to_string()),
                "n" => path.push_str(&fields.n.to_string()),
                "model" => path.push_str(&file_safe(fields.model)),
                "date" => path.push_str(&date(SystemTime::now())),
                _ => {
                    return Err(format!(
                        "{{{field}}} is no field; there are {{seed}}, {{n}}, {{model}}, {{date}}"
                    ));
                }
            }
            if rest.split(['/', '\\']).skip(1).any(|part| part == "..") {
                return Err("it climbs up behind a field".into());
            }
            path.push_str(rest);
        }
        Ok(path.into())
    }
}

/// A name without anything that a path means.
fn file_safe(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(safe).collect();
    name.trim_start_matches('.').to_owned()
}

/// The day in UTC, `2026-11-21`.
fn date(now: SystemTime) -> String {
    const SECONDS_A_DAY: u64 = 86_400;
    let mut days = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / SECONDS_A_DAY;
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days + 1)
}

/// Refuses a place where the picture could not be written, before it is drawn.
pub(crate) fn check_place(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    let why = match fs::metadata(&folder) {
        Err(error) => format!("the folder {}: {error}", folder.display()),
        Ok(found) if !found.is_dir() => format!("{} is a file, not a folder", folder.display()),
        Ok(_) => match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => "it is a folder".into(),
            Err(error) if error.kind() != io::ErrorKind::NotFound => error.to_string(),
            _ => match temporary(&folder) {
                Ok(_) => return Ok(()),
                Err(error) => return Err(Failure::write(path, &error)),
            },
        },
    };
    Err(Failure::output_place(path, why, "make the folder, or choose another place with --output"))
}

/// Writes a picture, and what belongs beside it, under a name that is free or may be replaced; gives the name.
///
/// Each file is written under a name of its own in the same folder, forced to the disk and renamed: whatever happens,
/// there is the old file or the new one.
pub(crate) fn save(path: &Path, bytes: &[u8], sidecar: Option<&[u8]>, existing: Existing) -> Result<PathBuf> {
    let failed = |error: io::Error| Failure::write(path, &error);
    let folder = folder_of(path);
    let mut file = temporary(&folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    let saved = match existing {
        Existing::Replace => file.persist(path).map(|_| path.to_owned()).map_err(|e| failed(e.error))?,
        Existing::Number => publish(file, path, sidecar.is_some())?,
    };
    if let Some(sidecar) = sidecar {
        let beside = saved.with_extension("json");
        let mut file = temporary(&folder).map_err(failed)?;
        file.write_all(sidecar).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist(&beside).map_err(|e| Failure::write(&beside, &e.error))?;
    }
    // The names themselves reach the disk with the folder; not every file system can be asked to.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(saved)
}

/// Gives a file the first free name: `a.png`, `a-2.png`, `a-3.png`.
fn publish(mut file: NamedTempFile, path: &Path, has_sidecar: bool) -> Result<PathBuf> {
    for number in 1..=MAX_NUMBER {
        let name = numbered(path, number);
        if has_sidecar && name.with_extension("json").exists() {
            continue;
        }
        match file.persist_noclobber(&name) {
            Ok(_) => return Ok(name),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => file = error.file,
            Err(error) => return Err(Failure::write(&name, &error.error)),
        }
    }
    let why = format!("{MAX_NUMBER} pictures of this name are there");
    Err(Failure::output_place(path, why, "choose another name with --output"))
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}.png"));
    path.with_file_name(name)
}

/// A file that removes itself unless it is renamed, readable to those that the user's umask lets in.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".inkstone-").suffix(".part");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}
