//! What the library warns of as it reads a model, told like the program's own warnings.

use std::fmt::{Debug, Write as _};

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::terminal::Terminal;

/// Warnings and errors reach the terminal, all else is off.
#[derive(Debug)]
struct Told(Terminal);

/// Tells the library's warnings on this terminal from here on.
pub(crate) fn tell(terminal: &Terminal) {
    // A second session in one program keeps the first one's terminal, which speaks to the same streams.
    let _ = tracing::subscriber::set_global_default(Told(terminal.clone()));
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN && metadata.target().starts_with("inkstone")
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.message + &text.fields;
        self.0.warn(&text);
        if self.0.json() {
            // That nobody reads the events any more shows at the next one of the picture.
            let _ = self.0.event(&json!({"event": "warning", "text": text}));
        }
    }

    // Spans are off.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event's message, and its other fields behind it.
#[derive(Debug, Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, ", {name} {value:?}"),
        };
    }
}
