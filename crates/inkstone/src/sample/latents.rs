//! Between latents as planes and latents as tokens.
//!
//! # Source
//! `QwenImagePipeline._pack_latents` of diffusers: a token is 2 x 2 pixels of all channels, channel first.

/// Side of the square of latent pixels that makes a token.
pub const PATCH: usize = 2;

/// Tokens of planes.
///
/// # Shapes
/// `planes` is `[channels, height, width]`; the result `[height / 2 * width / 2, channels * 4]`.
///
/// # Panics
/// If a side is odd or the length is not the product of the sizes.
#[must_use]
pub fn pack(planes: &[f32], channels: usize, height: usize, width: usize) -> Vec<f32> {
    check(planes.len(), channels, height, width);
    places(channels, height, width).map(|place| planes[place]).collect()
}

/// Planes of tokens: the inverse of [`pack`].
///
/// # Shapes
/// `tokens` is `[height / 2 * width / 2, channels * 4]`; the result `[channels, height, width]`.
///
/// # Panics
/// If a side is odd or the length is not the product of the sizes.
#[must_use]
pub fn unpack(tokens: &[f32], channels: usize, height: usize, width: usize) -> Vec<f32> {
    check(tokens.len(), channels, height, width);
    let mut planes = vec![0.0; tokens.len()];
    for (place, value) in places(channels, height, width).zip(tokens) {
        planes[place] = *value;
    }
    planes
}

/// Where each element of the tokens lies in the planes.
fn places(channels: usize, height: usize, width: usize) -> impl Iterator<Item = usize> {
    let (rows, cols) = (height / PATCH, width / PATCH);
    (0..rows * cols).flat_map(move |token| {
        let corner = token / cols * PATCH * width + token % cols * PATCH;
        (0..channels * PATCH * PATCH).map(move |i| {
            let (channel, y, x) = (i / (PATCH * PATCH), i / PATCH % PATCH, i % PATCH);
            channel * height * width + corner + y * width + x
        })
    })
}

fn check(len: usize, channels: usize, height: usize, width: usize) {
    assert!(height.is_multiple_of(PATCH) && width.is_multiple_of(PATCH), "latents of {width} x {height}");
    assert_eq!(len, channels * height * width, "latents of {width} x {height}, {channels} channels");
}

#[cfg(test)]
mod tests;
