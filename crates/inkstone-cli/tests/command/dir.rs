//! A folder of its own for each test, and the command started in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// An empty folder that is removed with the test.
pub(crate) struct Dir(TempDir);

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Names of all files in the folder, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let entry = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(self.0.path()).unwrap().map(entry).collect();
        names.sort();
        names
    }

    /// The command in this folder.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.started(env!("CARGO_BIN_EXE_inkstone"));
        command.args(args);
        command
    }

    /// A script of `sh` or `bash` in this folder, whose `$0` is the command.
    pub(crate) fn script(&self, shell: &str, script: &str) -> Command {
        let mut command = self.started(shell);
        command.args(["-c", script, env!("CARGO_BIN_EXE_inkstone")]);
        command
    }

    /// A program in this folder, with nothing in its environment that could change what the command does, and as many threads
    /// on every machine: memory is planned for each, and limits of it say what is refused.
    pub(crate) fn started(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let ours = name.to_str().is_some_and(|n| n.starts_with("INKSTONE_") && n != "INKSTONE_CPU");
            if ours || ["XDG_CONFIG_HOME", "NO_COLOR", "TERM"].iter().any(|n| name == *n) {
                command.env_remove(name);
            }
        }
        command.env("INKSTONE_THREADS", "2");
        command.current_dir(self.0.path()).env("HOME", self.0.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        finish(&mut self.command(args))
    }

    /// Runs what must work; gives standard output.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.stdout
    }

    /// Runs what must be refused in three lines with this code, nothing being left behind; gives the three lines.
    pub(crate) fn refused<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        code: &str,
        exit: i32,
    ) -> String {
        let before = self.files();
        let run = self.run(args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(exit), ""), "{run:#?}");
        let at =
            run.stderr.find(&format!("error[{code}]: ")).unwrap_or_else(|| panic!("no {code}: {run:#?}"));
        let lines: Vec<&str> = run.stderr[at..].lines().collect();
        let three = lines.len() == 3 && lines[1].starts_with("  why: ") && lines[2].starts_with("  try: ");
        assert!(three, "{lines:#?}");
        assert_eq!(self.files(), before);
        run.stderr[at..].to_owned()
    }
}

pub(crate) fn finish(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The model in the repository, which is also the one in the program.
pub(crate) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny")
}

/// A fixture in the repository.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

/// A copy of the model that shares its files, except those that the caller writes anew.
pub(crate) fn copy_model(to: &Path) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            match entry.file_type().unwrap().is_dir() {
                true => copy(&from, &to),
                false => fs::copy(&from, &to).map(drop).unwrap(),
            }
        }
    }
    copy(&tiny(), to);
}

/// Whether two PNGs have the same pixels.
pub(crate) fn same_pixels(a: &Path, b: &Path) -> bool {
    pixels(a) == pixels(b)
}

/// The pixels of a PNG.
pub(crate) fn pixels(path: &Path) -> inkstone::Pixels {
    inkstone::codec::read_image(&fs::read(path).unwrap()).unwrap()
}

/// Few steps: these tests are not about the picture.
const QUICK: [&str; 4] = ["--steps", "2", "--seed", "7"];

pub(crate) fn quick<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [args, &QUICK].concat()
}
