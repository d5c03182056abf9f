//! Draws pictures with a model's own settings, and says how far two are apart.

use inkstone::progress::{CancelToken, Silent};
use inkstone::{Pipeline, Pixels, Request, Result};

/// The picture of each prompt, with the seeds 1, 2, ...
pub(crate) fn draw(pipeline: &mut Pipeline, prompts: &[&str], steps: usize) -> Result<Vec<Pixels>> {
    let defaults = &pipeline.model().defaults;
    let size_px = [defaults.width_px, defaults.height_px];
    draw_at(size_px, pipeline, prompts, steps)
}

/// The same in a size of its own, width first.
pub(crate) fn draw_at(
    [width_px, height_px]: [usize; 2],
    pipeline: &mut Pipeline,
    prompts: &[&str],
    steps: usize,
) -> Result<Vec<Pixels>> {
    let defaults = pipeline.model().defaults.clone();
    let request = |(seed, prompt): (u64, &&str)| Request {
        prompt: (*prompt).to_owned(),
        negative_prompt: Some(defaults.negative_prompt.clone()),
        width_px,
        height_px,
        steps,
        seed,
        true_cfg_scale: defaults.true_cfg_scale,
        init: None,
    };
    let requests: Vec<Request> = (1..).zip(prompts).map(request).collect();
    let pictures = pipeline.draw(&requests, &CancelToken::default(), &mut Silent)?;
    Ok(pictures.into_iter().map(|picture| picture.pixels).collect())
}

/// Peak signal to noise ratio in decibels.
pub(crate) fn psnr_db(a: &Pixels, b: &Pixels) -> f64 {
    assert_eq!((a.width_px, a.height_px), (b.width_px, b.height_px));
    let squares: f64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * f64::from(u32::try_from(a.rgb.len()).unwrap()) / squares).log10()
}
