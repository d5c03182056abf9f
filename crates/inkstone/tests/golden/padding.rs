//! Rows of real models are padded, those of the small fixtures are not: here every row is, memory is full of NaN, and
//! nothing may change.

use std::sync::Arc;

use inkstone_tensor::ops::{
    AffineParts, Attention, ChannelNorm, Conv2d, Elementwise, Int8Rows, LayerNorm, Linear, Mix,
    QuantizeAffine, QuantizeInt8, RmsNorm, RopeNorm,
};
use inkstone_tensor::{Backend, DType, Device, Result, Storage, Tensor, Weight, cpu};

/// Elements behind each row.
const PADDING: usize = 16;

/// Four of them are an f32 NaN, two a bf16 NaN.
const NAN_BYTE: u8 = 0xff;

/// The processor, with another opinion about rows.
#[derive(Debug)]
struct Padded(cpu::Cpu);

pub(crate) fn device() -> Device {
    let options = cpu::Options { threads: Some(2), isa: None };
    Device::from_backend(Arc::new(Padded(cpu::Cpu::new(&options).unwrap())))
}

impl Backend for Padded {
    fn name(&self) -> String {
        self.0.name()
    }
    fn alloc(&self, bytes: usize) -> Result<Storage> {
        let mut storage = self.0.alloc(bytes)?;
        if let Some(bytes) = storage.bytes_mut() {
            bytes.fill(NAN_BYTE);
        }
        Ok(storage)
    }
    fn held_bytes(&self) -> usize {
        self.0.held_bytes()
    }
    fn trim(&self) {
        self.0.trim();
    }
    fn row_stride(&self, _: DType, cols: usize) -> usize {
        cols + PADDING
    }
    fn multiplies_bf16(&self) -> bool {
        self.0.multiplies_bf16()
    }
    fn wait(&self) {
        self.0.wait();
    }
    fn linear(&self, args: &Linear<'_>, out: &mut Tensor) -> Result<()> {
        self.0.linear(args, out)
    }
    fn quantize_int8(&self, args: &QuantizeInt8<'_>, out: Int8Rows<'_>) -> Result<()> {
        self.0.quantize_int8(args, out)
    }
    fn quantize_affine(&self, args: &QuantizeAffine<'_>, out: AffineParts<'_>) -> Result<()> {
        self.0.quantize_affine(args, out)
    }
    fn attention(&self, args: &Attention<'_>, out: &mut [Tensor]) -> Result<()> {
        self.0.attention(args, out)
    }
    fn conv2d(&self, args: &Conv2d<'_>, out: &mut Tensor) -> Result<()> {
        self.0.conv2d(args, out)
    }
    fn layer_norm(&self, args: &LayerNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.0.layer_norm(args, out)
    }
    fn rms_norm(&self, args: &RmsNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.0.rms_norm(args, out)
    }
    fn rope_norm(&self, args: &RopeNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.0.rope_norm(args, out)
    }
    fn mix(&self, args: &Mix<'_>, out: &mut Tensor) -> Result<()> {
        self.0.mix(args, out)
    }
    fn channel_norm(&self, args: &ChannelNorm<'_>, out: &mut Tensor) -> Result<()> {
        self.0.channel_norm(args, out)
    }
    fn elementwise(&self, args: &Elementwise<'_>, out: &mut Tensor) -> Result<()> {
        self.0.elementwise(args, out)
    }
    fn embedding(&self, table: &Weight, ids: &[u32], out: &mut Tensor) -> Result<()> {
        self.0.embedding(table, ids, out)
    }
    fn concat_rows(&self, parts: &[&Tensor], out: &mut Tensor) -> Result<()> {
        self.0.concat_rows(parts, out)
    }
}
