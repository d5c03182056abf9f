//! What fits instead of a drawing with LoRAs: they may be part of the weights, or left out.

use super::{Candidate, Conversion, Kind, quoted};
use crate::memory::Limits;
use crate::pipeline::networks::Arithmetic;
use crate::pipeline::{Defaults, Pipeline};
use crate::weights::lora::{self, Applied};
use crate::{Request, convert};

impl Pipeline {
    /// The same without the LoRAs. One that was distilled brings no guidance, which the model alone has.
    pub(super) fn without_loras<'g>(&self, ours: &Candidate<'g>) -> Option<Candidate<'g>> {
        if self.networks.loras.is_empty() {
            return None;
        }
        let (kind, arithmetic) = (Kind::Lora, Arithmetic { loras: false, ..ours.arithmetic });
        let mut without = Candidate { kind, arithmetic, ..ours.clone() };
        if lora::is_distilled(&self.networks.loras) {
            let own = Defaults::for_side(self.info.defaults.width_px);
            without.request.true_cfg_scale = own.true_cfg_scale;
            without.request.negative_prompt.get_or_insert(own.negative_prompt);
        }
        Some(without)
    }

    /// The same with LoRAs that were put into the weights before, where that can be done in the memory that there is.
    pub(super) fn merged<'g>(&self, ours: &Candidate<'g>) -> Option<Candidate<'g>> {
        let loras = &self.networks.loras;
        if loras.is_empty() {
            return None;
        }
        let given = |Applied { lora, scale }: &Applied| {
            format!(" --lora {}={scale}", quoted(&lora.path().to_string_lossy()))
        };
        let loras_given: String = loras.iter().map(given).collect();
        let Conversion { command, then } = self.saved_with(&loras_given, "merged")?;
        let bytes = convert::merging_bytes(&self.files, &self.device, loras).ok()?;
        Limits::now(None).check(bytes).ok()?;
        let mut flags = format!("{command}, then {then}");
        if lora::is_distilled(loras) {
            let Request { steps, true_cfg_scale, .. } = &ours.request;
            flags += &format!(" --steps {steps} --true-cfg-scale {true_cfg_scale}");
        }
        let arithmetic = Arithmetic { loras: false, ..ours.arithmetic };
        Some(Candidate { kind: Kind::Merged, flags, arithmetic, ..ours.clone() })
    }
}
