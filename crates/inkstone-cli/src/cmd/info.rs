//! `info`: the request inside a picture, and the picture drawn again from it.

use std::path::Path;

use inkstone::codec::{Metadata, Origin};

use super::{Session, generate};
use crate::args::{Draw, Info};
use crate::failure::Result;
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
    let draw = Draw { how: args.how.clone(), ..Draw::default() };
    let drawn = generate::pictures(&draw, Some(stored), session)?;
    if let Some(drawn) = drawn.first() {
        session.terminal.note(&compare(&args.picture, &drawn.pixels));
    }
    Ok(())
}

/// Whether the new pixels are the old ones, in words.
fn compare(old: &Path, new: &inkstone::Pixels) -> String {
    let old_pixels = record::picture(old);
    match old_pixels {
        Ok(pixels) if pixels == *new => format!("the pixels are those of {}", old.display()),
        Ok(_) => {
            format!("the pixels differ from {}: another version, processor or --dtype drew it", old.display())
        }
        Err(_) => "no picture to compare with".to_owned(),
    }
}
