//! The three networks of a model, opened when they are first needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use inkstone_tensor::{DType, Device, Ledger};

use super::run::Run;
use crate::memory::Ahead;
use crate::models::qwen_image::{self, Transformer};
use crate::models::qwen_vae::{self, Vae};
use crate::models::qwen25_vl::{self, TextEncoder};
use crate::progress::Stage;
use crate::weights::lora::Applied;
use crate::weights::{Component, LayerFormat, Loader, ModelFiles, Quantization};
use crate::{Error, Result};

/// Their sizes.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    pub(super) encoder: qwen25_vl::Config,
    pub(super) transformer: qwen_image::Config,
    pub(super) vae: qwen_vae::Config,
}

impl Configs {
    /// Whether the networks fit each other.
    pub(super) fn check(&self) -> Result<()> {
        let differ = |field: &str, got: usize, want: usize, of: &str| {
            if got == want {
                return Ok(());
            }
            let allowed = format!("{want}, {of}");
            Err(Error::ModelConfig {
                component: "transformer",
                field: field.into(),
                got: got.to_string(),
                allowed,
            })
        };
        let (dit, vae) = (&self.transformer, &self.vae);
        differ(
            "joint_attention_dim",
            dit.joint_attention_dim,
            self.encoder.hidden_size,
            "the text encoder's width",
        )?;
        differ("patch_size", dit.patch_size, crate::sample::latents::PATCH, "the only one there is")?;
        let values = dit.patch_size * dit.patch_size * vae.z_dim;
        differ("in_channels", dit.in_channels, values, "a patch of the VAE's latents")?;
        differ("out_channels", dit.out_channels, vae.z_dim, "the VAE's latent channels")
    }
}

/// The form of linear layers' weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As the model's files have them.
    #[default]
    Stored,
    /// Brought into a smaller format while they are loaded: they stay in memory.
    Loaded(Quantization),
    /// Of a folder that [`crate::convert::convert`] makes of the model: mapped, so that they can leave memory. Only a
    /// forecast has this form: a drawing opens the folder.
    Converted(Quantization),
}

impl Form {
    /// The format that a loader brings layers into.
    #[must_use]
    pub const fn quantization(self) -> Option<Quantization> {
        match self {
            Self::Stored => None,
            Self::Loaded(quantization) | Self::Converted(quantization) => Some(quantization),
        }
    }
}

/// What the products of a component's layers are made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The format of the weights: of those that are stored in another one, the format that takes as long to multiply with.
    /// `None` for plain numbers.
    pub format: Option<Quantization>,
    /// Whether [`Form`] changed it. What is quantized already stays as it is stored.
    pub is_changed: bool,
}

/// How products are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arithmetic {
    pub(super) activations: DType,
    pub(super) form: Form,
    /// Whether the LoRAs that there are lie beside the weights.
    pub(super) loras: bool,
}

/// What became of networks that were to be brought into a smaller format.
#[derive(Debug, Default)]
struct Outcome {
    formats: Vec<LayerFormat>,
    /// Those that were in one before and stay in it: what an error says of them.
    kept: BTreeMap<Component, Error>,
    made: BTreeMap<Component, Made>,
}

/// The networks that are open.
#[derive(Debug)]
pub(super) struct Networks {
    pub(super) configs: Configs,
    /// Of the transformer.
    pub(super) loras: Vec<Applied>,
    pub(super) device: Device,
    pub(super) arithmetic: Arithmetic,
    /// What became of networks that were brought into a smaller format.
    outcome: Outcome,
    /// Where weights are counted instead of opened.
    ledger: Option<Arc<Ledger>>,
    streamed: bool,
    encoder: Option<TextEncoder>,
    transformer: Option<Transformer>,
    vae: Option<Vae>,
    /// Whether the VAE has decoded: it keeps its weights in another order since.
    decoded: bool,
}

impl Networks {
    pub(super) fn new(configs: Configs, device: Device, arithmetic: Arithmetic) -> Self {
        Self {
            configs,
            loras: Vec::new(),
            device,
            arithmetic,
            outcome: Outcome::default(),
            ledger: None,
            streamed: false,
            encoder: None,
            transformer: None,
            vae: None,
            decoded: false,
        }
    }

    /// Adds LoRAs to the transformer, which is not open yet.
    pub(super) fn with_loras(mut self, loras: Vec<Applied>) -> Self {
        self.loras = loras;
        self
    }

    /// What became of the linear layers of the networks that were opened, if they were to be quantized.
    pub(super) fn formats(&self) -> &[LayerFormat] {
        &self.outcome.formats
    }

