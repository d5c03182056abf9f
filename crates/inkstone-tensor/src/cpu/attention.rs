//! Attention in blocks of queries and keys with a running softmax; scores of more than a block are never held.
//!
//! Keys and values are packed into panels a few heads at a time; the jobs are then blocks of queries of a head.
//! Blocks start at the start of a sequence, so a row's result does not depend on what else is in the batch.

use std::ops::Range;

use super::Cpu;
use super::operand::Ahead;
use super::panel::{Words, words_of};
use super::rows::{Matrix, MatrixMut, Row, RowMut};
use super::scratch;
use super::softmax::{Running, Scores};
use super::table::Table;
use super::tile::{Operand, Panel, Sums, Tile};
use crate::ops::{Attention, Mask};
use crate::{DType, Result, Tensor};

/// Queries in a block: a multiple of every tile's rows but AVX2's, whose last tile is a little smaller.
const BLOCK_QUERIES: usize = 112;
/// Keys in a block: scores and weights of a block stay in the L2 cache.
const BLOCK_KEYS: usize = 256;
/// Blocks of queries for each thread, for which keys and values are packed at a time.
const JOBS_PER_THREAD: usize = 16;
/// Products of elements that a thread computes in a nanosecond, on the slow side.
const PRODUCTS_PER_NS: usize = 48;

pub(super) fn attention(cpu: &Cpu, args: &Attention<'_>, outs: &mut [Tensor]) -> Result<()> {
    let Some(first) = args.streams.first() else { return Ok(()) };
    assert!(args.shared_rows().is_none(), "two sequences claim a row");
    let (tile, work) = cpu.table.tile(first.q.dtype());
    let head_dim = first.q.cols() / args.n_heads;
    if head_dim == 0 {
        return Ok(());
    }
    let flash = Flash {
        table: cpu.table,
        tile,
        work,
        args,
        head_dim,
        q: args.streams.iter().map(|s| Matrix::of(s.q)).collect(),
        k: args.streams.iter().map(|s| Matrix::of(s.k)).collect(),
        v: args.streams.iter().map(|s| Matrix::of(s.v)).collect(),
        outs: outs.iter_mut().map(MatrixMut::of).collect(),
    };
    let sequences: Vec<Vec<Place>> = args.sequences.iter().map(|ranges| places(ranges)).collect();
    let mut units = Vec::with_capacity(sequences.len() * args.n_kv_heads);
    for places in sequences.iter().filter(|places| !places.is_empty()) {
        units.extend((0..args.n_kv_heads).map(|kv_head| Unit { places, kv_head }));
    }
    let lens: Vec<usize> = units.iter().map(|unit| unit.places.len()).collect();
    for group in groups(&lens, args.n_heads / args.n_kv_heads, cpu.threads.count()) {
        flash.run(cpu, &units[group])?;
    }
    Ok(())
}

/// Units that are packed and worked on together: `lens` has each unit's tokens, `heads` share a unit.
fn groups(lens: &[usize], heads: usize, threads: usize) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut jobs) = (0, 0);
    for (i, len) in lens.iter().enumerate() {
        jobs += len.div_ceil(BLOCK_QUERIES) * heads;
        if jobs >= JOBS_PER_THREAD * threads || i + 1 == lens.len() {
            groups.push(start..i + 1);
            (start, jobs) = (i + 1, 0);
        }
    }
    groups
}

/// Bytes of each buffer of packed keys and values that [`attention`] takes, one after the other.
pub(super) fn packing_bytes(table: &Table, threads: usize, args: &Attention<'_>) -> Vec<usize> {
    let Some(first) = args.streams.first() else { return Vec::new() };
    let (tile, work) = table.tile(first.q.dtype());
    let block = block_bytes(tile, work, first.q.cols() / args.n_heads);
    let tokens = |sequence: &Vec<Range<usize>>| sequence.iter().map(Range::len).sum::<usize>();
    let sequences = args.sequences.iter().map(tokens).filter(|tokens| *tokens > 0);
    let lens: Vec<usize> =
        sequences.flat_map(|tokens| std::iter::repeat_n(tokens, args.n_kv_heads)).collect();
    let groups = groups(&lens, args.n_heads / args.n_kv_heads, threads).into_iter();
    groups.map(|group| lens[group].iter().map(|len| len.div_ceil(BLOCK_KEYS) * block).sum()).collect()
}

