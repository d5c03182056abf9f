use serde_json::{Value, json};

use super::*;

fn good() -> Value {
    json!({
        "base_dim": 4, "z_dim": 2, "dim_mult": [1, 2], "num_res_blocks": 2, "attn_scales": [],
        "temperal_downsample": [true], "latents_mean": [1.0, -2.0], "latents_std": [2.0, 4.0],
    })
}

#[test]
fn latents_are_scaled_channel_by_channel() {
    let config = Config::from_json(&good().to_string()).unwrap();
    let pixels = [3.0, 2.0, 1.0, -2.0, 5.0, 6.0]; // three pixels, two channels
    let planes = [1.0, 0.0, 2.0, 1.0, 0.0, 2.0];
    assert_eq!(config.normalize(&pixels), planes);
    assert_eq!(config.denormalize(&planes), pixels);
}

#[test]
fn every_field_is_checked() {
    let bad = [
        ("base_dim", json!(1_000_000_000)),
        ("z_dim", json!(0)),
        ("dim_mult", json!([1, 2, 4, 4, 4, 4, 4])),
        ("dim_mult", json!([0, 2])),
        ("num_res_blocks", json!(-1)),
        ("attn_scales", json!([0.5])),
        ("temperal_downsample", json!([true, true])),
        ("temperal_downsample", json!(1)),
        ("input_channels", json!(2)),
        ("latents_mean", json!([1.0])),
        ("latents_std", json!([1.0, 0.0])),
    ];
    for (name, value) in bad {
        let mut config = good();
        config[name] = value.clone();
        let error = Config::from_json(&config.to_string()).unwrap_err();
        assert!(matches!(error, crate::Error::ModelConfig { .. }));
        assert!(error.to_string().contains(name), "{name} = {value}: {error}");
    }
}
