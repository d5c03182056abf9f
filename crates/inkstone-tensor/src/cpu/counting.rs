//! The processor without its work: takes memory as [`Cpu`](super::Cpu) does, but only in a ledger.

use std::sync::Arc;

use super::table::Table;
use super::{attention, conv, gemm, int8, row_stride, turned};
use crate::ops::{
    AffineParts, Attention, ChannelNorm, Conv2d, Elementwise, Int8Rows, LayerNorm, Linear, Mix,
    QuantizeAffine, QuantizeInt8, RmsNorm, RopeNorm,
};
use crate::{Backend, DType, Error, Ledger, Products, Result, Storage, Tensor, Weight};

/// A processor that counts.
#[derive(Debug)]
pub(super) struct Counting {
    ledger: Arc<Ledger>,
    table: &'static Table,
    threads: usize,
}

impl Counting {
    pub(super) fn new(ledger: Arc<Ledger>, table: &'static Table, threads: usize) -> Self {
        Self { ledger, table, threads }
    }

    /// What is done to rows without a product of matrices.
    fn rows(&self, out: &Tensor) {
        self.ledger.add(Products { elements: out.shape().count() as f64, ..Products::default() });
    }

    /// Each thread keeps the largest scratch that it ever needed.
    fn scratch(&self, bytes: usize) {
        self.ledger.scratch(self.threads * bytes);
    }
}

fn read_weight(weight: &Weight) {
    weight.tensors().into_iter().for_each(Tensor::count_read);
}

impl Backend for Counting {
    fn name(&self) -> String {
        format!("cpu ({}, {} threads, counting)", self.table.name, self.threads)
    }

    fn alloc(&self, bytes: usize) -> Result<Storage> {
        let out_of_memory = || Error::OutOfMemory { device: self.name(), wanted_bytes: bytes };
        self.ledger.take(bytes).map(Storage::Counted).ok_or_else(out_of_memory)
    }

    fn held_bytes(&self) -> usize {
        self.ledger.now().pool_bytes
    }

    fn trim(&self) {
        self.ledger.trim();
    }

    fn row_stride(&self, dtype: DType, cols: usize) -> usize {
        row_stride(dtype, cols)
    }

    fn multiplies_bf16(&self) -> bool {
        self.table.multiplies_bf16()
    }

    fn wait(&self) {}

    fn quantize_int8(&self, args: &QuantizeInt8<'_>, _out: Int8Rows<'_>) -> Result<()> {
        args.matrix.count_read();
        self.scratch(args.matrix.cols() * DType::F32.size_bytes());
        Ok(())
    }

    fn linear(&self, args: &Linear<'_>, _out: &mut Tensor) -> Result<()> {
        read_weight(args.weight);
        args.bias.into_iter().for_each(Tensor::count_read);
        args.terms.iter().for_each(|term| read_weight(term.weight));
        let (rows, cols, k) = (args.x.rows(), args.weight.n_out(), args.x.cols());
        self.ledger.add(Products { linear: product([rows, cols, k]), ..Products::default() });
        if matches!(args.weight, Weight::Int8(_)) {
            drop(self.ledger.take(int8::rounded_bytes(rows, k)));
        }
        let _rotated = gemm::rotated(args).map(|_| gemm::rotated_rows(args.x));
        if let Some(tile) = turned::tile(self.table, args) {
            drop(self.ledger.take(turned::packed_bytes(tile, args)));
            self.scratch(turned::scratch_bytes(tile, args));
            return Ok(());
        }
        let (tile, _) = self.table.tile(args.x.dtype());
        let (high, wide) = (rows.min(gemm::BLOCK_ROWS) + tile.rows(), cols.min(gemm::BLOCK_COLS) + tile.cols);
        let words = gemm::BLOCK_WORDS.min(k);
        // Sums, a copy of the activations, a panel and the rows it is made of.
        let most = args.terms.iter().map(|term| term.x.cols()).max().unwrap_or(0);
        let rank = most.min(2 * gemm::BLOCK_WORDS);
        let term = if rank > 0 { high * (rank + 16) + 2 * tile.cols * rank } else { 0 };
        // As many sums where blocks of rows share panels, and no copy, which is more than the panels.
        self.scratch(4 * (high * wide + high * (words + 16) + 2 * tile.cols * words + term));
        Ok(())
    }

