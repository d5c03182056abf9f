//! `completions` and `man`: made from the declaration of the flags.

use clap::{Command, CommandFactory as _};

use crate::args::{Cli, Common, with_fields};
use crate::failure::{Failure, Result};
use crate::terminal::Terminal;

pub(super) fn completions(shell: clap_complete::Shell, common: &Common) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "inkstone", &mut script);
    Terminal::new(common).print(&with_fields(&String::from_utf8_lossy(&script)))
}

/// One page for the program and all of its commands.
pub(super) fn manual(common: &Common) -> Result<()> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    let render = |command: Command, page: &mut Vec<u8>| {
        clap_mangen::Man::new(command)
            .render(page)
            .map_err(|e| Failure::write("the manual page".as_ref(), &e))
    };
    render(command.clone(), &mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        render(sub.clone(), &mut page)?;
    }
    Terminal::new(common).print(&with_fields(&String::from_utf8_lossy(&page)))
}
