//! Files that belong together by their names, `NAME-00001-of-00003.safetensors` and so on: what transformers, diffusers and
//! llama-gguf-split write.

/// Digits of a number in such a name.
const DIGITS: usize = 5;
/// Endings of files that may be one of several.
const ENDINGS: [&str; 2] = ["safetensors", "gguf"];
/// Within the name of an index: `NAME.safetensors.index.json`; of a variant `NAME.safetensors.index.VARIANT.json`.
const INDEX: &str = ".safetensors.index.";

/// Whether a file is a list of shards by its name.
pub(crate) fn is_index_name(name: &str) -> bool {
    name.contains(INDEX) && name.ends_with(".json")
}

/// What the name of one of several files says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sibling<'a> {
    /// What the names of all begin with.
    start: &'a str,
    /// Which one it is, from 1.
    pub(super) number: usize,
    /// How many there are.
    pub(super) count: usize,
    ending: &'a str,
}

impl<'a> Sibling<'a> {
    /// `None` for a file that is the only one.
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (stem, ending) = name.rsplit_once('.')?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (start, number) = rest.rsplit_once('-')?;
        let parsed = |digits: &str| {
            let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { digits.parse::<usize>().ok() } else { None }
        };
        let (number, count) = (parsed(number)?, parsed(count)?);
        let is_one = count > 1 && (1..=count).contains(&number);
        let is_known = ENDINGS.iter().any(|known| known.eq_ignore_ascii_case(ending));
        (is_one && is_known).then_some(Self { start, number, count, ending })
    }

    /// The names of all, in order.
    pub(super) fn names(self) -> impl Iterator<Item = String> {
        let Self { start, count, ending, .. } = self;
        (1..=count).map(move |number| format!("{start}-{number:0DIGITS$}-of-{count:0DIGITS$}.{ending}"))
    }

    /// Whether a file is another one of them, or the same.
    pub(super) fn is_beside(self, name: &str) -> bool {
        let (start, count, ending) = (self.start, self.count, self.ending);
        Sibling::of(name)
            .is_some_and(|other| (other.start, other.count, other.ending) == (start, count, ending))
    }

    /// What their index may be called: of `model.fp16-00001-of-00003.safetensors` the variant stands behind.
    pub(super) fn indexes(self) -> impl Iterator<Item = String> {
        let plain = format!("{}{INDEX}json", self.start);
        let variant = self.start.rsplit_once('.');
        let variant = variant.map(|(stem, variant)| format!("{stem}{INDEX}{variant}.json"));
        std::iter::once(plain).chain(variant)
    }
}

#[cfg(test)]
mod tests {
    use super::{Sibling, is_index_name};

    #[test]
    fn names_say_which_files_belong_together() {
        let name = "model.fp16-00002-of-00003.safetensors";
        let file = Sibling::of(name).unwrap();
        assert_eq!((file.number, file.count), (2, 3));
        let names: Vec<String> = file.names().collect();
        assert_eq!(names[0], "model.fp16-00001-of-00003.safetensors");
        assert_eq!((names.len(), names[1].as_str()), (3, name));
        let indexes: Vec<String> = file.indexes().collect();
        assert_eq!(indexes, ["model.fp16.safetensors.index.json", "model.safetensors.index.fp16.json"]);
        assert!(indexes.iter().all(|index| is_index_name(index)));
        assert!(names.iter().all(|name| file.is_beside(name)));
        for other in ["model-00002-of-00003.safetensors", "model.fp16-00002-of-00004.safetensors", "a.gguf"] {
            assert!(!file.is_beside(other), "{other}");
        }
        assert!(Sibling::of("Qwen-Q4-00001-of-00002.GGUF").is_some());
        for whole in [
            "model.safetensors",
            "model-00001-of-00001.gguf",
            "model-00000-of-00002.gguf",
            "model-00003-of-00002.gguf",
            "model-1-of-2.gguf",
            "model-+0001-of-00002.gguf",
            "model-00001-of-2147483648.gguf",
            "model-00001-of-00002.bin",
            "-of-.gguf",
            "",
        ] {
            assert_eq!(Sibling::of(whole), None, "{whole}");
        }
    }
}
