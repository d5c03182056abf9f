//! Which layers of a network lie in memory while it passes them in order, again and again.
//!
//! Weights are mapped from their files, so without further ado they all stay in memory once they were used. A walk that
//! is streamed keeps two layers: the one that computes, and the next, which a thread reads ahead meanwhile. What lies
//! behind is let go. The bytes are the same, and a network's forward only says where it is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use inkstone_tensor::Pages;

#[cfg(test)]
mod tests;

/// The layers of a network. Clones are the same walk.
#[derive(Clone, Debug)]
pub struct Walk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    layers: Arc<Layers>,
    streamed: AtomicBool,
    /// Started by the first streamed layer.
    reader: Mutex<Option<Reader>>,
}

#[derive(Debug)]
struct Layers {
    pages: Vec<Pages>,
    /// The layer that computes.
    current: AtomicUsize,
}

impl Layers {
    /// The layer behind another one: the first follows the last, as the next step follows this one.
    fn next(&self, layer: usize) -> usize {
        (layer + 1) % self.pages.len().max(1)
    }

    /// Whether a layer computes or is the next to.
    fn wants(&self, layer: usize) -> bool {
        let current = self.current.load(Ordering::Relaxed);
        layer == current || layer == self.next(current)
    }

    fn read_ahead(&self, layer: usize) {
        if let Some(pages) = self.pages.get(layer) {
            pages.read_ahead(|| self.wants(layer));
            if !self.wants(layer) {
                pages.release(); // it was passed, and let go, while a part of it was read
            }
        }
    }
}

impl Walk {
    /// A walk over layers with these pages, all of which stay in memory until it is told otherwise.
    #[must_use]
    pub fn new(pages: Vec<Pages>) -> Self {
        let layers = Arc::new(Layers { pages, current: AtomicUsize::new(0) });
        Self(Arc::new(Inner { layers, streamed: AtomicBool::new(false), reader: Mutex::default() }))
    }

    /// The pages of each layer.
    pub(crate) fn pages(&self) -> &[Pages] {
        &self.0.layers.pages
    }

    /// Bytes of all layers.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.layers.pages.iter().map(Pages::len_bytes).sum()
    }

    /// Says whether layers are let go behind the walk.
    pub fn stream(&self, streamed: bool) {
        let before = self.0.streamed.swap(streamed, Ordering::Relaxed);
        if streamed && !before {
            self.rest();
        }
    }

    /// Brings layers into memory, the first one first, while something else is done: until they are not wanted any more. Those of
    /// a streamed walk come one by one, as it passes them.
    pub fn read_ahead(&self, wanted: impl Fn() -> bool) {
        if !self.0.streamed.load(Ordering::Relaxed) {
            self.0.layers.pages.iter().for_each(|pages| pages.read_ahead(&wanted));
        }
    }

    /// A layer begins to compute; all operations of the one before it are done.
    pub fn enter(&self, layer: usize) {
        if !self.0.streamed.load(Ordering::Relaxed) {
            return;
        }
        let layers = &self.0.layers;
        let behind = layers.current.swap(layer, Ordering::Relaxed);
        if let Some(pages) = layers.pages.get(behind).filter(|_| behind != layer) {
            pages.release();
        }
        let next = layers.next(layer);
        if layers.pages.get(next).is_some_and(Pages::are_counted) {
            layers.read_ahead(next); // at its latest, so that the count does not depend on a thread
        } else {
            self.send(next);
        }
    }

    /// Lets all layers of a streamed walk go: nothing computes.
    pub fn rest(&self) {
        if self.0.streamed.load(Ordering::Relaxed) {
            // A reader that is at work must not bring back what is let go.
            self.0.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.0.layers.pages.iter().for_each(Pages::release);
        }
    }

    fn send(&self, layer: usize) {
        let mut reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = reader.get_or_insert_with(|| Reader::start(&self.0.layers));
        if let Some(requests) = &reader.requests {
            // A reader that could not start reads nothing: the layers are read when they compute.
            let _ = requests.send(layer);
        }
    }
}

/// The thread that reads ahead; ends when this is dropped.
#[derive(Debug)]
struct Reader {
    requests: Option<Sender<usize>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(layers: &Arc<Layers>) -> Self {
        let (requests, receiver) = channel();
        let layers = Arc::clone(layers);
        let thread = std::thread::Builder::new().name("inkstone-reader".into());
        let thread = thread.spawn(move || serve(&layers, &receiver)).ok();
        Self { requests: Some(requests), thread }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // It reads files and nothing else: there is nothing to hear of.
            let _ = thread.join();
        }
    }
}

fn serve(layers: &Layers, requests: &Receiver<usize>) {
    while let Ok(layer) = requests.recv() {
        // Those that were asked for while the last one was read are old.
        let layer = requests.try_iter().last().unwrap_or(layer);
        layers.read_ahead(layer);
    }
}
