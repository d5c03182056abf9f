//! Tensors, fused operations and devices for the Inkstone picture engine.
//!
//! This crate knows no model. It offers a [`Tensor`] (a dtype, a shape and bytes on some [`Device`]), one list
//! of operations ([`ops`]) that check shapes and hand the work to the device's [`Backend`], and the CPU backend.
//!
//! Operations enqueue; only [`Tensor::to_f32`] and [`Tensor::to_bytes`] wait. The CPU runs at once under the
//! same contract. It is the only crate of the workspace that contains `unsafe`.

mod buffer;
pub mod cpu;
mod device;
mod disk;
mod dtype;
mod error;
mod fetch;
mod ledger;
pub mod mapped;
pub mod ops;
mod pages;
mod quant;
pub mod regular;
mod shape;
mod storage;
mod tensor;
mod weight;

pub use buffer::{AlignedBuffer, Pool, arenas_bytes, return_freed_blocks, with_room};
pub use device::{Backend, Device};
pub use disk::{disk_read_speed, free_disk_bytes};
pub use dtype::DType;
pub use error::{Error, Result};
pub use fetch::DiskPart;
pub use ledger::{Counted, CountedFile, Footprint, Ledger, Products, StandIns};
pub use mapped::MappedFile;
pub use pages::Pages;
pub use quant::{Affine, AffineBits, BlockFormat, Blocks, ConvRot, Float8, Float8Kind, Quantized};
pub use shape::Shape;
pub use storage::Storage;
pub use tensor::Tensor;
pub use weight::{Int8Weight, Weight};

pub use half::{bf16, f16};
