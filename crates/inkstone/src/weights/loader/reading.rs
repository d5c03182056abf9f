//! What is read from the disk while layers are quantized.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inkstone_tensor::{Pages, Tensor};

use crate::memory::Ahead;

#[cfg(test)]
mod tests;

/// Reads the layers that follow while one is quantized; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reading {
    quantized_bytes: Arc<AtomicU64>,
    _ahead: Ahead,
}

impl Reading {
    /// Begins with the layer of these pages; the tensors follow, as networks ask for them: layer after layer.
    pub(super) fn begin(first: &Pages, tensors: &BTreeMap<String, Tensor>) -> Self {
        let mut following = Pages::default();
        in_order(tensors.keys().map(String::as_str)).for_each(|name| following.add(&tensors[name]));
        let quantized_bytes = Arc::<AtomicU64>::default();
        let told = Arc::clone(&quantized_bytes);
        let ahead = Ahead::following([first, &following], move || told.load(Ordering::Relaxed));
        Self { quantized_bytes, _ahead: ahead }
    }

    /// A layer was quantized.
    pub(super) fn quantized(&self, pages: &Pages) {
        self.quantized_bytes.fetch_add(pages.len_bytes() as u64, Ordering::Relaxed);
    }
}

/// Names with the numbers in them in their order: layer 2 in front of layer 10.
fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut names: Vec<&str> = names.collect();
    names.sort_by_cached_key(|name| {
        name.split('.').map(|part| (part.parse::<u64>().ok(), part)).collect::<Vec<_>>()
    });
    names.into_iter()
}
