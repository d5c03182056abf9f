//! Prompts as they are given: words, flags, files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use inkstone::request::{MAX_PROMPT_CHARS, check_prompt};

use crate::args::Draw;
use crate::failure::{Failure, Result};

#[cfg(test)]
mod tests;

/// UTF-8 needs at most four bytes for a character.
const MAX_PROMPT_BYTES: u64 = 4 * MAX_PROMPT_CHARS as u64;
/// A file of several prompts is at most this large.
const MAX_PROMPTS_BYTES: u64 = 8 << 20;

/// The prompts that a command was given; none if it was given none.
///
/// # Errors
/// A file that cannot be read or is no text, a line of it that can be no prompt, a prompt of blanks.
pub(crate) fn given(draw: &Draw) -> Result<Vec<String>> {
    let what = &draw.what;
    let prompts = if let Some(path) = &what.prompts_file {
        lines(path, &text(path, MAX_PROMPTS_BYTES)?)?
    } else if let Some(path) = &what.prompt_file {
        let text = text(path, MAX_PROMPT_BYTES)?;
        if text.trim().is_empty() {
            return Err(without_prompt(path, &text));
        }
        vec![text.trim_end_matches(['\r', '\n']).to_owned()]
    } else {
        draw.words.iter().chain(&what.prompt).cloned().collect()
    };
    if prompts.iter().any(|prompt| prompt.trim().is_empty()) {
        return Err(Failure::no_prompt());
    }
    Ok(prompts)
}

/// The error for a file in which there is nothing to draw.
fn without_prompt(path: &Path, text: &str) -> Failure {
    let name = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
    let why = if text.is_empty() { "it is empty" } else { "all of it is blank" };
    Failure::usage(format!("{name} has no prompt"), why, "write what the picture shows into it")
}

/// A prompt for each line that is not blank.
fn lines(path: &Path, text: &str) -> Result<Vec<String>> {
    let mut prompts = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        check_prompt(line).map_err(|error| {
            let place = format!("{} line {}", path.display(), i + 1);
            Failure::about(place.as_ref(), error)
        })?;
        if !line.is_empty() {
            prompts.push(line.to_owned());
        }
    }
    if prompts.is_empty() { Err(without_prompt(path, text)) } else { Ok(prompts) }
}

/// The text of a file, or of standard input.
fn text(path: &Path, most_bytes: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(most_bytes + 1).read_to_end(&mut bytes);
    let result = if path == Path::new("-") {
        read(&mut io::stdin())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    result.map_err(|error| Failure::read(path, &error))?;
    if bytes.len() as u64 > most_bytes {
        let why = format!("it has more than {most_bytes} bytes");
        return Err(Failure::usage(format!("{} is too long", path.display()), why, "shorten the text"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let why = format!("byte {} is not UTF-8", error.utf8_error().valid_up_to());
        Failure::usage(format!("{} is not text", path.display()), why, "save the file as UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}
