//! `generate`: prompts become pictures.

use std::path::PathBuf;

use inkstone::codec::{LoraRecord, Metadata};
use inkstone::{Picture, Request};

use super::Session;
use crate::args::{Draw, What};
use crate::drawing::{Drawing, Start};
use crate::failure::{Failure, Result, printable};
use crate::prompts;
use crate::record;
use crate::resolve::{self, Sources};

mod dry_run;

pub(super) fn run(draw: &Draw, session: &Session) -> Result<()> {
    let stored =
        draw.config_from_metadata.as_deref().map(record::settings).transpose()?.map(|(stored, _)| stored);
    let mut ready = Ready::new(draw, stored.as_ref(), OtherModel::Warned, session)?;
    if draw.how.dry_run {
        return ready.tell(session);
    }
    ready.drawing.save(&ready.requests, &ready.paths)
}

/// What happens when stored settings are of another model than the one that draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherModel {
    /// They are starting points: the picture is drawn, with a warning.
    Warned,
    /// The same picture is wanted, which another model cannot draw.
    Refused,
}

/// An open model, what it is to draw, and where to.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    drawing: Drawing<'a>,
    requests: Vec<Request>,
    paths: Vec<PathBuf>,
}

impl<'a> Ready<'a> {
    /// What the flags and a stored request say.
    pub(super) fn new(
        draw: &'a Draw,
        stored: Option<&Metadata>,
        other: OtherModel,
        session: &'a Session,
    ) -> Result<Self> {
        let mut prompts = prompts::given(draw)?;
        if prompts.is_empty() {
            let prompt = stored.and_then(|stored| stored.prompt.clone());
            prompts.push(prompt.filter(|prompt| !prompt.trim().is_empty()).ok_or_else(Failure::no_prompt)?);
        }
        let start = start(draw, stored, session)?;
        let drawing = Drawing::open(session, &draw.how, stored)?;
        check_model(stored, &drawing.model().name, other, session)?;
        let replayed = draw.config_from_metadata.is_none();
        if let Some(stored) = stored.filter(|stored| !stored.loras.is_empty()) {
            check_loras(stored, &drawing.lora_records()?, replayed, session)?;
        }
        let requests = resolve(&draw.what, stored, &prompts, start, &drawing, session)?;
        let paths = drawing.paths(&requests)?;
        Ok(Self { drawing, requests, paths })
    }

    /// Draws and saves the pictures.
    pub(super) fn draw(&mut self) -> Result<Vec<Picture>> {
        self.drawing.draw(&self.requests, &self.paths)
    }
}

/// Whether the settings are of the model that draws.
fn check_model(stored: Option<&Metadata>, ours: &str, other: OtherModel, session: &Session) -> Result<()> {
    let Some(theirs) = stored.and_then(|s| s.model.as_deref()).filter(|name| *name != ours) else {
        return Ok(());
    };
    if other == OtherModel::Refused {
        let why = format!("{theirs} drew it; {ours} would draw, and draw something else");
        let cure = format!("name the folder of {theirs} with --model");
        return Err(Failure::usage("the picture is of another model", why, cure));
    }
    let warning = format!("the settings are of the model {theirs}; {ours} draws; --model chooses");
    session.terminal.warn(&warning);
    Ok(())
}

/// Whether the LoRAs of stored settings are among those that draw. Their files are named by flags only; that they are
/// the same is told by their hashes.
fn check_loras(stored: &Metadata, ours: &[LoraRecord], replayed: bool, session: &Session) -> Result<()> {
    for theirs in &stored.loras {
        if ours.iter().any(|lora| lora.sha256 == theirs.sha256) {
            continue;
        }
        let name = printable(&theirs.name);
        let why = if ours.iter().any(|lora| lora.name == theirs.name) {
            format!("it was drawn with the LoRA {name}, and the file of that name is another one")
        } else {
            format!("it was drawn with the LoRA {name}, which is not given")
        };
        let cure =
            format!("name the file whose SHA-256 begins with {:.12}: --lora PATH", printable(&theirs.sha256));
        if replayed {
            return Err(Failure::usage("the picture needs a LoRA", why, cure));
        }
        session.terminal.warn(&format!("the settings are of a picture; {why}; {cure}"));
    }
    Ok(())
}

/// The picture to start from: only flags name one, a stranger's file names none.
fn start<'a>(draw: &'a Draw, stored: Option<&Metadata>, session: &Session) -> Result<Option<Start<'a>>> {
    match draw.how.start()? {
        Some(arg) => Start::read(arg, stored.and_then(|s| s.strength), &draw.how, session).map(Some),
        None if stored.is_some_and(|s| s.strength.is_some() || s.image.is_some()) => {
            let why = "they are of a picture that was drawn from another one, which they do not hold";
            Err(Failure::usage("the settings are not whole", why, "name that picture with --image"))
        }
        None => Ok(None),
    }
}

fn resolve(
    what: &What,
    stored: Option<&Metadata>,
    prompts: &[String],
    start: Option<Start<'_>>,
    drawing: &Drawing<'_>,
    session: &Session,
) -> Result<Vec<Request>> {
    if let Some(guidance) = what.guidance {
        session
            .terminal
            .note(&format!("guidance is true_cfg_scale on this model: --true-cfg-scale {guidance}"));
    }
    let defaults = &drawing.model().defaults;
    let sources = Sources { flags: what, stored, settings: &session.config.settings, defaults };
    resolve::requests(sources, prompts, |size| start.map(|start| start.sized(size)).transpose())
}