/// Bytes of scratch that a thread needs: packing has a panel of keys and a block of values, a block of queries its
/// scores, weights and sums.
pub(super) fn scratch_bytes(table: &Table, args: &Attention<'_>) -> usize {
    let Some(first) = args.streams.first() else { return 0 };
    let (tile, work) = table.tile(first.q.dtype());
    let head_dim = first.q.cols() / args.n_heads;
    let (dims, q_bytes) = (head_dim.next_multiple_of(tile.cols), words_of(head_dim, work) * 4);
    let sizes = Sizes { q_bytes, sums_stride: dims, ..Sizes::new(work) };
    let packing = tile.cols * q_bytes + (BLOCK_KEYS + 1) * dims * work.size_bytes();
    let query = q_bytes + 4 * (sizes.scores_stride + dims) + sizes.weights_bytes;
    packing.max(BLOCK_QUERIES * query)
}

/// Bytes of a block's keys and values: values are panels of `tile.cols` dimensions.
fn block_bytes(tile: &Tile, work: DType, head_dim: usize) -> usize {
    let dims = head_dim.next_multiple_of(tile.cols);
    keys_bytes(tile, work, head_dim) + dims * words_of(BLOCK_KEYS, work) * 4
}

/// Bytes of a block's keys: panels of `tile.cols` keys.
fn keys_bytes(tile: &Tile, work: DType, head_dim: usize) -> usize {
    BLOCK_KEYS.next_multiple_of(tile.cols) * words_of(head_dim, work) * 4
}

/// A token of a sequence.
#[derive(Clone, Copy)]
struct Place {
    stream: usize,
    row: usize,
}

fn places(ranges: &[Range<usize>]) -> Vec<Place> {
    let stream = |(stream, rows): (usize, &Range<usize>)| rows.clone().map(move |row| Place { stream, row });
    ranges.iter().enumerate().flat_map(stream).collect()
}

/// Keys and values that some jobs share: one head of a sequence.
struct Unit<'a> {
    places: &'a [Place],
    kv_head: usize,
}

struct Flash<'a> {
    table: &'static Table,
    tile: &'static Tile,
    /// The type in which the tile wants its operands.
    work: DType,
    args: &'a Attention<'a>,
    head_dim: usize,
    q: Vec<Matrix<'a>>,
    k: Vec<Matrix<'a>>,
    v: Vec<Matrix<'a>>,
    outs: Vec<MatrixMut<'a>>,
}

/// Some heads' keys and values, packed block by block.
struct Packed<'a> {
    bytes: &'a [u8],
    /// Where each unit starts, and the end.
    starts: Vec<usize>,
}