    /// What the products of the networks that were opened are made with.
    pub(super) fn made(&self) -> &BTreeMap<Component, Made> {
        &self.outcome.made
    }

    /// Whether the weights can be brought into their form, once all networks were open.
    ///
    /// # Errors
    /// [`Error::AlreadyQuantized`] where nothing became smaller, as it was quantized before; and of a folder in int8 whose
    /// transformer was in bytes, which `convert` does not make.
    pub(super) fn check_form(&mut self) -> Result<()> {
        let Outcome { formats, kept, .. } = &mut self.outcome;
        let refused = match self.arithmetic.form {
            Form::Stored => None,
            Form::Converted(Quantization::Int8)
                if kept.get(&Component::Transformer).is_some_and(in_bytes) =>
            {
                kept.remove(&Component::Transformer)
            }
            _ if formats.iter().any(|layer| layer.format.is_smaller()) => None,
            _ => kept.remove(&Component::Transformer).or_else(|| Some(kept.pop_first()?.1)),
        };
        refused.map_or(Ok(()), Err)
    }

    /// The same networks on a device that only counts; `None` if this one cannot be counted.
    pub(super) fn counting(&self, arithmetic: Arithmetic) -> Option<(Self, Arc<Ledger>)> {
        let (device, ledger) = self.device.counting()?;
        let loras = if arithmetic.loras { self.loras.clone() } else { Vec::new() };
        let mut counting = Self::new(self.configs.clone(), device, arithmetic).with_loras(loras);
        counting.ledger = Some(Arc::clone(&ledger));
        Some((counting, ledger))
    }

    /// Says whether layers are let go behind the ones that compute, in networks that are open or will be.
    pub(super) fn stream(&mut self, streamed: bool) {
        self.streamed = streamed;
        if let Some(encoder) = &self.encoder {
            encoder.walk().stream(streamed);
        }
        if let Some(transformer) = &self.transformer {
            transformer.walk().stream(streamed);
        }
    }

    /// Reads from the disk what a drawing uses, while something else is computed: of the open networks, the text encoder only
    /// where there is a text to encode.
    pub(super) fn read_ahead(&self, texts: bool) -> Ahead {
        let encoder = self.encoder.iter().filter(|_| texts).flat_map(|encoder| encoder.walk().pages());
        let transformer = self
            .transformer
            .iter()
            .flat_map(|transformer| transformer.modulation_pages().chain(transformer.walk().pages()));
        let vae = self.vae.iter().filter(|_| !self.decoded).map(Vae::decoder_pages);
        Ahead::of(encoder.chain(transformer).chain(vae))
    }

    /// Lets the transformer's layers go if they are streamed: nothing computes.
    pub(super) fn rest(&self) {
        if let Some(transformer) = &self.transformer {
            transformer.walk().rest();
        }
    }

    /// Opens what is not open yet of what a drawing needs, so that a damaged file is found before any work is done.
    pub(super) fn open(&mut self, needed: &[Component], files: &ModelFiles, run: &mut Run<'_>) -> Result<()> {
        let mut closed = needed.to_vec();
        closed.retain(|component| match component {
            Component::TextEncoder => self.encoder.is_none(),
            Component::Transformer => self.transformer.is_none(),
            Component::Vae => self.vae.is_none(),
        });
        if closed.is_empty() {
            return Ok(());
        }
        let total = closed.iter().map(|component| self.parts(*component)).sum();
        run.stage(Stage::Load, total, |run| {
            let mut done = 0;
            let mut advance = || {
                run.context.check_cancelled()?;
                done += 1;
                run.observer.advance(Stage::Load, done);
                Ok(())
            };
            for component in closed {
                match component {
                    Component::TextEncoder => drop(self.load_encoder(files, &mut advance)?),
                    Component::Transformer => drop(self.load_transformer(files, &mut advance)?),
                    Component::Vae => drop(self.vae(files)?),
                }
                advance()?;
            }
            Ok(())
        })
    }

    /// Parts of a component's loading: its layers, and the rest.
    fn parts(&self, component: Component) -> usize {
        1 + match component {
            Component::TextEncoder => self.configs.encoder.num_layers,
            Component::Transformer => self.configs.transformer.num_layers,
            Component::Vae => 0,
        }
    }

    pub(super) fn encoder(&mut self, files: &ModelFiles) -> Result<&TextEncoder> {
        self.load_encoder(files, || Ok(()))
    }

    pub(super) fn transformer(&mut self, files: &ModelFiles) -> Result<&Transformer> {
        self.load_transformer(files, || Ok(()))
    }

