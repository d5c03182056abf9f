//! Every operation on every instruction set that this machine has, against plain f64 definitions.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here, in functions beside the tests too")]

mod affine;
mod copies;
mod determinism;
mod elementwise;
mod host;
mod images;
mod int8;
mod int8_conv;
mod matrix;
mod mix;
mod quantized;
mod refusals;
mod rows;
mod taps;
mod tolerance;
