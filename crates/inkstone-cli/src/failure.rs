//! What the program says when it cannot do what it was asked: what, why with the numbers, what to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use inkstone::Error;
use inkstone_tensor::regular::NotRegular;

mod arguments;
mod library;
mod nearest;

pub(crate) use library::{alternatives, more_memory};

/// Why the program ends before it is done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Three lines for its user.
    Told(Told),
    /// The reader of standard output has gone; nobody is left to tell.
    Closed,
    /// Nothing was asked for: this help says what could be.
    Help(String),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// An error as its user reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: &'static str,
    pub(crate) exit: u8,
    pub(crate) what: String,
    pub(crate) why: String,
    pub(crate) cure: String,
}

/// The codes of errors that only the command line knows; the library has its own.
mod codes {
    pub(super) const USAGE: &str = "INK-0250";
    pub(super) const CONFIG: &str = "INK-0251";
    pub(super) const OUTPUT_PLACE: &str = "INK-0252";
    pub(super) const NO_REQUEST: &str = "INK-0253";
    pub(super) const WRITE: &str = "INK-0450";
    pub(super) const OTHER_PIXELS: &str = "INK-0550";
}

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_DISK: u8 = 4;

/// Ends the program after an interruption, as shells expect.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Told(told) => ExitCode::from(told.exit),
            Self::Closed => ExitCode::SUCCESS,
            Self::Help(_) => ExitCode::from(EXIT_USAGE),
        }
    }

    fn told(
        code: &'static str,
        exit: u8,
        what: impl Into<String>,
        why: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::Told(Told { code, exit, what: what.into(), why: why.into(), cure: cure.into() })
    }

    /// The arguments are wrong.
    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::told(codes::USAGE, EXIT_USAGE, what, why, cure)
    }

    /// There is nothing to draw.
    pub(crate) fn no_prompt() -> Self {
        Self::usage("there is no prompt", "a picture needs a few words", "inkstone \"a red apple\"")
    }

    /// A config file or an environment variable is wrong.
    pub(crate) fn config(place: &str, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::told(codes::CONFIG, EXIT_USAGE, format!("{place} is wrong"), why, cure)
    }

    /// Nothing can be written where the output should go.
    pub(crate) fn output_place(path: &Path, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::told(codes::OUTPUT_PLACE, EXIT_USAGE, format!("cannot write to {}", path.display()), why, cure)
    }

    /// The system refuses to write.
    pub(crate) fn write(path: &Path, source: &std::io::Error) -> Self {
        let cure = "make room or choose another place with --output";
        Self::told(
            codes::WRITE,
            EXIT_DISK,
            format!("cannot write {}", path.display()),
            source.to_string(),
            cure,
        )
    }

    /// A file that was named as an argument cannot be read.
    pub(crate) fn read(path: &Path, source: &std::io::Error) -> Self {
        let what = format!("cannot read {}", path.display());
        let cure = match NotRegular::of(source) {
            Some(_) => "save it as a file and give that",
            None => "check the name and your right to read it",
        };
        Self::usage(what, source.to_string(), cure)
    }

    /// An error of the library about a file that was named as an argument.
    pub(crate) fn about(path: &Path, error: Error) -> Self {
        match Self::from(error) {
            Self::Told(told) => {
                Self::Told(Told { what: format!("{}: {}", path.display(), told.what), ..told })
            }
            other => other,
        }
    }

    /// The same about something else than the error says.
    pub(crate) fn with_what(self, what: impl Into<String>) -> Self {
        match self {
            Self::Told(told) => Self::Told(Told { what: what.into(), ..told }),
            other => other,
        }
    }

    /// The same with another cure: what to do depends on the command.
    pub(crate) fn with_cure(self, cure: impl Into<String>) -> Self {
        match self {
            Self::Told(told) => Self::Told(Told { cure: cure.into(), ..told }),
            other => other,
        }
    }

    /// A picture was drawn again and came out otherwise.
    pub(crate) fn other_pixels(old: &Path) -> Self {
        let what = format!("the new pixels are not those of {}", old.display());
        let why = "another version, kind of processor, --dtype or model drew it, or it was edited since";
        let cure = "draw with what drew it; inkstone info prints the settings in it";
        Self::told(codes::OTHER_PIXELS, EXIT_FAILED, what, why, cure)
    }

    /// A picture says nothing that could be drawn again.
    pub(crate) fn no_request(path: &Path, why: impl Into<String>) -> Self {
        let what = format!("{} holds no request", path.display());
        Self::told(
            codes::NO_REQUEST,
            EXIT_USAGE,
            what,
            why,
            "give a picture that inkstone drew, or the .json beside it",
        )
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (what, why) = library::what_and_why(&error);
        let cure = match &error {
            Error::InvalidParam { param, got, .. } => nearest::flag(param, got),
            Error::InsufficientMemory { alternatives, .. } => library::alternatives(alternatives),
            _ => None,
        };
        Self::told(error.code(), error.exit_code(), what, why, cure.unwrap_or_else(|| error.cure().into()))
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.what))?;
        for (label, line) in [("why", &self.why), ("try", &self.cure)] {
            if !line.is_empty() {
                write!(f, "\n  {label}: {}", printable(line))?;
            }
        }
        Ok(())
    }
}

/// Text from outside, safe to show on a terminal: control characters are written out.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// A path that has been checked to be a file's, with the folder it lies in.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