    fn load_encoder(
        &mut self,
        files: &ModelFiles,
        on_layer: impl FnMut() -> Result<()>,
    ) -> Result<&TextEncoder> {
        let open = self.encoder.is_some();
        let (device, ledger, form) = (&self.device, self.ledger.as_ref(), self.arithmetic.form);
        let loader = || loader(Component::TextEncoder, files, device, self.arithmetic.activations, ledger);
        let loader = || Ok(quantizing(loader()?, form).on_layer(on_layer));
        let config = &self.configs.encoder;
        let (network, outcome) = (&mut self.encoder, &mut self.outcome);
        let load = |l: &mut Loader| TextEncoder::load(config, l);
        let encoder = opened(Component::TextEncoder, form, network, outcome, loader, load)?;
        if !open {
            encoder.walk().stream(self.streamed);
        }
        Ok(encoder)
    }

    fn load_transformer(
        &mut self,
        files: &ModelFiles,
        on_layer: impl FnMut() -> Result<()>,
    ) -> Result<&Transformer> {
        let open = self.transformer.is_some();
        let (device, ledger, form) = (&self.device, self.ledger.as_ref(), self.arithmetic.form);
        let loader = || loader(Component::Transformer, files, device, self.arithmetic.activations, ledger);
        let loader = || Ok(quantizing(loader()?.with_loras(&self.loras), form).on_layer(on_layer));
        let config = &self.configs.transformer;
        let (network, outcome) = (&mut self.transformer, &mut self.outcome);
        let load = |l: &mut Loader| Transformer::load(config, l);
        let transformer = opened(Component::Transformer, form, network, outcome, loader, load)?;
        if !open {
            transformer.walk().stream(self.streamed);
        }
        Ok(transformer)
    }

    pub(super) fn vae(&mut self, files: &ModelFiles) -> Result<&Vae> {
        let (device, ledger, form) = (&self.device, self.ledger.as_ref(), self.arithmetic.form);
        let loader = || loader(Component::Vae, files, device, self.arithmetic.activations, ledger);
        let loader = || Ok(quantizing(loader()?, form));
        let load = |l: &mut Loader| Vae::load(&self.configs.vae, l);
        opened(Component::Vae, form, &mut self.vae, &mut self.outcome, loader, load)
    }

    /// The VAE has decoded a picture.
    pub(super) fn set_decoded(&mut self) {
        self.decoded = true;
    }

    /// Lets the text encoder go; it is opened again when a new prompt comes.
    pub(super) fn close_encoder(&mut self) {
        self.encoder = None;
    }

    /// Lets all networks go.
    pub(super) fn close(&mut self) {
        (self.encoder, self.transformer, self.vae) = (None, None, None);
        self.decoded = false;
    }
}

/// Whether what is quantized already is in whole bytes.
fn in_bytes(kept: &Error) -> bool {
    matches!(kept, Error::AlreadyQuantized { format, .. } if format.starts_with("int8"))
}

/// The weights of a component, to be used or only counted.
fn loader(
    component: Component,
    files: &ModelFiles,
    device: &Device,
    activations: DType,
    ledger: Option<&Arc<Ledger>>,
) -> Result<Loader<'static>> {
    match ledger {
        None => files.loader(component, device, activations),
        Some(ledger) => files.counted_loader(component, device, activations, ledger),
    }
}

/// The loader, told to quantize what is not quantized already.
fn quantizing(loader: Loader<'_>, form: Form) -> Loader<'_> {
    match form {
        Form::Stored => loader,
        Form::Loaded(quantization) => loader.quantizing(quantization),
        Form::Converted(quantization) => loader.converted(quantization),
    }
}

/// The network, opened if it is not.
fn opened<'n, 'l, N>(
    component: Component,
    form: Form,
    network: &'n mut Option<N>,
    outcome: &mut Outcome,
    loader: impl FnOnce() -> Result<Loader<'l>>,
    load: impl FnOnce(&mut Loader) -> Result<N>,
) -> Result<&'n N> {
    let opened = match network.take() {
        Some(open) => open,
        None => {
            let mut loader = loader()?;
            let stored = loader.nearest_format();
            let loaded = load(&mut loader)?;
            let (new, kept) = (loader.formats().to_vec(), loader.kept());
            loader.finish()?;
            // A network that was let go and comes back tells the same again.
            outcome.formats.retain(|old| new.iter().all(|new| new.name != old.name));
            let is_changed = new.iter().any(|layer| layer.format.is_smaller());
            let format = if is_changed { form.quantization() } else { stored };
            outcome.made.insert(component, Made { format, is_changed });
            outcome.formats.extend(new);
            outcome.kept.extend(kept.map(|kept| (component, kept)));
            loaded
        }
    };
    Ok(network.insert(opened))
}
