//! The command as its user meets it: arguments in; files, streams and an exit code out.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail with the test")]

#[path = "command/batches.rs"]
mod batches;
#[path = "command/dir.rs"]
mod dir;
#[path = "command/drawing.rs"]
mod drawing;
#[path = "command/faults.rs"]
mod faults;
#[cfg(target_os = "linux")]
#[path = "command/group.rs"]
mod group;
#[path = "command/loras.rs"]
mod loras;
#[path = "command/memory.rs"]
mod memory;
#[cfg(target_os = "linux")]
#[path = "command/pictures.rs"]
mod pictures;
#[cfg(unix)]
#[path = "command/pipes.rs"]
mod pipes;
#[path = "command/replay.rs"]
mod replay;
#[path = "command/settings.rs"]
mod settings;
#[cfg(unix)]
#[path = "command/signals.rs"]
mod signals;
#[path = "command/speed.rs"]
mod speed;
#[cfg(target_os = "linux")]
#[path = "command/terminal.rs"]
mod terminal;
