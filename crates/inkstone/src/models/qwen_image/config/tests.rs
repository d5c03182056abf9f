use serde_json::{Value, json};

use super::*;
use crate::golden;

fn tiny() -> Value {
    golden::json("qwen_tiny/transformer/config.json")
}

#[test]
fn the_tiny_model_is_read() {
    let config = Config::from_json(&tiny().to_string()).unwrap();
    assert_eq!(config.heads, Heads { n_heads: 2, n_kv_heads: 2, head_dim: 32 });
    assert_eq!((config.num_layers, config.joint_attention_dim), (2, 64));
    assert_eq!(config.axes_dims_rope, [8, 12, 12]);
    assert_eq!(config.token_channels_out(), 64);
    assert!(!config.zero_cond_t);
}

#[test]
fn an_empty_config_is_the_reference_s_default_model() {
    let config = Config::from_json("{}").unwrap();
    assert_eq!(config.heads, Heads { n_heads: 24, n_kv_heads: 24, head_dim: 128 });
    assert_eq!((config.num_layers, config.joint_attention_dim), (60, 3584));
    assert_eq!((config.in_channels, config.out_channels, config.patch_size), (64, 16, 2));
    // Without a number the result has as many channels as the input.
    assert_eq!(Config::from_json(r#"{ "out_channels": null }"#).unwrap().out_channels, 64);
}

#[test]
fn every_field_is_checked() {
    let bad = [
        ("_class_name", json!("FluxTransformer2DModel")),
        ("patch_size", json!(0)),
        ("in_channels", json!(1e18)),
        ("out_channels", json!(-4)),
        ("num_layers", json!(1_000_000_000)),
        ("attention_head_dim", json!("32")),
        ("num_attention_heads", json!(0)),
        ("joint_attention_dim", json!(1.5)),
        ("axes_dims_rope", json!([8, 12, 14])),
        ("axes_dims_rope", json!([9, 11, 12])),
        ("axes_dims_rope", json!([16, 16])),
        ("zero_cond_t", json!(1)),
        ("guidance_embeds", json!(true)),
        ("use_additional_t_cond", json!(true)),
        ("use_layer3d_rope", json!(true)),
    ];
    for (name, value) in bad {
        let mut config = tiny();
        config[name] = value.clone();
        let error = Config::from_json(&config.to_string()).unwrap_err();
        assert!(matches!(error, crate::Error::ModelConfig { .. }));
        assert!(error.to_string().contains(name), "{name} = {value}: {error}");
    }
}
