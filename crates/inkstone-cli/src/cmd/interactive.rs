//! Without arguments, on a terminal: a prompt a line, and the model stays open between them.

use std::io::{self, BufRead, Write as _};
use std::str::FromStr as _;
use std::sync::Arc;

use inkstone::Picture;
use inkstone::request::{DEFAULT_STRENGTH, InitImage, Size};

use super::Session;
use crate::args::{Draw, What};
use crate::drawing::{Drawing, Start};
use crate::failure::{EXIT_INTERRUPTED, Failure, Result};
use crate::resolve::{self, Sources};

#[cfg(test)]
mod tests;

const HELP: &str = "\
a red apple             draw it
128x64 a red apple      in another size
$0 a blue apple         start from picture 0; $0=0.4 keeps more of it
!help  !quit            this text; the end (so does Ctrl-D)";

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    Nothing,
    Help,
    Quit,
    Picture(Asked),
}

/// A picture that a line asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    size: Option<Size>,
    /// Number of an earlier picture, and how far to leave it.
    from: Option<(usize, f32)>,
    prompt: String,
}

pub(super) fn run(draw: &Draw, session: &Session) -> Result<()> {
    draw.how.start()?;
    let mut drawing = Drawing::open(session, &draw.how, None)?;
    session.terminal.note(&format!("{}: one prompt a line, !help for more", drawing.model().name));
    let mut pictures: Vec<Picture> = Vec::new();
    let mut lines = io::stdin().lock();
    while let Some(text) = ask(&mut lines, pictures.len())? {
        let asked = match parse(&text, pictures.len()) {
            Ok(Line::Nothing) => continue,
            Ok(Line::Quit) => break,
            Ok(Line::Help) => {
                session.terminal.note(HELP);
                continue;
            }
            Ok(Line::Picture(asked)) => asked,
            Err(failure) => {
                tell(session, failure)?;
                continue;
            }
        };
        match answer(&asked, draw, &pictures, &mut drawing, session) {
            Ok(drawn) => pictures.extend(drawn),
            Err(failure) => tell(session, failure)?,
        }
    }
    Ok(())
}

/// An error ends the line, not the program; a closed standard output ends both.
fn tell(session: &Session, failure: Failure) -> Result<()> {
    match failure {
        Failure::Told(told) if told.exit == EXIT_INTERRUPTED => session.terminal.note("stopped"),
        Failure::Told(told) => session.terminal.error(&told),
        other => return Err(other),
    }
    Ok(())
}

fn ask(lines: &mut impl BufRead, number: usize) -> Result<Option<String>> {
    let _ = write!(io::stderr().lock(), "{number}> ");
    let mut bytes = Vec::new();
    match lines.read_until(b'\n', &mut bytes) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => Err(Failure::read("standard input".as_ref(), &error)),
    }
}

fn answer(
    asked: &Asked,
    draw: &Draw,
    earlier: &[Picture],
    drawing: &mut Drawing<'_>,
    session: &Session,
) -> Result<Vec<Picture>> {
    let start = draw.how.start()?;
    let init = |size| match (asked.from, start) {
        (Some((number, strength)), _) => {
            Ok(Some(InitImage { pixels: Arc::new(earlier[number].pixels.clone()), strength }))
        }
        (None, Some(arg)) => Start::read(arg, None, &draw.how, session)?.sized(size).map(Some),
        (None, None) => Ok(None),
    };
    let flags = match asked.size {
        size @ Some(_) => What { size, aspect: None, width: None, height: None, ..draw.what.clone() },
        None => draw.what.clone(),
    };
    let settings = &session.config.settings;
    let sources = Sources { flags: &flags, stored: None, settings, defaults: &drawing.model().defaults };
    let requests = resolve::requests(sources, std::slice::from_ref(&asked.prompt), init)?;
    let paths = drawing.paths(&requests)?;
    drawing.draw(&requests, &paths)
}

/// Reads a line; `pictures` is how many there are to start from.
fn parse(text: &str, pictures: usize) -> Result<Line> {
    let mut rest = text.trim();
    match rest {
        "" => return Ok(Line::Nothing),
        "!help" | "!h" | "?" => return Ok(Line::Help),
        "!quit" | "!q" | "!exit" => return Ok(Line::Quit),
        _ => {}
    }
    let mut asked = Asked::default();
    loop {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if asked.size.is_none() && looks_like_size(word) {
            asked.size = Some(Size::from_str(word)?);
        } else if let (None, Some(reference)) = (asked.from, word.strip_prefix('$')) {
            asked.from = Some(earlier(word, reference, pictures)?);
        } else {
            break;
        }
        rest = after.trim_start();
    }
    if rest.is_empty() {
        return Err(Failure::no_prompt());
    }
    asked.prompt = rest.to_owned();
    Ok(Line::Picture(asked))
}

/// `64x64` and whatever else begins and ends with a digit around one `x`.
fn looks_like_size(word: &str) -> bool {
    let digits = |side: &str| !side.is_empty() && side.bytes().all(|b| b.is_ascii_digit());
    word.split_once('x').is_some_and(|(w, h)| digits(w) && digits(h))
}

fn earlier(word: &str, reference: &str, pictures: usize) -> Result<(usize, f32)> {
    let (number, strength) = reference.split_once('=').unwrap_or((reference, ""));
    let strength = if strength.is_empty() { Some(DEFAULT_STRENGTH) } else { strength.parse().ok() };
    match (number.parse::<usize>(), strength) {
        (Ok(number), Some(strength)) if number < pictures => Ok((number, strength)),
        _ => {
            let why = match pictures {
                0 => "nothing is drawn yet".to_owned(),
                _ => format!("there are $0 to ${}", pictures - 1),
            };
            Err(Failure::usage(format!("there is no picture {word}"), why, "!help shows what a line may say"))
        }
    }
}