impl Flash<'_> {
    /// Packs the units and computes all of their queries.
    fn run(&self, cpu: &Cpu, units: &[Unit<'_>]) -> Result<()> {
        let mut starts = vec![0];
        let mut blocks = Vec::new();
        let mut queries = Vec::new();
        let group = self.args.n_heads / self.args.n_kv_heads;
        let mut products = 0;
        for (u, unit) in units.iter().enumerate() {
            let len = unit.places.len();
            let end = starts[u] + len.div_ceil(BLOCK_KEYS) * self.block_bytes();
            starts.push(end);
            blocks.extend((0..len).step_by(BLOCK_KEYS).map(|key| (u, key)));
            for head in 0..group {
                queries.extend((0..len).step_by(BLOCK_QUERIES).map(|query| (u, head, query)));
            }
            products += len * len * self.head_dim * group * 2;
        }
        let total = starts[units.len()];
        let mut buffer = cpu.packing_buffer(total)?;
        let bytes = buffer.as_mut_slice();
        {
            let chunks = super::threads::Chunks::new(bytes, self.block_bytes());
            cpu.threads.run(blocks.len(), products / 64 / PRODUCTS_PER_NS + total / 4, |job| {
                let (u, key) = blocks[job];
                // SAFETY: units are packed one behind the other, a block a job: block `job` is this job's.
                self.pack(&units[u], key, unsafe { chunks.take(job) });
            })?;
        }
        let packed = Packed { bytes, starts };
        cpu.threads.run(queries.len(), products / PRODUCTS_PER_NS, |job| {
            let (u, head, query) = queries[job];
            self.queries(&units[u], &packed, u, head, query);
        })
    }

    /// Words of a head's row in the tile's type.
    fn head_words(&self) -> usize {
        words_of(self.head_dim, self.work)
    }

    fn keys_bytes(&self) -> usize {
        keys_bytes(self.tile, self.work, self.head_dim)
    }

    fn block_bytes(&self) -> usize {
        block_bytes(self.tile, self.work, self.head_dim)
    }

    /// A head's part of a row of q, k or v.
    fn head<'m>(&self, of: &[Matrix<'m>], place: Place, head: usize) -> Row<'m> {
        of[place.stream].part(place.row, head * self.head_dim..(head + 1) * self.head_dim)
    }

    /// Copies heads of some tokens side by side in the tile's type, whole words each.
    fn gather(&self, of: &[Matrix<'_>], places: &[Place], head: usize, row_bytes: usize, to: &mut [u8]) {
        for (place, to) in places.iter().zip(to.chunks_exact_mut(row_bytes)) {
            let (to, behind) = to.split_at_mut(self.head_dim * self.work.size_bytes());
            behind.fill(0);
            // SAFETY: both rows have `head_dim` elements.
            unsafe {
                let ahead = Ahead::of(&of[place.stream]);
                (self.table.rows.convert_ahead)(
                    self.head(of, *place, head),
                    ahead,
                    RowMut::new(to, self.work),
                );
            }
        }
    }

    /// Packs the keys and values from `key` on.
    fn pack(&self, unit: &Unit<'_>, key: usize, to: &mut [u8]) {
        let places = &unit.places[key..unit.places.len().min(key + BLOCK_KEYS)];
        let (keys, values) = to.split_at_mut(self.keys_bytes());
        let (cols, row_bytes) = (self.tile.cols, self.head_words() * 4);
        // A row of values is padded to whole panels, and there is one more row of zeros for an odd last pair.
        let value_bytes = self.head_dim.next_multiple_of(cols) * self.work.size_bytes();
        scratch::with([cols * row_bytes, (places.len() + 1) * value_bytes], |[rows, gathered]| {
            for (places, panel) in
                places.chunks(cols).zip(keys.chunks_mut(self.tile.panel_bytes(row_bytes / 4)))
            {
                self.gather(&self.k, places, unit.kv_head, row_bytes, rows);
                let words = Words::plain(rows, row_bytes, places.len(), cols);
                words.transpose(self.table, panel);
            }
            self.gather(&self.v, places, unit.kv_head, value_bytes, gathered);
            gathered[places.len() * value_bytes..].fill(0);
            let panel_bytes = self.tile.panel_bytes(words_of(BLOCK_KEYS, self.work));
            for (p, panel) in values.chunks_mut(panel_bytes).enumerate() {
                self.pack_values(gathered, value_bytes, p, words_of(places.len(), self.work), panel);
            }
        });
    }

    /// Packs panel `p` of a block's values: `words` words of keys.
    fn pack_values(&self, rows: &[u8], row_bytes: usize, p: usize, words: usize, panel: &mut [u8]) {
        let width = self.tile.cols * self.work.size_bytes();
        let part = |r: usize| &rows[r * row_bytes + p * width..][..width];
        for (word, to) in panel.chunks_exact_mut(self.tile.cols * 4).enumerate().take(words) {
            if self.work == DType::Bf16 {
                // SAFETY: lengths are limited to the slices.
                unsafe { (self.table.rows.pair_rows)(part(2 * word), part(2 * word + 1), to) }
            } else {
                to.copy_from_slice(part(word));
            }
        }
    }

    /// Computes a block of queries of one head.
    fn queries(&self, unit: &Unit<'_>, packed: &Packed<'_>, u: usize, head: usize, query: usize) {
        let places = &unit.places[query..unit.places.len().min(query + BLOCK_QUERIES)];
        let head = unit.kv_head * (self.args.n_heads / self.args.n_kv_heads) + head;
        let dims = self.head_dim.next_multiple_of(self.tile.cols);
        let q_bytes = self.head_words() * 4;
        let state = Sizes { q_bytes, sums_stride: dims, ..Sizes::new(self.work) };
        let rows = places.len();
        let sizes =
            [rows * q_bytes, rows * state.scores_stride * 4, rows * state.weights_bytes, rows * dims * 4];
        scratch::with(sizes, |[q, scores, weights, sums]| {
            self.gather(&self.q, places, head, q_bytes, q);
            let (scores, sums) = (scratch::as_f32(scores), scratch::as_f32(sums));
            let mut running = [Running::START; BLOCK_QUERIES];
            let seen_end = match self.args.mask {
                Mask::Full => unit.places.len(),
                Mask::Causal => query + rows,
            };
            let blocks =
                packed.bytes[packed.starts[u]..packed.starts[u + 1]].chunks_exact(self.block_bytes());
            for (key, block) in (0..seen_end).step_by(BLOCK_KEYS).zip(blocks) {
                let keys = key..seen_end.min(key + BLOCK_KEYS);
                let (k, v) = block.split_at(self.keys_bytes());
                self.scores(rows, q, k, keys.len(), scores, &state);
                for (r, running) in running.iter_mut().enumerate().take(rows) {
                    let seen = match self.args.mask {
                        Mask::Full => keys.len(),
                        Mask::Causal => (query + r + 1).clamp(keys.start, keys.end) - keys.start,
                    };
                    let seen = Row::f32s(&scores[r * state.scores_stride..][..seen]);
                    let width = words_of(keys.len(), self.work) * 4;
                    let weights = RowMut::new(&mut weights[r * state.weights_bytes..][..width], self.work);
                    let scores = Scores { seen, scale_log2: self.args.scale * std::f32::consts::LOG2_E };
                    // SAFETY: the weights are as many as the keys or one more.
                    let before = unsafe { (self.table.rows.softmax)(&scores, running, weights) };
                    if key > 0 && before != 1.0 {
                        let row = &mut sums[r * dims..][..dims];
                        // SAFETY: any length will do.
                        unsafe { (self.table.rows.scale)(before, RowMut::f32s(row)) }
                    }
                }
                let mode = if key == 0 { Sums::Start } else { Sums::GoOn };
                self.weighted(rows, weights, v, keys.len(), sums, &state, mode);
            }
            self.finish(places, head, &running, sums, dims);
        });
    }

    /// Scores of all rows against a block of keys.
    fn scores(&self, rows: usize, q: &[u8], k: &[u8], keys: usize, scores: &mut [f32], sizes: &Sizes) {
        let words = self.head_words();
        let a = Operand { bytes: q, stride_bytes: sizes.q_bytes, taps: &[0], words };
        let panels = k.chunks_exact(self.tile.panel_bytes(words));
        for (j, panel) in (0..keys).step_by(self.tile.cols).zip(panels) {
            self.tile.run(rows, a, Panel::of(panel), &mut scores[j..], sizes.scores_stride, Sums::Start);
        }
    }

    /// Adds the block's values, weighted, to the sums.
    #[allow(clippy::too_many_arguments, reason = "the parts of one matrix product")]
    fn weighted(
        &self,
        rows: usize,
        weights: &[u8],
        v: &[u8],
        keys: usize,
        sums: &mut [f32],
        sizes: &Sizes,
        mode: Sums,
    ) {
        let words = words_of(keys, self.work);
        let a = Operand { bytes: weights, stride_bytes: sizes.weights_bytes, taps: &[0], words };
        let panels = v.chunks_exact(self.tile.panel_bytes(words_of(BLOCK_KEYS, self.work)));
        for (j, panel) in (0..sizes.sums_stride).step_by(self.tile.cols).zip(panels) {
            self.tile.run(rows, a, Panel::of(panel), &mut sums[j..], sizes.sums_stride, mode);
        }
    }

    fn finish(&self, places: &[Place], head: usize, running: &[Running], sums: &[f32], stride: usize) {
        let cols = head * self.head_dim..(head + 1) * self.head_dim;
        for ((place, running), sums) in places.iter().zip(running).zip(sums.chunks_exact(stride)) {
            let sums = Row::f32s(&sums[..self.head_dim]);
            // SAFETY: a token's head is one job's, as sequences do not overlap; both rows have `head_dim` elements.
            unsafe {
                let to = self.outs[place.stream].part(place.row, cols.clone());
                (self.table.rows.scale_to)(sums, running.norm(), to);
            }
        }
    }
}

/// Distances between rows in a job's scratch.
struct Sizes {
    q_bytes: usize,
    /// In f32; one cache line more than the keys, so that rows do not fall into the same L1 sets.
    scores_stride: usize,
    weights_bytes: usize,
    /// In f32.
    sums_stride: usize,
}

impl Sizes {
    fn new(work: DType) -> Self {
        Self {
            q_bytes: 0,
            scores_stride: BLOCK_KEYS + 16,
            weights_bytes: BLOCK_KEYS * work.size_bytes() + 64,
            sums_stride: 0,
        }
    }
}
