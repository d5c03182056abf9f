//! Classifier-free guidance: away from what the negative prompt predicts.

use inkstone_tensor::{Tensor, ops};
use ops::Rescale;

use crate::Result;

/// How strongly a drawing is guided, and how the result is rescaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// 1 is the prompt's own prediction.
    pub scale: f32,
    /// What happens to the length of each token's prediction; [`Rescale::ToConditional`] in Qwen-Image 1.x.
    pub rescale: Rescale,
}

impl Guidance {
    /// The guidance of a request, or `None` where the reference runs the prompt alone: it wants a scale above 1 and
    /// a negative prompt, which may be empty.
    #[must_use]
    pub fn for_request(scale: f32, negative_prompt: Option<&str>, rescale: Rescale) -> Option<Self> {
        (scale > 1.0 && negative_prompt.is_some()).then_some(Self { scale, rescale })
    }

    /// The guided prediction from those of the prompt and the negative prompt.
    ///
    /// # Shapes
    /// `[tokens, channels]`, all three.
    ///
    /// # Errors
    /// Shapes that differ, no memory.
    pub fn combine(&self, cond: &Tensor, uncond: &Tensor) -> Result<Tensor> {
        Ok(ops::guidance(cond, uncond, self.scale, self.rescale)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{Guidance, Rescale};

    #[test]
    fn it_runs_with_a_negative_prompt_and_a_scale_above_one_only() {
        let runs = |scale, negative| Guidance::for_request(scale, negative, Rescale::ToConditional).is_some();
        assert!(runs(4.0, Some("")) && runs(1.01, Some(" ")));
        assert!(
            !runs(4.0, None) && !runs(1.0, Some("")) && !runs(0.0, Some("")) && !runs(f32::NAN, Some(""))
        );
    }
}
