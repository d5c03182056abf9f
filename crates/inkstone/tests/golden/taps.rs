//! Fixtures, models of `golden/data`, and the walk along the taps of a forward.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use inkstone::progress::{Context, Tap};
use inkstone::weights::{Loader, Residence, SafeTensors, Strictness};
use inkstone_tensor::{DType, Device, Tensor, cpu};

/// f32 runs: every tap within this part of the tap's largest magnitude.
pub(crate) const F32_TOLERANCE: f32 = 1e-4;

/// bf16 runs: how far a tap may be from the f32 reference, as a part of its largest magnitude, behind so many layers
/// whose results are rounded to bf16. A rounding moves a value by up to half a step, 2^-7 / 2 over the value's significand m
/// in 1..2. The root of its mean square is 2^-8 sqrt(1/3) sqrt(mean of 1/m^2) = 2^-8 sqrt(1/6), below 2^-9. Roundings are
/// independent, so their squares add up; four times that for the largest error of a tensor of a few thousand values.
pub(crate) fn bf16_bound(roundings: u8) -> f32 {
    const MEAN_ROUNDING: f32 = 1.0 / 512.0;
    4.0 * f32::from(roundings).sqrt() * MEAN_ROUNDING
}

/// A file of `golden/data`.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/data").join(name)
}

pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

pub(crate) fn device(threads: usize) -> Device {
    Device::cpu(&cpu::Options { threads: Some(threads), isa: None }).unwrap()
}

/// The tensors of a component of a model folder; a tensor that the model does not take is an error.
pub(crate) fn loader(file: &str, device: &Device, activations: DType) -> Loader<'static> {
    let file = SafeTensors::open(&path(file), device, Residence::Mapped).unwrap();
    Loader::new("golden", device, activations, file.tensors).with_strictness(Strictness::RefuseExtra)
}

/// Inputs and expected taps of one forward.
pub(crate) struct Fixture {
    file: SafeTensors,
}

impl Fixture {
    pub(crate) fn open(name: &str) -> Self {
        let path = path(&format!("{name}.safetensors"));
        Self { file: SafeTensors::open(&path, &device(1), Residence::Owned).unwrap() }
    }

    pub(crate) fn dims(&self, name: &str) -> Vec<usize> {
        self.file.tensors[name].shape().dims().to_vec()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        self.file.tensors[name].to_f32().unwrap()
    }

    /// The elements of a byte tensor.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.file.tensors[name].to_bytes()
    }

    pub(crate) fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.file.i64s(name)
    }

    /// A field of the notes beside the tensors.
    pub(crate) fn about(&self, field: &str) -> serde_json::Value {
        let about: serde_json::Value = serde_json::from_str(&self.file.metadata["about"]).unwrap();
        about[field].clone()
    }

    fn has(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    fn float_names(&self) -> impl Iterator<Item = &String> {
        self.file.tensors.iter().filter(|(_, t)| t.dtype().is_float()).map(|(name, _)| name)
    }
}

/// Keeps what a forward shows, in its order.
#[derive(Default)]
pub(crate) struct Recorder {
    seen: RefCell<Vec<(String, Vec<f32>)>>,
}

impl Tap for Recorder {
    fn see(&self, name: fmt::Arguments<'_>, tensor: &Tensor) {
        self.seen.borrow_mut().push((name.to_string(), tensor.to_f32().unwrap()));
    }
}

impl Recorder {
    pub(crate) fn context(&self) -> Context<'_> {
        Context { cancel: None, tap: Some(self) }
    }

    /// Walks the taps in the forward's order and stops at the first that is farther from the fixture than `allowed`
    /// says, or has a value that is not finite. `arrange` gives the fixture's tensor in our layout. Every float
    /// tensor of the fixture that is not an input must be met.
    pub(crate) fn compare(
        &self,
        title: &str,
        fixture: &Fixture,
        inputs: &[&str],
        arrange: impl Fn(&str, &[f32]) -> Vec<f32>,
        allowed: impl Fn(&str) -> f32,
    ) {
        let seen = self.seen.borrow();
        let mut worst = (0.0, "nothing");
        for (name, got) in seen.iter().filter(|(name, _)| fixture.has(name)) {
            let want = arrange(name, &fixture.values(name));
            let error = difference(got, &want).unwrap_or_else(|why| panic!("{title}: {name}: {why}"));
            assert!(
                error.relative <= allowed(name),
                "{title}: {name} is the first tap that diverges: {error}, allowed is {:.1e}",
                allowed(name)
            );
            if error.relative > worst.0 {
                worst = (error.relative, name);
            }
        }
        for name in fixture.float_names().filter(|name| !inputs.contains(&name.as_str())) {
            assert!(seen.iter().any(|(seen, _)| seen == name), "{title}: the forward never showed {name}");
        }
        println!("{title}: largest relative error {:.1e} at {}", worst.0, worst.1);
    }
}

/// How far values are from the reference.
pub(crate) struct Difference {
    max: f32,
    mean: f32,
    /// The largest error as a part of the reference's largest magnitude.
    pub(crate) relative: f32,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max error {:.2e}, mean {:.2e}, relative {:.2e}", self.max, self.mean, self.relative)
    }
}

pub(crate) fn difference(got: &[f32], want: &[f32]) -> Result<Difference, String> {
    if got.len() != want.len() {
        return Err(format!("{} values, expected {}", got.len(), want.len()));
    }
    if let Some(at) = got.iter().position(|v| !v.is_finite()) {
        return Err(format!("element {at} is {}", got[at]));
    }
    let errors = || got.iter().zip(want).map(|(a, b)| (a - b).abs());
    let max = errors().fold(0.0, f32::max);
    let mean = errors().sum::<f32>() / got.len().max(1) as f32;
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    Ok(Difference { max, mean, relative: max / largest })
}
