//! `info`: the request inside a picture, and the picture drawn again from it.

use std::path::Path;

use super::{Session, generate};
use crate::args::{Draw, Info};
use crate::failure::{Failure, Result};
use crate::record::{self, Record};

pub(super) fn run(args: &Info, session: &Session) -> Result<()> {
    let record = Record::read(&args.picture)?;
    if args.replay {
        return replay(args, &record, session);
    }
    if session.terminal.json() {
        return session.terminal.event(&record);
    }
    session.terminal.print(&record.describe())
}

/// Draws the picture again. What the file says can choose neither a model nor a file to read: flags do.
fn replay(args: &Info, record: &Record, session: &Session) -> Result<()> {
    let path = args.picture.display();
    if record.strength.is_some() && args.how.image.is_none() {
        let why = "it was drawn from another picture, which it does not hold";
        return Err(Failure::usage(
            format!("cannot draw {path} again"),
            why,
            "name that picture with --image",
        ));
    }
    let draw = Draw { how: args.how.clone(), ..Draw::default() };
    let drawn = generate::pictures(&draw, Some(record), session)?;
    if let Some(drawn) = drawn.first() {
        session.terminal.note(&compare(&args.picture, &drawn.pixels));
    }
    Ok(())
}

/// Whether the new pixels are the old ones, in words.
fn compare(old: &Path, new: &inkstone::Pixels) -> String {
    let old_pixels = record::read_file(old).and_then(|bytes| record::decode(old, &bytes));
    match old_pixels {
        Ok(pixels) if pixels == *new => format!("the pixels are those of {}", old.display()),
        Ok(_) => {
            format!("the pixels differ from {}: another version, processor or --dtype drew it", old.display())
        }
        Err(_) => "no picture to compare with".to_owned(),
    }
}
