//! The allowed value nearest to one that is not, as the flag to type.

use inkstone::request::{MAX_COUNT, MAX_GUIDANCE, MAX_SIDE_PX, MAX_STEPS, MIN_SIDE_PX, SIDE_STEP_PX, Size};

/// `None` where no value is near: what was given is no number.
pub(super) fn flag(param: &str, got: &str) -> Option<String> {
    let got = got.trim_matches('"');
    let value = match param {
        "width" | "height" => side(got)?.to_string(),
        "size" => size(got)?.to_string(),
        "aspect" => "16:9".to_owned(),
        "steps" => whole(got, MAX_STEPS)?,
        "count" => whole(got, MAX_COUNT)?,
        "true-cfg-scale" | "guidance" => number(got)?.clamp(0.0, f64::from(MAX_GUIDANCE)).to_string(),
        _ => return None,
    };
    Some(format!("--{param} {value}"))
}

/// [`flag`] of one that takes a number: the size of a benchmark is a side.
pub(super) fn number_flag(param: &str, got: &str) -> Option<String> {
    if param == "size" { Some(format!("--size {}", side(got)?)) } else { flag(param, got) }
}

fn size(got: &str) -> Option<Size> {
    // A number alone is a side of a square.
    let (width, height) = got.trim().split_once(['x', 'X', '*']).unwrap_or((got, got));
    Some(Size { width_px: side(width)?, height_px: side(height)? })
}

#[allow(clippy::cast_precision_loss, reason = "limits are small")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of a side")]
fn side(got: &str) -> Option<usize> {
    let steps = (number(got)? / SIDE_STEP_PX as f64).round() as usize;
    Some(steps.saturating_mul(SIDE_STEP_PX).clamp(MIN_SIDE_PX, MAX_SIDE_PX))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1 and the most")]
fn whole(got: &str, most: usize) -> Option<String> {
    Some((number(got)?.round() as usize).clamp(1, most).to_string())
}

fn number(got: &str) -> Option<f64> {
    got.trim().parse().ok().filter(|number: &f64| !number.is_nan())
}