    fn attention(&self, args: &Attention<'_>, _out: &mut [Tensor]) -> Result<()> {
        for bytes in attention::packing_bytes(self.table, self.threads, args) {
            drop(self.ledger.take(bytes));
        }
        let Some(first) = args.streams.first() else { return Ok(()) };
        let pairs: f64 =
            args.sequences.iter().map(|s| s.iter().map(|r| r.len() as f64).sum::<f64>().powi(2)).sum();
        let products = 2.0 * pairs * first.q.cols() as f64;
        self.ledger.add(Products { attention: products, ..Products::default() });
        self.scratch(attention::scratch_bytes(self.table, args));
        Ok(())
    }

    fn conv2d(&self, args: &Conv2d<'_>, out: &mut Tensor) -> Result<()> {
        read_weight(&args.weight.matrix);
        args.bias.count_read();
        args.norm.into_iter().for_each(|norm| norm.gamma.count_read());
        let (taps, c_in) = (args.weight.kernel * args.weight.kernel, args.x.cols());
        self.ledger
            .add(Products { conv: product([out.rows(), out.cols(), taps * c_in]), ..Products::default() });
        let (&[n, h, w, _], &[_, h_out, w_out, _]) = (args.x.shape().dims(), out.shape().dims()) else {
            return Ok(());
        };
        if !matches!(args.weight.matrix, Weight::Int8(_)) {
            self.scratch(conv::scratch_bytes(self.table, args, [h_out, w_out]));
        } else if conv::is_pointwise(args) {
            drop(self.ledger.take(int8::rounded_bytes(args.x.rows(), c_in)));
        } else {
            drop(self.ledger.take(conv::rounded_bytes(args, [n, h, w], w_out)));
            self.scratch(conv::int8_scratch_bytes(self.table, args, [h, w], [h_out, w_out]));
        }
        Ok(())
    }

    fn layer_norm(&self, _args: &LayerNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.rows(out);
        Ok(())
    }

    fn rms_norm(&self, args: &RmsNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.rows(out);
        args.weight.count_read();
        Ok(())
    }

    fn rope_norm(&self, args: &RopeNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.rows(out);
        args.norm.into_iter().for_each(|(weight, _)| weight.count_read());
        Ok(())
    }

    fn mix(&self, args: &Mix<'_>, out: &mut Tensor) -> Result<()> {
        args.weight.count_read();
        drop(self.ledger.take(args.weight.shape().count() * DType::F32.size_bytes()));
        let sizes = [out.rows(), out.cols(), args.weight.cols()];
        self.ledger.add(Products { linear: product(sizes), ..Products::default() });
        Ok(())
    }

    fn channel_norm(&self, args: &ChannelNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.rows(out);
        args.gamma.count_read();
        Ok(())
    }

    fn elementwise(&self, args: &Elementwise<'_>, out: &mut Tensor) -> Result<()> {
        self.rows(out);
        // Vectors are converted from where they lie; what the others read was computed.
        if let Elementwise::Convert(x) = args {
            x.count_read();
        }
        Ok(())
    }

    fn embedding(&self, table: &Weight, ids: &[u32], _out: &mut Tensor) -> Result<()> {
        for (tensor, id) in table.tensors().into_iter().flat_map(|t| ids.iter().map(move |id| (t, id))) {
            if let Ok(row) = tensor.rows_range(*id as usize..*id as usize + 1) {
                row.count_read();
            }
        }
        Ok(())
    }

    fn concat_rows(&self, _parts: &[&Tensor], out: &mut Tensor) -> Result<()> {
        self.rows(out);
        Ok(())
    }

    fn quantize_affine(&self, args: &QuantizeAffine<'_>, _out: AffineParts<'_>) -> Result<()> {
        args.matrix.count_read();
        Ok(())
    }
}

fn product(sizes: [usize; 3]) -> f64 {
    sizes.iter().map(|size| *size as f64).product()
}
