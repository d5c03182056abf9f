//! LoRAs, LoKrs and LoHas.

use inkstone_tensor::DType;
use serde_json::json;

use super::{file, header, unframed};

pub(in super::super) fn lora() -> Vec<Vec<u8>> {
    let layer = |start: &str, [a, b]: [&str; 2], alpha: bool, notes: &[(&str, &str)], dtype| {
        let names = [format!("{start}{a}.weight"), format!("{start}{b}.weight"), format!("{start}.alpha")];
        let mut tensors: Vec<(&str, &[usize])> = vec![(&names[0], &[2, 64]), (&names[1], &[64, 2])];
        if alpha {
            tensors.push((&names[2], &[]));
        }
        unframed(&file(&tensors, notes, dtype))
    };
    const TO_Q: &str = "transformer_blocks.0.attn.to_q";
    let adapter =
        r#"{"r": 2, "lora_alpha": 4, "use_rslora": true, "alpha_pattern": {"to_k": 2}, "rank_pattern": {}}"#;
    vec![
        layer(TO_Q, [".lora_A", ".lora_B"], false, &[("lora_adapter_metadata", adapter)], DType::F32),
        layer(&format!("transformer.{TO_Q}"), [".lora.down", ".lora.up"], false, &[], DType::Bf16),
        layer(
            &format!("diffusion_model.{TO_Q}"),
            [".lora_A.default", ".lora_B.default"],
            true,
            &[],
            DType::Bf16,
        ),
        layer(
            "lora_unet_transformer_blocks_0_attn_to_q",
            [".lora_down", ".lora_up"],
            true,
            &[("ss_output_name", "Qwen-Image-Lightning-4steps"), ("ss_tag_frequency", "{}")],
            DType::F32,
        ),
        layer(
            "transformer.single_transformer_blocks.3.attn.to_q",
            [".lora_A", ".lora_B"],
            false,
            &[],
            DType::F32,
        ),
    ]
    .into_iter()
    .chain(lokr())
    .chain(loha())
    .chain(differences())
    .collect()
}

/// Elementwise products for the same layer: narrower and wider than the weight, in 8-bit floats, and what is refused.
fn loha() -> Vec<Vec<u8>> {
    const UP: &str = "transformer_blocks.0.img_mlp.net.0.proj";
    let layer = |start: &str, [r, s]: [usize; 2], more: &[(&str, &str, &[usize], usize)], dtype, size| {
        let [n_out, n_in] = [256, 64];
        let ends = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];
        let shapes = [[n_out, r], [r, n_in], [n_out, s], [s, n_in]];
        let matrices = ends.iter().zip(&shapes).map(|(end, dims)| (*end, dtype, &dims[..], size));
        let parts: Vec<_> = matrices.chain(more.iter().copied()).collect();
        let names: Vec<String> = parts.iter().map(|(end, ..)| format!("{start}.{end}")).collect();
        let tensors: Vec<_> =
            names.iter().zip(&parts).map(|(name, (_, t, dims, n))| (name.as_str(), *t, *dims, *n)).collect();
        let (header, bytes) = header(&tensors);
        // A small number in each of the types.
        [header.as_bytes(), b"\0", &vec![0x3c; bytes]].concat()
    };
    vec![
        layer(&format!("lycoris_{}", UP.replace('.', "_")), [4, 4], &[("alpha", "BF16", &[], 2)], "BF16", 2),
        layer(&format!("diffusion_model.{UP}"), [9, 6], &[("alpha", "I8", &[1], 1)], "F8_E4M3", 1),
        layer(&format!("base_model.model.{UP}"), [2, 3], &[], "F64", 8),
        layer(&format!("transformer.{UP}"), [1, 1], &[("hada_t1", "F32", &[1, 1, 3, 3], 4)], "F32", 4),
    ]
}

