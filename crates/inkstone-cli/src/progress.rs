//! Shows how far a picture is, and remembers what each stage took.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use inkstone::progress::{CancelToken, Observer, Stage};
use serde_json::json;

use crate::failure::Failure;
use crate::terminal::{Shown, Terminal};

#[cfg(test)]
mod tests;

/// Between two lines of progress where there is no bar.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Steps that tell how long the next ones take: enough to smooth them, few enough to notice another load.
const WINDOW: usize = 8;

/// How fast parts follow each other.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    begun: Instant,
    /// When the last parts ended, at most one more than [`WINDOW`].
    ends: VecDeque<Instant>,
}

impl Pace {
    pub(crate) fn new(begun: Instant) -> Self {
        Self { begun, ends: VecDeque::with_capacity(WINDOW + 2) }
    }

    /// Seconds that a part takes, as another one has ended. The first also warms caches up and touches the weights,
    /// so it counts only while it is the only one.
    pub(crate) fn part_s(&mut self, now: Instant) -> f64 {
        self.ends.push_back(now);
        if self.ends.len() > WINDOW + 1 {
            self.ends.pop_front();
        }
        let (since, parts) = match self.ends.len() {
            1 => (self.begun, 1),
            ends => (self.ends[0], ends - 1),
        };
        #[allow(clippy::cast_precision_loss, reason = "at most the window")]
        let parts = parts as f64;
        now.duration_since(since).as_secs_f64() / parts
    }
}

/// What a stage took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) stage: Stage,
    pub(crate) seconds: f64,
    /// The process's peak memory when it ended, where the system tells.
    pub(crate) peak_bytes: Option<u64>,
}

/// A stage that is under way.
#[derive(Debug)]
struct Running {
    stage: Stage,
    total: usize,
    begun: Instant,
    pace: Pace,
    line_at: Instant,
    bar: ProgressBar,
}

/// Looks on while a picture is drawn.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    terminal: &'a Terminal,
    cancel: CancelToken,
    running: Option<Running>,
    pub(crate) taken: Vec<Taken>,
    /// Why events could not be written; the run is cancelled then.
    pub(crate) failed: Option<Failure>,
}

impl<'a> Progress<'a> {
    /// The switch of the run it looks at.
    pub(crate) fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    pub(crate) fn new(terminal: &'a Terminal, cancel: CancelToken) -> Self {
        Self { terminal, cancel, running: None, taken: Vec::new(), failed: None }
    }

    fn event(&mut self, event: &serde_json::Value) {
        if let Err(failure) = self.terminal.event(event) {
            self.cancel.cancel();
            self.failed.get_or_insert(failure);
        }
    }
}

impl Observer for Progress<'_> {
    fn begin(&mut self, stage: Stage, total: usize) {
        let now = Instant::now();
        let bar = match self.terminal.progress {
            Shown::Bar => bar(stage, total),
            _ => ProgressBar::hidden(),
        };
        if self.terminal.progress == Shown::Events {
            self.event(&json!({"event": "stage", "stage": stage.name(), "total": total}));
        }
        self.running = Some(Running { stage, total, begun: now, pace: Pace::new(now), line_at: now, bar });
    }

    fn advance(&mut self, stage: Stage, done: usize) {
        let Some(running) = self.running.as_mut().filter(|r| r.stage == stage) else { return };
        let now = Instant::now();
        let part_s = running.pace.part_s(now);
        #[allow(clippy::cast_precision_loss, reason = "a few hundred parts")]
        let left_s = running.total.saturating_sub(done) as f64 * part_s;
        let total = running.total;
        match self.terminal.progress {
            Shown::Bar => {
                running.bar.set_message(if done < total { speed(part_s, left_s) } else { String::new() });
                running.bar.set_position(done as u64);
            }
            Shown::Lines if done < total && now.duration_since(running.line_at) >= LINE_INTERVAL => {
                running.line_at = now;
                self.terminal.note(&format!("{} {done}/{total}  {}", stage.name(), speed(part_s, left_s)));
            }
            Shown::Events => self.event(&json!({
                "event": "progress", "stage": stage.name(), "done": done, "total": total,
                "seconds_a_part": part_s, "seconds_left": left_s,
            })),
            Shown::Lines | Shown::Nothing => {}
        }
    }

    fn end(&mut self, stage: Stage) {
        let Some(running) = self.running.take().filter(|r| r.stage == stage) else { return };
        let seconds = running.begun.elapsed().as_secs_f64();
        running.bar.finish_and_clear();
        if self.terminal.progress == Shown::Lines {
            let steps = if running.total > 1 { format!("  {} steps", running.total) } else { String::new() };
            self.terminal.note(&format!("{:8} {seconds:.2} s{steps}", stage.name()));
        }
        self.taken.push(Taken { stage, seconds, peak_bytes: inkstone::memory::peak_bytes() });
    }

    fn warn(&mut self, warning: &str) {
        match &self.running {
            Some(running) => running.bar.suspend(|| self.terminal.warn(warning)),
            None => self.terminal.warn(warning),
        }
        if self.terminal.json() {
            self.event(&json!({"event": "warning", "text": warning}));
        }
    }
}

impl Drop for Progress<'_> {
    /// A run that ends amid a stage leaves no half bar above its error.
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.bar.finish_and_clear();
        }
    }
}

fn bar(stage: Stage, total: usize) -> ProgressBar {
    const FRAMES_A_SECOND: u8 = 10;
    let target = ProgressDrawTarget::stderr_with_hz(FRAMES_A_SECOND);
    let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_prefix(stage.name());
    let template = if total > 1 { "{prefix:8} {bar:24} {pos}/{len}  {msg}" } else { "{prefix}" };
    // The templates are constants; a wrong one would show the default bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.tick();
    bar
}

/// Seconds a part and time left, in words.
fn speed(part_s: f64, left_s: f64) -> String {
    format!("{} a step, {} left", duration(part_s), duration(left_s))
}

/// A duration with as many digits as anybody reads.
pub(crate) fn duration(seconds: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "durations are small and positive"
    )]
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 9.95 => format!("{s:.2} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5970.0 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A table of stages with seconds and peak memory.
pub(crate) fn table(taken: &[Taken]) -> String {
    let mut lines = vec!["stage      seconds   peak memory".to_owned()];
    let total = taken.iter().map(|t| t.seconds).sum();
    let most = taken.iter().filter_map(|t| t.peak_bytes).max();
    let rows = taken.iter().map(|t| (t.stage.name(), t.seconds, t.peak_bytes));
    for (name, seconds, peak) in rows.chain([("total", total, most)]) {
        let peak = peak.map_or_else(|| "not known".into(), |bytes| format!("{} MiB", bytes >> 20));
        lines.push(format!("{name:8} {seconds:9.3}   {peak:>11}"));
    }
    lines.join("\n")
}
