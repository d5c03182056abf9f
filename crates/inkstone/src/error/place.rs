//! Why a converted model cannot be put somewhere.

/// What is wrong with the place of a new model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceProblem {
    /// Something has this name.
    #[error("it is there already")]
    Exists,
    /// What should be replaced is no model.
    #[error("what is there is no model's folder, so it is not replaced")]
    NoModel,
    /// A link, to a model or not.
    #[error("it is a link, and a link is not replaced")]
    Link,
    /// It is the source, in it or around it.
    #[error("it is the model that is read, or a folder in or around it")]
    Source,
    /// The folder that it should lie in is not there.
    #[error("the folder that it should lie in is not there")]
    NoParent,
    /// The path does not end with a name in UTF-8.
    #[error("the path does not end with a name")]
    NoName,
}
