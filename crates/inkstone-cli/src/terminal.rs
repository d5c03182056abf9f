//! The two streams: answers go to standard output, everything a person watches goes to standard error.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::args::{Color, Common};
use crate::failure::{Failure, Result, Told, printable};

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Level {
    Quiet,
    Normal,
    Verbose,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Nothing,
    /// Events on standard output.
    Events,
    /// A line when something is done.
    Lines,
    /// A bar that is drawn over.
    Bar,
}

/// Where the program speaks.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    pub(crate) level: Level,
    pub(crate) progress: Shown,
    color: bool,
    json: bool,
}

impl Terminal {
    pub(crate) fn new(common: &Common) -> Self {
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let person = io::stderr().is_terminal() && !dumb;
        let level = match (common.quiet, common.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        let color = match common.color.unwrap_or_default() {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => person && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        let progress = match level {
            _ if common.json => Shown::Events,
            Level::Quiet => Shown::Nothing,
            _ if common.no_progress => Shown::Nothing,
            _ if person => Shown::Bar,
            _ => Shown::Lines,
        };
        Self { level, progress, color, json: common.json }
    }

    /// Whether answers are JSON events.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether a person watches standard error while answers go somewhere else.
    pub(crate) fn is_watched(&self) -> bool {
        io::stderr().is_terminal() && !io::stdout().is_terminal()
    }

    /// The path of a picture, as its bytes are.
    pub(crate) fn path(&self, path: &Path) -> Result<()> {
        #[cfg(unix)]
        let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        #[cfg(not(unix))]
        let text = path.to_string_lossy();
        #[cfg(not(unix))]
        let bytes = text.as_bytes();
        answer(&[bytes, b"\n"].concat())
    }

    /// One event on one line.
    pub(crate) fn event(&self, event: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(event).map_err(|e| Failure::write(STDOUT.as_ref(), &e.into()))?;
        line.push(b'\n');
        answer(&line)
    }

    /// Text that was asked for.
    pub(crate) fn print(&self, text: &str) -> Result<()> {
        answer(text.as_bytes())
    }

    /// Something worth knowing while the picture is drawn.
    pub(crate) fn note(&self, text: &str) {
        if self.level > Level::Quiet {
            self.tell("", "", text);
        }
    }

    /// Something that may not be as its user thinks.
    pub(crate) fn warn(&self, text: &str) {
        /// To the start of the line, and clear it.
        const OVER_THE_BAR: &str = "\r\x1b[2K";
        if self.level > Level::Quiet {
            // It may come while a bar is on the line, which is drawn again behind it.
            if self.progress == Shown::Bar {
                let _ = write!(io::stderr().lock(), "{OVER_THE_BAR}");
            }
            self.tell("warning: ", "33", text);
        }
    }

    /// Three lines: what, why, what to do.
    pub(crate) fn error(&self, told: &Told) {
        if self.json {
            let event = serde_json::json!({
                "event": "error", "code": told.code, "what": told.what, "why": told.why, "try": told.cure,
            });
            // Whoever reads events may have gone; the error below is for a person.
            let _ = self.event(&event);
        }
        self.tell(&format!("error[{}]: ", told.code), "31", &told.to_string());
    }

    /// A line on standard error. Nobody can be told when that fails.
    fn tell(&self, label: &str, color: &str, text: &str) {
        let text = text.lines().map(printable).collect::<Vec<_>>().join("\n");
        let label = if self.color && !label.is_empty() {
            format!("\x1b[1;{color}m{label}\x1b[0m")
        } else {
            label.into()
        };
        let _ = writeln!(io::stderr().lock(), "{label}{text}");
    }
}

const STDOUT: &str = "standard output";

fn answer(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => Failure::write(STDOUT.as_ref(), &error),
    })
}
