//! The text around a prompt that Qwen-Image 1.x was trained with.
//!
//! # Source
//! `prompt_template_encode`, `prompt_template_encode_start_idx` and `tokenizer_max_length` of diffusers'
//! `QwenImagePipeline`.

/// Opens a message of the conversation; a token of its own.
pub const MESSAGE_START: &str = "<|im_start|>";
/// Ends a message of the conversation; a token of its own.
pub const MESSAGE_END: &str = "<|im_end|>";
/// The system message of text to image.
pub const TEXT_TO_IMAGE_SYSTEM: &str = "system\nDescribe the image by detailing the color, shape, size, texture, \
     quantity, text, spatial relationships of the objects and background:";
/// Comes before the prompt, in its message.
pub const USER: &str = "user\n";
/// Comes between messages.
pub const BETWEEN: &str = "\n";
/// Opens the answer.
pub const ASSISTANT: &str = "assistant\n";

/// Tokens before the prompt; their embeddings are dropped after the text encoder.
pub const TEXT_TO_IMAGE_DROP: usize = 34;
/// Most tokens that the transformer sees of a prompt and what follows it.
pub const MAX_TOKENS: usize = 1024;
