//! `generate`: a prompt becomes pictures.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use inkstone::codec::{LoraRecord, Metadata};
use inkstone::memory::{MemoryPlan, StageMemory, gibibytes};
use inkstone::request::{InitImage, MAX_PROMPT_CHARS};
use inkstone::weights::lora::Applied;
use inkstone::{Picture, Request};
use serde_json::json;

use super::Session;
use crate::args::{Draw, What};
use crate::drawing::{self, Drawing};
use crate::failure::{Failure, Result, printable};
use crate::record;
use crate::resolve::{self, Sources};

/// UTF-8 needs at most four bytes for a character.
const MAX_PROMPT_BYTES: u64 = 4 * MAX_PROMPT_CHARS as u64;

pub(super) fn run(draw: &Draw, session: &Session) -> Result<()> {
    let stored =
        draw.config_from_metadata.as_deref().map(record::settings).transpose()?.map(|(stored, _)| stored);
    pictures(draw, stored.as_ref(), OtherModel::Warned, session).map(drop)
}

/// What happens when stored settings are of another model than the one that draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherModel {
    /// They are starting points: the picture is drawn, with a warning.
    Warned,
    /// The same picture is wanted, which another model cannot draw.
    Refused,
}

/// Draws what the flags and a stored request say.
pub(super) fn pictures(
    draw: &Draw,
    stored: Option<&Metadata>,
    other: OtherModel,
    session: &Session,
) -> Result<Vec<Picture>> {
    let Some(prompt) = prompt(draw)?.or_else(|| stored.and_then(|r| r.prompt.clone())) else {
        return Err(Failure::no_prompt());
    };
    if prompt.trim().is_empty() {
        return Err(Failure::no_prompt());
    }
    let init = init(draw, stored)?;
    let mut drawing = Drawing::open(session, &draw.how, stored)?;
    check_model(stored, &drawing.model().name, other, session)?;
    let replayed = draw.config_from_metadata.is_none();
    if let Some(stored) = stored.filter(|stored| !stored.loras.is_empty()) {
        check_loras(stored, &drawing.lora_records()?, replayed, session)?;
    }
    let requests = resolve(&draw.what, stored, &prompt, init, &drawing, session)?;
    let paths = drawing.paths(&requests)?;
    if draw.how.dry_run {
        return dry_run(&requests, &paths, &drawing, session).map(|()| Vec::new());
    }
    drawing.draw(&requests, &paths)
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
fn init(draw: &Draw, stored: Option<&Metadata>) -> Result<Option<InitImage>> {
    match draw.how.start()? {
        Some(arg) => drawing::init_image(arg, stored.and_then(|s| s.strength)).map(Some),
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
    prompt: &str,
    init: Option<InitImage>,
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
    resolve::requests(sources, prompt, init)
}

fn prompt(draw: &Draw) -> Result<Option<String>> {
    match &draw.what.prompt_file {
        Some(path) => prompt_from(path).map(Some),
        None => Ok(draw.words.clone().or_else(|| draw.what.prompt.clone())),
    }
}

/// A file's text without the line ending that editors add.
fn prompt_from(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let mut read = |from: &mut dyn Read| from.take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes);
    let result = if path == Path::new("-") {
        read(&mut io::stdin())
    } else {
        File::open(path).and_then(|mut f| read(&mut f))
    };
    result.map_err(|error| Failure::read(path, &error))?;
    if bytes.len() as u64 > MAX_PROMPT_BYTES {
        let why = format!("a prompt has at most {MAX_PROMPT_CHARS} characters");
        return Err(Failure::usage(format!("{} is too long", path.display()), why, "shorten the text"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let why = format!("byte {} is not UTF-8", error.utf8_error().valid_up_to());
        Failure::usage(format!("{} is not text", path.display()), why, "save the file as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What a drawing takes: numbers for programs, words for people.
fn memory(plan: &MemoryPlan, numbers: bool) -> serde_json::Value {
    let stages = plan.stages.iter();
    if numbers {
        let stage = |s: &StageMemory| (s.stage.name().to_owned(), json!(s.peak.total_bytes()));
        return json!({
            "resident_bytes": plan.resident_bytes(), "anonymous_bytes": plan.anonymous_bytes(),
            "address_space_bytes": plan.address_space_bytes(), "two_passes": plan.two_passes,
            "stages": stages.map(stage).collect::<serde_json::Map<_, _>>(),
        });
    }
    let stage = |s: &StageMemory| format!("{} {}", s.stage.name(), gibibytes(s.peak.total_bytes() as u64));
    let stages: Vec<String> = stages.map(stage).collect();
    let (resident, anonymous) = (gibibytes(plan.resident_bytes()), gibibytes(plan.anonymous_bytes()));
    json!(format!("{resident} at most, {anonymous} of it not in files ({})", stages.join(", ")))
}

/// Says what would be drawn.
fn dry_run(requests: &[Request], paths: &[PathBuf], drawing: &Drawing<'_>, session: &Session) -> Result<()> {
    let model = &drawing.model().name;
    // Without their hashes, for which the files would be read.
    let lora = |applied: &Applied| json!({"name": applied.lora.name(), "scale": applied.scale});
    let loras: Vec<_> = drawing.loras().iter().map(lora).collect();
    for (request, path) in requests.iter().zip(paths) {
        let strength = request.init.as_ref().map(|init| init.strength);
        let forecast = drawing.forecast(request)?;
        let plan = &forecast.memory;
        let fields = [
            ("model", json!(model)),
            ("prompt", json!(request.prompt)),
            ("negative-prompt", json!(request.negative_prompt)),
            ("width", json!(request.width_px)),
            ("height", json!(request.height_px)),
            ("steps", json!(request.steps)),
            ("true-cfg-scale", json!(request.true_cfg_scale)),
            ("seed", json!(request.seed)),
            ("strength", json!(strength)),
            ("loras", json!((!loras.is_empty()).then_some(&loras))),
            ("output", json!(path.to_string_lossy())),
            ("offload", json!(plan.offload.name())),
            ("memory", memory(plan, session.terminal.json())),
        ];
        if session.terminal.json() {
            let mut event = serde_json::Map::from_iter([("event".to_owned(), json!("dry-run"))]);
            event.extend(fields.map(|(name, value)| (name.replace('-', "_"), value)));
            session.terminal.event(&event)?;
        } else {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            let lines: String =
                known.map(|(name, value)| format!("{name}: {}\n", printable(&value.to_string()))).collect();
            session.terminal.print(&lines)?;
        }
    }
    Ok(())
}
