//! What PEFT and diffusers note beside the matrices.

use super::{LAYER, Made, device, with};
use crate::error::LoraProblem;
use crate::weights::lora::{Applied, Lora, Pending};
use crate::{Error, Result};

/// Two layers of rank 4 with this metadata, and their factors.
fn factors(test: &str, adapter: &str) -> Result<[f32; 2]> {
    let layers = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"];
    let names = layers.map(|layer| ["A", "B"].map(|part| format!("transformer.{layer}.lora_{part}.weight")));
    let tensors: Vec<(&str, &[usize], f32)> = names
        .iter()
        .flat_map(|[a, b]| [(a.as_str(), &[4usize, 8][..], 1.0), (b.as_str(), &[6, 4], 1.0)])
        .collect();
    let file = Made::new(test, &tensors, &[("lora_adapter_metadata", adapter)]);
    let mut pending = Pending::from(Applied { lora: file.open()?.into(), scale: 1.0 });
    Ok(layers.map(|layer| pending.layer(layer, 8, 6).unwrap().factor))
}

/// `LoraConfig` of peft: alpha of the first pattern that a name ends with, over the rank or its root.
#[test]
fn adapter_metadata_gives_layers_alphas_of_their_own() {
    for (adapter, want) in [
        (r#"{"r": 4, "lora_alpha": 8}"#, [2.0, 2.0]),
        (r#"{"r": 4, "lora_alpha": 8, "use_rslora": true}"#, [4.0, 4.0]),
        (r#"{"lora_alpha": 8, "alpha_pattern": {"to_q": 2}}"#, [0.5, 2.0]),
        (r#"{"transformer.alpha_pattern": {"transformer_blocks.0.attn.to_k": 6}}"#, [1.0, 1.5]),
        (
            r#"{"lora_alpha": 8, "alpha_pattern": {"to_q": 2, "attn.to_k": 1}, "use_rslora": true}"#,
            [1.0, 0.5],
        ),
        // No end of a name; parts of names do not count.
        (r#"{"lora_alpha": 8, "alpha_pattern": {"q": 2, "attn": 1, "o_k": 3}}"#, [2.0, 2.0]),
        // The tensors say the ranks.
        (r#"{"r": 16, "lora_alpha": 8, "rank_pattern": {"to_q": 4, "to_k": 4}}"#, [2.0, 2.0]),
        (r#"{"lora_alpha": 8, "use_dora": false, "use_rslora": false, "alpha_pattern": null}"#, [2.0, 2.0]),
    ] {
        assert_eq!(factors("patterns", adapter).unwrap(), want, "{adapter}");
    }
}

#[test]
fn alphas_are_read_from_pefts_own_file() {
    let folder = std::env::temp_dir().join(format!("inkstone-lora-{}-peft", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = with("peft", &[]);
    let weights = folder.join("adapter_model.safetensors");
    std::fs::copy(&made.0, &weights).unwrap();
    let factor = || {
        let lora = Lora::open(&weights, &device())?.into();
        Ok::<_, Error>(Pending::from(Applied { lora, scale: 1.0 }).layer(LAYER, 4, 6).unwrap().factor)
    };
    assert_eq!(factor().unwrap(), 1.0, "without it alpha is the rank");
    let config = folder.join("adapter_config.json");
    std::fs::write(&config, r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 16}"#).unwrap();
    assert_eq!(factor().unwrap(), 8.0);
    for (text, code) in [(r#"{"use_dora": true}"#, "INK-0211"), ("{", "INK-0310")] {
        std::fs::write(&config, text).unwrap();
        assert_eq!(factor().unwrap_err().code(), code, "{text}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn adapter_metadata_that_cannot_be_followed_is_refused() {
    for adapter in [
        "{",
        r#"{"transformer.use_dora": true}"#,
        r#"{"use_dora": 1}"#,
        r#"{"use_rslora": true}"#,
        r#"{"transformer.alpha_pattern": {"to_q": "4"}}"#,
        r#"{"alpha_pattern": {"to_.*": 4}}"#,
        r#"{"alpha_pattern": {"to_q": 4, "attn.to_q": 5}}"#,
    ] {
        match factors("metadata", adapter) {
            Err(Error::Lora { problem, .. }) => {
                assert!(matches!(*problem, LoraProblem::Metadata { .. }), "{adapter}: {problem}");
            }
            other => panic!("{adapter}: {other:?}"),
        }
    }
    let zero = factors("metadata", r#"{"lora_alpha": 8, "alpha_pattern": {"to_q": 0}}"#).unwrap_err();
    assert!(zero.to_string().contains("alpha of transformer_blocks.0.attn.to_q is 0"), "{zero}");
}
