//! The inkstone command.
#![forbid(unsafe_code)]

fn main() {}