/// Kronecker products for a layer of 64 inputs and 256 outputs: whole, in parts, and what is refused.
fn lokr() -> Vec<Vec<u8>> {
    const UP: &str = "transformer_blocks.0.img_mlp.net.0.proj";
    let flat = UP.replace('.', "_");
    let layer = |start: &str, parts: &[(&str, &[usize])], alpha: bool, notes: &[(&str, &str)], dtype| {
        let names: Vec<String> = parts.iter().map(|(end, _)| format!("{start}.{end}")).collect();
        let alpha_name = format!("{start}.alpha");
        let mut tensors: Vec<(&str, &[usize])> =
            names.iter().zip(parts).map(|(name, (_, dims))| (name.as_str(), *dims)).collect();
        if alpha {
            tensors.push((&alpha_name, &[]));
        }
        unframed(&file(&tensors, notes, dtype))
    };
    let whole: [(&str, &[usize]); 2] = [("lokr_w1", &[8, 4]), ("lokr_w2", &[32, 16])];
    let in_parts: [(&str, &[usize]); 4] =
        [("lokr_w1_a", &[16, 2]), ("lokr_w1_b", &[2, 8]), ("lokr_w2_a", &[16, 3]), ("lokr_w2_b", &[3, 8])];
    let second_in_parts: [(&str, &[usize]); 3] = [whole[0], ("lokr_w2_a", &[32, 3]), ("lokr_w2_b", &[3, 16])];
    // A rank of 1 that promises as many numbers as the weight, and more columns than it.
    let promise: [(&str, &[usize]); 4] =
        [("lokr_w1_a", &[256, 1]), ("lokr_w1_b", &[1, 1]), ("lokr_w2_a", &[1, 1]), ("lokr_w2_b", &[1, 64])];
    let adapter =
        r#"{"peft_type": "LOKR", "r": 8, "alpha": 4, "rank_pattern": {"img_mlp": 2}, "alpha_pattern": {}}"#;
    let adapter = [("lora_adapter_metadata", adapter)];
    let more: [(&str, &[usize]); 3] = [whole[0], whole[1], ("lokr_t2", &[2, 2, 3, 3])];
    vec![
        layer(&format!("diffusion_model.{UP}"), &whole, true, &[], DType::Bf16),
        layer(&format!("lycoris_{flat}"), &in_parts, true, &[], DType::F32),
        layer(&format!("lora_unet_{flat}"), &second_in_parts, true, &[], DType::Bf16),
        layer(&format!("base_model.model.{UP}"), &whole, false, &adapter, DType::F32),
        layer(&format!("transformer.{UP}"), &promise, false, &[], DType::F32),
        layer(&format!("transformer.{UP}"), &more, false, &[], DType::F32),
        layer("diffusion_model.double_blocks.0.img_attn.qkv", &whole, true, &[], DType::Bf16),
        // A matrix of 8 GiB in a file of 16 bytes.
        json!({
            format!("{UP}.lokr_w1"): {"dtype": "BF16", "shape": [65536, 65536], "data_offsets": [0, 8]},
            format!("{UP}.lokr_w2"): {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]},
        })
        .to_string()
        .into_bytes(),
    ]
}

/// Whole differences of a weight, a norm and a bias, and what is none of them.
fn differences() -> Vec<Vec<u8>> {
    const TO_Q: &str = "diffusion_model.transformer_blocks.0.attn.to_q";
    let of = |tensors: &[(&str, &str, &[usize], usize)]| {
        let (header, bytes) = header(tensors);
        [header.as_bytes(), b"\0", &vec![0x3c; bytes]].concat()
    };
    let (up, down, diff, bias) = (
        format!("{TO_Q}.lora_up.weight"),
        format!("{TO_Q}.lora_down.weight"),
        format!("{TO_Q}.diff"),
        format!("{TO_Q}.diff_b"),
    );
    let norm = "diffusion_model.transformer_blocks.0.attn.norm_q.diff";
    vec![
        of(&[(&up, "F16", &[64, 1], 2), (&down, "F16", &[1, 64], 2), (&bias, "F16", &[64], 2)]),
        of(&[(norm, "BF16", &[32], 2), (&bias, "F8_E4M3", &[64], 1)]),
        of(&[(&diff, "F8_E5M2", &[64, 64], 1)]),
        of(&[(&diff, "F32", &[64], 4), (&bias, "F32", &[64, 1], 4)]),
    ]
}
