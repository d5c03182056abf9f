//! Whether the VAE takes a picture in one piece or in strips, which is a question of memory and a little of time.

use std::fmt;
use std::str::FromStr;

use crate::nn::strips::Strips;
use crate::request::MAX_SIDE_PX;
use crate::{Error, Result};

/// Whether the VAE takes a picture in strips of lines. The picture's bytes are the same in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VaeTiling {
    /// In one piece where that fits into memory, else in the highest strips that do.
    #[default]
    Auto,
    /// In one piece.
    Off,
    /// In strips of so many lines of the picture: a multiple of 8 up to 4096.
    Strips(usize),
}

/// Lines of a strip are a multiple of this: lines of latents are not cut.
const STEP_PX: usize = 8;
/// The strips that [`VaeTiling::Auto`] tries, in lines of the picture. Lower ones save nothing more, as convolutions
/// keep lines of their own.
const HEIGHTS_PX: [usize; 3] = [256, 128, 32];

impl FromStr for VaeTiling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => return Ok(Self::Auto),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let lines = text.parse().ok().filter(|lines| digits && (STEP_PX..=MAX_SIDE_PX).contains(lines));
        match lines.filter(|lines| lines.is_multiple_of(STEP_PX)) {
            Some(lines) => Ok(Self::Strips(lines)),
            None => Err(Error::InvalidParam {
                param: "vae-tiling",
                got: format!("{:?}", text.chars().take(40).collect::<String>()),
                allowed: format!("auto, off, or {STEP_PX} to {MAX_SIDE_PX} px in multiples of {STEP_PX}"),
            }),
        }
    }
}

impl fmt::Display for VaeTiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Strips(lines) => write!(f, "{lines}"),
        }
    }
}

/// The lowest strips that save anything.
pub(super) const LOWEST: Strips = Strips::Lines(HEIGHTS_PX[HEIGHTS_PX.len() - 1] / STEP_PX);

impl VaeTiling {
    /// How the VAE may take a picture, the fastest first.
    pub(super) fn ways(self) -> Vec<Strips> {
        let of = |lines: usize| Strips::Lines((lines / STEP_PX).max(1));
        match self {
            Self::Off => vec![Strips::Whole],
            Self::Strips(lines) => vec![of(lines)],
            Self::Auto => std::iter::once(Strips::Whole).chain(HEIGHTS_PX.map(of)).collect(),
        }
    }
}
