//! `config show` and `config path`.

use std::fmt::Write as _;

use serde_json::json;

use super::Session;
use crate::args::{self, Common};
use crate::config::{self, KEYS};
use crate::failure::Result;

pub(super) fn run(command: args::Config, common: &Common, session: &Session) -> Result<()> {
    match command {
        args::Config::Path => paths(common, session),
        args::Config::Show { origin } => show(origin, session),
    }
}

fn paths(common: &Common, session: &Session) -> Result<()> {
    config::files(common).iter().try_for_each(|path| session.terminal.path(path))
}

/// Every setting as a config file would say it; those that nothing sets as comments.
fn show(origin: bool, session: &Session) -> Result<()> {
    let mut text = String::new();
    for key in KEYS {
        let entry = session.config.values.get(*key);
        if session.terminal.json() {
            let (value, from) = entry.map(|(v, o)| (v, o.to_string())).unzip();
            session
                .terminal
                .event(&json!({"event": "setting", "key": key, "value": value, "origin": from}))?;
            continue;
        }
        // Writing to a string does not fail.
        let _ = match entry {
            Some((value, from)) if origin => writeln!(text, "{key} = {value}  # {from}"),
            Some((value, _)) => writeln!(text, "{key} = {value}"),
            None if origin => writeln!(text, "# {key}  # the model's or the program's default"),
            None => writeln!(text, "# {key}"),
        };
    }
    session.terminal.print(&text)
}
