//! What a file or folder is that is not the model it was named for.

use std::fmt;

use crate::weights::Component;

/// What was found where a Qwen-Image folder should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// An empty folder.
    EmptyFolder,
    /// A pipeline of another model.
    Pipeline {
        /// `_class_name` of its model_index.json.
        class: String,
        /// The model's usual name; `None` for a class that is not known.
        family: Option<&'static str>,
    },
    /// A Qwen-Image pipeline with a part that is not its own.
    Part {
        /// The component.
        component: &'static str,
        /// The class that model_index.json names.
        class: String,
        /// The class it should be.
        want: &'static str,
    },
    /// One component of a pipeline.
    Component {
        /// Its class or model type.
        class: String,
    },
    /// A safetensors file on its own.
    LoneFile {
        /// What its tensors are, as far as their names tell.
        holds: &'static str,
    },
    /// A file that holds another part than the one it was named for.
    OtherPart {
        /// The part that it should hold.
        wanted: Component,
    },
    /// A file that was named for a part and holds something that is known.
    NoPart {
        /// The part that it should hold.
        wanted: Component,
        /// What it holds.
        holds: &'static str,
    },
    /// A folder that was named for a part and has no weights, or several files of them and no index.
    NoWeights {
        /// The part that it should hold.
        wanted: Component,
        /// What its file is usually called.
        usual: String,
    },
    /// A file in place of a folder whose parts were all named on their own.
    NamedTwice,
    /// A file on its own that holds no tensors.
    OtherFile,
    /// A folder without model_index.json.
    NoIndex {
        /// Some of what is in it.
        entries: Vec<String>,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyFolder => f.write_str("an empty folder"),
            Self::Pipeline { class, family: Some(family) } => write!(f, "{family} ({class})"),
            Self::Pipeline { class, family: None } => write!(f, "a pipeline of the unknown class {class:?}"),
            Self::Part { component, class, want } => {
                write!(f, "a Qwen-Image pipeline whose {component} is {class:?} instead of {want}")
            }
            Self::Component { class } => write!(f, "one part of a model ({class}), not a whole one"),
            Self::LoneFile { holds } => {
                write!(f, "a single file that holds {holds}, not a part of Qwen-Image")
            }
            Self::OtherPart { wanted } => write!(f, "a file that holds no {}", wanted.name()),
            Self::NoPart { wanted, holds } => {
                write!(f, "a file that holds {holds}, not the {}", wanted.name())
            }
            Self::NoWeights { wanted, usual } => write!(
                f,
                "a folder with no weights for the {}: it has neither {usual} nor an index of shards, nor a single file \
                 in safetensors or GGUF",
                wanted.name()
            ),
            Self::NamedTwice => f.write_str("a file whose weights are named on their own too"),
            Self::OtherFile => f.write_str("a file, not a model folder"),
            Self::NoIndex { entries } => {
                write!(f, "a folder without model_index.json (it has {})", entries.join(", "))
            }
        }
    }
}
