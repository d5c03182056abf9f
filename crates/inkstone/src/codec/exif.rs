//! Finds the user's comment in EXIF data, where mflux keeps its settings.

const EXIF_IFD: u16 = 0x8769;
const USER_COMMENT: u16 = 0x9286;
/// Bytes of an entry of a directory: tag, type, count, value or its place.
const ENTRY_BYTES: usize = 12;

/// The text of the comment. Places are offsets into the data; a place outside of it means that there is none.
pub(super) fn user_comment(exif: &[u8]) -> Option<String> {
    let tiff = Tiff::new(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))?;
    let root = tiff.u32(4)?;
    let (_, exif_ifd) = tiff.find(root, EXIF_IFD)?;
    let (len, place) = tiff.find(exif_ifd, USER_COMMENT)?;
    let comment = tiff.data.get(place..place.checked_add(len)?)?;
    // The first 8 bytes name the character set; mflux writes ASCII there and UTF-8 after it.
    let text = comment.strip_prefix(b"ASCII\0\0\0").unwrap_or(comment);
    String::from_utf8(text.to_vec()).ok()
}

/// EXIF data is a small TIFF file.
struct Tiff<'a> {
    data: &'a [u8],
    is_big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        let is_big_endian = match data.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        Some(Self { data, is_big_endian })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = self.data.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<usize> {
        let bytes = self.data.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let value = if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(value).ok()
    }

    /// The count and the place of the entry with a tag in the directory that starts at `ifd`.
    fn find(&self, ifd: usize, tag: u16) -> Option<(usize, usize)> {
        let first = ifd.checked_add(2)?;
        (0..usize::from(self.u16(ifd)?))
            .map(|i| first.saturating_add(i * ENTRY_BYTES))
            .find(|entry| self.u16(*entry) == Some(tag))
            .and_then(|entry| Some((self.u32(entry + 4)?, self.u32(entry + 8)?)))
    }
}
