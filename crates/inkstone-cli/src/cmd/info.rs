//! `info`: the request inside a picture, and the picture drawn again from it.

use std::path::Path;

use inkstone::Pixels;
use inkstone::codec::{Metadata, Origin};
use serde_json::json;

use super::Session;
use super::generate::{OtherModel, Ready};
use crate::args::{Draw, Info};
use crate::failure::{Failure, Result};
use crate::record;

pub(super) fn run(args: &Info, session: &Session) -> Result<()> {
    let (stored, origin) = record::settings(&args.picture)?;
    if origin != Origin::Inkstone {
        session
            .terminal
            .note(&format!("settings of another program ({origin:?}), as far as they mean the same here"));
    }
    if args.replay {
        return replay(args, &stored, session);
    }
    if session.terminal.json() {
        return session.terminal.event(&stored);
    }
    session.terminal.print(&record::describe(&stored))
}

/// Draws the picture again. What the file says can choose neither a model nor a file to read: flags do.
fn replay(args: &Info, stored: &Metadata, session: &Session) -> Result<()> {
    if stored.prompt.as_deref().is_none_or(|prompt| prompt.trim().is_empty()) {
        return Err(Failure::no_request(&args.picture, "its settings name no prompt"));
    }
    let draw = Draw { how: args.how.clone(), ..Draw::default() };
    let other = if args.how.model.is_some() { OtherModel::Warned } else { OtherModel::Refused };
    let mut ready = Ready::new(&draw, Some(stored), other, session)?;
    if draw.how.dry_run {
        return ready.tell(session);
    }
    let drawn = ready.draw()?;
    drawn.first().map_or(Ok(()), |new| compare(&args.picture, &new.pixels, session))
}

/// Says whether the new pixels are the old ones; that they are not is an error.
fn compare(old: &Path, new: &Pixels, session: &Session) -> Result<()> {
    let identical = record::picture(old).ok().map(|pixels| pixels == *new);
    if session.terminal.json() {
        let path = old.to_string_lossy();
        session.terminal.event(&json!({"event": "replay", "path": path, "identical": identical}))?;
    }
    match identical {
        Some(true) => session.terminal.note(&format!("the pixels are those of {}", old.display())),
        Some(false) => return Err(Failure::other_pixels(old)),
        None => session.terminal.note("no picture to compare with"),
    }
    Ok(())
}
