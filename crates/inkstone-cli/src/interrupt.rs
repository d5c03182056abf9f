//! Ctrl-C: the first one stops the picture within a step, the second one stops the program.

use std::sync::{Arc, Mutex, PoisonError};

use inkstone::progress::CancelToken;

use crate::failure::EXIT_INTERRUPTED;

/// The picture that a signal stops. Without one, a signal ends the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<Mutex<Option<CancelToken>>>);

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP from here on. Where the system refuses, signals keep their own effect.
    pub(crate) fn listen() -> Self {
        let this = Self::default();
        let heard = this.clone();
        let _ = ctrlc::set_handler(move || match heard.take() {
            Some(running) => running.cancel(),
            None => std::process::exit(i32::from(EXIT_INTERRUPTED)),
        });
        this
    }

    /// A drawing begins.
    pub(crate) fn arm(&self) -> CancelToken {
        let token = CancelToken::default();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        token
    }

    /// The drawing is over.
    pub(crate) fn disarm(&self) {
        self.take();
    }

    fn take(&self) -> Option<CancelToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
