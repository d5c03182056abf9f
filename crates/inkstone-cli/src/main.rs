//! The inkstone command.
#![forbid(unsafe_code)]

mod args;
mod cmd;
mod config;
mod drawing;
mod failure;
mod interrupt;
mod output;
mod progress;
mod prompts;
mod record;
mod resolve;
mod saving;
mod terminal;
mod warnings;

fn main() -> std::process::ExitCode {
    inkstone::memory::return_freed_blocks();
    cmd::run(std::env::args_os().collect())
}
