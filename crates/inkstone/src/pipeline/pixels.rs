//! Between pixels and latents: what lies around the VAE.

use inkstone_tensor::{Shape, Tensor, with_room};

use crate::models::qwen_vae::{Posterior, Vae};
use crate::nn::strips::Strips;
use crate::progress::Context;
use crate::sample::latents;
use crate::sample::noise::Generator;
use crate::{Pixels, Request, Result, image};

/// Colours of a pixel.
const RGB: usize = 3;
/// Limits of the posterior's logarithmic variance where a sample is drawn (`DiagonalGaussianDistribution`, diffusers).
const LOGVAR_RANGE: (f32, f32) = (-30.0, 20.0);

/// A picture's values from 0 to 1, `[height, width, 3]`, resized to the request's size.
pub(super) fn prepare(picture: &Pixels, request: &Request) -> Result<Vec<f32>> {
    let resized = image::resize(picture, request.width_px, request.height_px)?;
    Ok(resized.rgb.iter().map(|&byte| f32::from(byte) / 255.0).collect())
}

/// Values from 0 to 1 to normalised latents `[channels, height, width]`: a sample of the posterior, as the reference's
/// image-to-image pipeline draws it.
pub(super) fn encode(
    vae: &Vae,
    values: &[f32],
    (width, height): (usize, usize),
    generator: &mut Generator,
    strips: Strips,
    ctx: &Context<'_>,
) -> Result<Vec<f32>> {
    let values: Vec<f32> = values.iter().map(|value| 2.0 * value - 1.0).collect();
    let input = Tensor::from_f32(vae.device(), &values, Shape::nhwc(1, height, width, RGB))?;
    let latents = sample(&vae.encode(&input, strips, ctx)?, generator)?;
    Ok(vae.config().normalize(&latents))
}

/// Mean plus deviation times noise, `[height, width, channels]`; the noise is drawn for planes, as in the reference.
fn sample(posterior: &Posterior, generator: &mut Generator) -> Result<Vec<f32>> {
    let (mean, logvar) = (posterior.mean.to_f32()?, posterior.logvar.to_f32()?);
    let (area, channels) = (posterior.mean.rows(), posterior.mean.cols());
    let noise = generator.randn(mean.len());
    let (low, high) = LOGVAR_RANGE;
    let value = |i: usize| {
        let deviation = (0.5 * logvar[i].clamp(low, high)).exp();
        mean[i] + deviation * noise[i % channels * area + i / channels]
    };
    Ok((0..mean.len()).map(value).collect())
}

/// Latents as tokens to a picture. `latent_size` is height and width.
pub(super) fn decode(
    vae: &Vae,
    tokens: &[f32],
    latent_size: (usize, usize),
    strips: Strips,
    ctx: &Context<'_>,
) -> Result<Pixels> {
    let (height, width) = latent_size;
    let channels = vae.config().z_dim;
    let raw = vae.config().denormalize(&latents::unpack(tokens, channels, height, width));
    let input = Tensor::from_f32(vae.device(), &raw, Shape::nhwc(1, height, width, channels))?;
    let picture = vae.decode(&input, strips, ctx)?;
    let &[_, height_px, width_px, _] = picture.shape().dims() else {
        unreachable!("pictures are [n, h, w, c]")
    };
    let values = picture.to_f32()?;
    let mut rgb = with_room(values.len())?;
    rgb.extend(values.into_iter().map(to_byte));
    Ok(Pixels { width_px, height_px, rgb })
}

/// -1..1 to 0..255, rounded half to even as numpy does in the reference.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a byte")]
fn to_byte(value: f32) -> u8 {
    ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}
