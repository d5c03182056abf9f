use serde_json::{Value, json};

use super::*;
use crate::golden;

fn flat() -> Value {
    golden::json("qwen_tiny/text_encoder/config.json")
}

fn nested() -> Value {
    golden::json("../../models/tiny/text_encoder/config.json")
}

#[test]
fn both_dialects_are_read() {
    let config = Config::from_json(&flat().to_string()).unwrap();
    assert_eq!(config.heads, Heads { n_heads: 4, n_kv_heads: 2, head_dim: 16 });
    assert_eq!((config.vocab_size, config.hidden_size), (512, 64));
    assert_eq!((config.num_layers, config.intermediate_size), (3, 160));
    assert_eq!((config.rms_norm_eps, config.rope_theta), (1e-6, 1e6));

    let mut json = nested();
    json["text_config"]["rope_parameters"]["rope_theta"] = json!(5e5);
    let config = Config::from_json(&json.to_string()).unwrap();
    assert_eq!(config.heads, Heads { n_heads: 6, n_kv_heads: 2, head_dim: 32 });
    assert_eq!(config.rope_theta, 5e5);
}

#[test]
fn every_field_is_checked_in_both_dialects() {
    let bad = [
        ("vocab_size", json!(u64::MAX)),
        ("hidden_size", json!(0)),
        ("intermediate_size", json!(null)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(7)),
        ("num_key_value_heads", json!(3.5)),
        ("rms_norm_eps", json!(-1e-6)),
        ("rope_theta", json!("1e6")),
        ("hidden_act", json!("gelu")),
        ("use_sliding_window", json!(true)),
    ];
    for (name, value) in bad {
        let (mut one, mut other) = (flat(), nested());
        one[name] = value.clone();
        other["text_config"][name] = value.clone();
        for config in [one, other] {
            let error = Config::from_json(&config.to_string()).unwrap_err();
            assert!(matches!(error, crate::Error::ModelConfig { .. }));
            assert!(error.to_string().contains(name), "{name} = {value}: {error}");
        }
    }
}

#[test]
fn scaled_rotations_and_other_models_are_refused() {
    let mut config = flat();
    config["rope_scaling"]["rope_type"] = json!("yarn");
    assert!(Config::from_json(&config.to_string()).unwrap_err().to_string().contains("rope_type"));
    let mut config = flat();
    config["model_type"] = json!("t5");
    assert!(Config::from_json(&config.to_string()).unwrap_err().to_string().contains("model_type"));
    let mut config = flat();
    config["num_key_value_heads"] = json!(3);
    assert!(Config::from_json(&config.to_string()).unwrap_err().to_string().contains("divisor"));
}
