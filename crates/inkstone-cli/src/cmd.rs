//! From arguments to a command, and from its result to an exit code.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command, Common, Draw, peers, with_fields};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::terminal::Terminal;
use crate::warnings;

mod bench;
mod convert;
mod generate;
mod info;
mod interactive;
mod lora;
mod plan;
mod settings;
mod shell;

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) terminal: Terminal,
    pub(crate) config: Config,
    pub(crate) interrupt: Interrupt,
}

impl Session {
    fn start(common: &Common) -> Result<Self> {
        let config = Config::load(common, &Terminal::new(common))?;
        let terminal = Terminal::new(&config.complete(common));
        warnings::tell(&terminal);
        Ok(Self { terminal, config, interrupt: Interrupt::listen() })
    }
}

/// Runs the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    // Until the arguments are read, only this much is known of how to speak.
    let json = args.iter().any(|arg| arg == "--json");
    let mut common = Common { json, ..Common::default() };
    match parse(args).and_then(|cli| {
        cli.map_or(Ok(()), |cli| {
            common = cli.common.clone();
            dispatch(cli)
        })
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let terminal = Terminal::new(&common);
            match &failure {
                Failure::Told(told) => terminal.error(told),
                Failure::Help(help) => terminal.note(help),
                Failure::Closed => {}
            }
            failure.exit_code()
        }
    }
}

/// The arguments; `None` if they only asked for help.
fn parse(args: Vec<OsString>) -> Result<Option<Cli>> {
    let first = args.get(1).and_then(|arg| arg.to_str());
    if let Some(later) = first.filter(|word| peers::LATER_COMMANDS.contains(word)) {
        let what = format!("this version has no command {later}");
        return Err(Failure::usage(what, "a later one will", format!("inkstone -p {later} draws the word")));
    }
    let names = Cli::command();
    let command = first.filter(|word| names.find_subcommand(word).is_some()).map(str::to_owned);
    match Cli::try_parse_from(args) {
        Ok(cli) => Ok(Some(cli)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Terminal::new(&Common::default()).print(&with_fields(&error.to_string()))?;
            Ok(None)
        }
        Err(error) => Err(Failure::arguments(&error, command.as_deref())),
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    if cli.command.is_some() && cli.draw != Draw::default() {
        let why = "a prompt or a flag of drawing comes before it";
        return Err(Failure::usage(
            "a command comes first",
            why,
            "inkstone generate \"a red apple\" --steps 20",
        ));
    }
    match cli.command {
        Some(Command::Completions { shell }) => shell::completions(shell, &cli.common),
        Some(Command::Man) => shell::manual(&cli.common),
        Some(Command::Config(config)) => settings::run(config, &cli.common, &Session::start(&cli.common)?),
        Some(Command::Bench(args)) => bench::run(&args, &Session::start(&cli.common)?),
        Some(Command::Plan(args)) => plan::run(&args, &Session::start(&cli.common)?),
        Some(Command::Convert(args)) => convert::run(&args, &Session::start(&cli.common)?),
        Some(Command::Lora(command)) => lora::run(&command, &Session::start(&cli.common)?),
        Some(Command::Info(args)) => info::run(&args, &Session::start(&cli.common)?),
        Some(Command::Generate(draw)) => generate::run(&draw, &Session::start(&cli.common)?),
        None if has_prompt(&cli.draw) => generate::run(&cli.draw, &Session::start(&cli.common)?),
        None if io::stdin().is_terminal() && io::stderr().is_terminal() && !cli.draw.how.dry_run => {
            interactive::run(&cli.draw, &Session::start(&cli.common)?)
        }
        None if env::args_os().len() > 1 => Err(Failure::no_prompt()),
        None => Err(Failure::Help(with_fields(&Cli::command().render_help().to_string()))),
    }
}

fn has_prompt(draw: &Draw) -> bool {
    draw.words.is_some()
        || !draw.what.prompt.is_empty()
        || draw.what.prompt_file.is_some()
        || draw.what.prompts_file.is_some()
        || draw.config_from_metadata.is_some()
}
