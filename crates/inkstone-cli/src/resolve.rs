//! From flags, a stored request, settings and the model's defaults to the requests that are drawn.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};

use inkstone::Request;
use inkstone::codec::Metadata;
use inkstone::pipeline::Defaults;
use inkstone::request::{InitImage, Size, check_count};

use crate::args::{Seed, What};
use crate::config::Settings;
use crate::failure::{Failure, Result};

#[cfg(test)]
mod tests;

/// Where values come from, the place that wins first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) flags: &'a What,
    pub(crate) stored: Option<&'a Metadata>,
    pub(crate) settings: &'a Settings,
    pub(crate) defaults: &'a Defaults,
}

/// The most pictures of one command: their names are checked before the first is drawn.
const MAX_PICTURES: usize = 1000;

/// The requests, one for each prompt and seed, all checked. Every prompt has the same seeds; `init` gives the picture to
/// start from, once its size is known.
pub(crate) fn requests(
    sources: Sources<'_>,
    prompts: &[String],
    init: impl FnOnce(Size) -> Result<Option<InitImage>>,
) -> Result<Vec<Request>> {
    let size = sources.size();
    let mut first = Request {
        prompt: String::new(),
        negative_prompt: sources.negative_prompt(),
        width_px: size.width_px,
        height_px: size.height_px,
        steps: sources.pick(|w| w.steps, |r| r.steps, |s| s.steps, |d| d.steps),
        seed: 0,
        true_cfg_scale: sources.pick(
            |w| w.true_cfg_scale.or(w.guidance),
            |r| r.true_cfg_scale,
            |s| s.true_cfg_scale,
            |d| d.true_cfg_scale,
        ),
        init: None,
    };
    let seeds = sources.seeds()?;
    let pictures = prompts.len() * seeds.len();
    if pictures > MAX_PICTURES {
        let why = format!("{} prompts with {} seeds; {MAX_PICTURES} may be", prompts.len(), seeds.len());
        return Err(Failure::usage(
            format!("there are {pictures} pictures to draw"),
            why,
            "give fewer at a time",
        ));
    }
    first.validate()?;
    first.init = init(size)?;
    let mut requests = Vec::with_capacity(pictures);
    for prompt in prompts {
        for seed in &seeds {
            let request = Request { prompt: prompt.clone(), seed: *seed, ..first.clone() };
            request.validate()?;
            requests.push(request);
        }
    }
    Ok(requests)
}

impl Sources<'_> {
    fn pick<T>(
        &self,
        flag: impl Fn(&What) -> Option<T>,
        stored: impl Fn(&Metadata) -> Option<T>,
        setting: impl Fn(&Settings) -> Option<T>,
        default: impl Fn(&Defaults) -> T,
    ) -> T {
        flag(self.flags)
            .or_else(|| self.stored.and_then(stored))
            .or_else(|| setting(self.settings))
            .unwrap_or_else(|| default(self.defaults))
    }

    fn size(&self) -> Size {
        let native = Size { width_px: self.defaults.width_px, height_px: self.defaults.height_px };
        if let Some(size) = self.flags.size {
            return size;
        }
        if let Some(aspect) = self.flags.aspect {
            return aspect.size(native);
        }
        Size {
            width_px: self.pick(|w| w.width, |r| r.width_px, |s| s.width, |d| d.width_px),
            height_px: self.pick(|w| w.height, |r| r.height_px, |s| s.height, |d| d.height_px),
        }
    }

    /// A stored request without a negative prompt had none, and so has its replay.
    fn negative_prompt(&self) -> Option<String> {
        match (&self.flags.negative_prompt, self.stored) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(stored)) => stored.negative_prompt.clone(),
            (None, None) => {
                let setting = self.settings.negative_prompt.clone();
                Some(setting.unwrap_or_else(|| self.defaults.negative_prompt.clone()))
            }
        }
    }

    fn seeds(&self) -> Result<Vec<u64>> {
        let count = self.flags.count.unwrap_or(1);
        check_count(count)?;
        let stored = self.stored.and_then(|r| r.seed).map(Seed::Fixed);
        let first = stored.or(self.settings.seed).unwrap_or(Seed::Random);
        match self.flags.seed.as_slice() {
            [] => Ok(consecutive(first, count)),
            [seed] => Ok(consecutive(*seed, count)),
            seeds if count == 1 => Ok(seeds.iter().flat_map(|seed| consecutive(*seed, 1)).collect()),
            seeds => {
                let why = format!("{} seeds are given, and --count {count}", seeds.len());
                Err(Failure::usage(
                    "--count and several --seed do not go together",
                    why,
                    "give one --seed, or no --count",
                ))
            }
        }
    }
}

fn consecutive(first: Seed, count: usize) -> Vec<u64> {
    let first = match first {
        Seed::Fixed(seed) => seed,
        Seed::Random => random_seed(),
    };
    (0..count as u64).map(|i| first.wrapping_add(i)).collect()
}

/// A seed that nobody chose, short enough to type again. The standard library's hash keys come from the system's
/// random numbers.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}
