//! What a LoRA file was made for, by the names in it.

/// What stands between dots in names, and what has it.
const KINDS: [(&[&str], &str); 7] = [
    (&["lokr_t1", "lokr_t2"], "a LoKr of convolutions"),
    (&["hada_t1", "hada_t2"], "a LoHa of convolutions"),
    (&["lora_mid"], "a LoCon of convolutions"),
    (&["dora_scale", "lora_magnitude_vector"], "a DoRA"),
    (&["oft_blocks", "oft_diag", "oft_R"], "an OFT"),
    (&["w_norm", "b_norm"], "a LoRA with weights in place of the norms' (w_norm)"),
    (&["set_weight"], "a LoRA with weights in place of the model's (set_weight)"),
];

/// Parts of names and what has them; the first whose parts all occur counts.
const FAMILIES: [(&[&str], &str); 30] = [
    // Its double blocks are named like FLUX's but for a few letters.
    (&["double_blocks", "_mod.linear"], "HunyuanVideo"),
    (&["double_blocks", "_mod_linear"], "HunyuanVideo"),
    (&["double_blocks", ".img_attn_qkv"], "HunyuanVideo"),
    // What of FLUX.1 and FLUX.2 is not named alike: FLUX.1 has 19 double blocks with modulations of their own, FLUX.2 has 8 at
    // most.
    (&["double_blocks", "_mod.lin"], "FLUX.1"),
    (&["double_blocks", "_mod_lin"], "FLUX.1"),
    (&["double_blocks.8."], "FLUX.1"),
    (&["double_blocks_8_"], "FLUX.1"),
    (&["double_blocks"], "FLUX.2"),
    (&["transformer_blocks", "ff.linear_in"], "FLUX.2"),
    (&["transformer_blocks", "ff_linear_in"], "FLUX.2"),
    (&["img_mod"], QWEN_IMAGE),
    (&["txt_mlp", "transformer_blocks"], QWEN_IMAGE),
    (&["img_mlp", "transformer_blocks"], QWEN_IMAGE),
    (&["single_transformer_blocks", "to_qkv_mlp_proj"], "FLUX.2"),
    (&["single_transformer_blocks"], "FLUX.1"),
    (&["joint_blocks"], "Stable Diffusion 3"),
    (&["lora_te2_"], "Stable Diffusion XL"),
    (&["text_encoder_2."], "Stable Diffusion XL"),
    (&["down_blocks"], "Stable Diffusion, a UNet"),
    (&["mid_block"], "Stable Diffusion, a UNet"),
    (&["up_blocks"], "Stable Diffusion, a UNet"),
    (&["input_blocks"], "Stable Diffusion, a UNet"),
    (&["output_blocks"], "Stable Diffusion, a UNet"),
    (&["context_refiner"], "Z-Image"),
    (&["cross_attn", "blocks"], "Wan"),
    (&["transformer_blocks", "attn2"], "a model with cross attention"),
    (&["transformer_blocks", "attn1"], "CogVideoX"),
    (&["transformer_blocks", "add_q_proj"], QWEN_IMAGE),
    (&["transformer_blocks", "to_q"], QWEN_IMAGE),
    (&["model.layers", "self_attn"], "a language model"),
];

/// Qwen-Image 1.x.
pub(crate) const QWEN_IMAGE: &str = "Qwen-Image";

/// The model that these names are of.
pub(super) fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    let has = |part: &str| names.clone().any(|name| name.contains(part));
    FAMILIES.iter().find(|(parts, _)| parts.iter().all(|part| has(part))).map(|(_, what)| *what)
}

/// A kind of adapter that is not read.
pub(super) fn other_kind<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    let parts = names.flat_map(|name| name.split('.'));
    let has = |marks: &[&str]| parts.clone().any(|part| marks.contains(&part));
    KINDS.iter().find(|(marks, _)| has(marks)).map(|(_, what)| *what)
}
