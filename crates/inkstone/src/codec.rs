//! Between files and pixels, and the settings that a picture carries.

mod a1111;
mod exif;
pub mod metadata;
pub mod png;
mod read;

pub use metadata::{LoraRecord, Metadata, Origin};
pub use read::{MAX_PIXELS, MAX_SIDE_PX, read_image, read_image_sized};
