//! Layers shared by the models. A layer knows its weights and the type in which its output travels; only
//! [`linear`] and [`conv`] know that weights have formats.

pub mod attention;
pub mod conv;
pub mod linear;
pub mod mlp;
pub mod modulate;
pub mod norm;
pub mod rope;
pub mod strips;
pub mod timestep;
