//! Rows 19 and 20: configs.

use std::fs;

use inkstone::Error;
use inkstone::error::JsonProblem;

use crate::dir::{Dir, golden};

#[test]
fn row_19_config_out_of_range() {
    use inkstone::models::{qwen_image, qwen_vae, qwen25_vl};
    use inkstone::sample::schedule::SchedulerConfig;

    type Check = fn(&str) -> Result<(), Error>;
    let transformer: Check = |text| qwen_image::Config::from_json(text).map(drop);
    let text_encoder: Check = |text| qwen25_vl::Config::from_json(text).map(drop);
    let vae: Check = |text| qwen_vae::Config::from_json(text).map(drop);
    let scheduler: Check = |text| SchedulerConfig::from_json(text).map(drop);
    let counts = ["1000000000", "0", "-1", "2.5", "\"4\"", "1e3", "true", "[4]", "18446744073709551616"];
    let reals = ["-1", "1e300", "\"1\"", "[]"];
    for (file, check, field, values) in [
        ("transformer/config.json", transformer, "num_layers", &counts[..]),
        ("transformer/config.json", transformer, "num_attention_heads", &counts),
        ("transformer/config.json", transformer, "attention_head_dim", &counts),
        ("transformer/config.json", transformer, "joint_attention_dim", &counts),
        (
            "transformer/config.json",
            transformer,
            "axes_dims_rope",
            &["[8, 8]", "[0, 8, 8]", "[9, 7, 8]", "8"],
        ),
        ("text_encoder/config.json", text_encoder, "num_hidden_layers", &counts),
        ("text_encoder/config.json", text_encoder, "hidden_size", &counts),
        ("text_encoder/config.json", text_encoder, "num_key_value_heads", &counts),
        ("text_encoder/config.json", text_encoder, "vocab_size", &counts),
        ("text_encoder/config.json", text_encoder, "rms_norm_eps", &reals),
        ("vae/config.json", vae, "base_dim", &counts),
        ("vae/config.json", vae, "z_dim", &counts),
        ("vae/config.json", vae, "dim_mult", &["[]", "[1, 0, 4, 4]", "[1, 2, 1e9, 4]", "4"]),
        ("vae/config.json", vae, "latents_std", &["[0]", "null", "[]", "1"]),
        ("scheduler/scheduler_config.json", scheduler, "num_train_timesteps", &counts),
        ("scheduler/scheduler_config.json", scheduler, "max_shift", &["1e300", "\"1\"", "[]"]),
        ("scheduler/scheduler_config.json", scheduler, "shift_terminal", &reals),
    ] {
        let whole: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(golden().join(file)).unwrap()).unwrap();
        check(&whole.to_string()).unwrap();
        for value in values {
            let mut config = whole.clone();
            config[field] = serde_json::Value::Null;
            let text =
                config.to_string().replacen(&format!("\"{field}\":null"), &format!("\"{field}\":{value}"), 1);
            let error = check(&text).expect_err(&format!("{file}: {field} {value}"));
            assert_eq!((error.code(), error.exit_code()), ("INK-0320", 3), "{field} {value}");
        }
        // NaN is no JSON, and a number beyond all numbers is none.
        for value in ["NaN", "Infinity", "1e999"] {
            let dir = Dir::model("nan-config");
            let text = whole.to_string().replacen('{', &format!("{{\"x\":{value},"), 1);
            dir.write(file, text);
            assert!(
                matches!(dir.open(), Err(Error::Json { problem: JsonProblem::Invalid { .. }, .. })),
                "{value}"
            );
        }
    }
}

#[test]
fn row_20_hostile_json() {
    let problem = |content: &[u8]| {
        let dir = Dir::model("json");
        dir.write("transformer/config.json", content);
        let error = dir.open().unwrap_err();
        assert_eq!(error.code(), "INK-0310");
        match error {
            Error::Json { path, problem } => {
                assert!(path.ends_with("transformer/config.json"));
                problem
            }
            other => panic!("{other:?}"),
        }
    };
    let deep = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat();
    let reason = |content: &[u8]| match problem(content) {
        JsonProblem::Invalid { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(deep("[", "]").as_bytes()).contains("recursion limit"));
    assert!(reason(deep("{\"a\":", "}").as_bytes()).contains("recursion limit"));
    assert!(reason(b"{\"a\":1,\"a\":2}").contains("\"a\" occurs twice"));
    assert!(reason(b"{\"a\":{\"b\":1,\"b\":2}}").contains("\"b\" occurs twice"));
    assert!(reason(format!("[{}0]", "0,".repeat(20_000)).as_bytes()).contains("more than 10000 values"));
    for broken in ["{\"a\":NaN}", "{\"a\":1e999}", "{\"a\":1,}", "{} {}", "", "{\"a\":\"\\ud800\"}"] {
        reason(broken.as_bytes());
    }
    reason(b"{\"a\":\"\xff\"}");
    assert_eq!(problem(b"\xef\xbb\xbf{}"), JsonProblem::ByteOrderMark);
    let large = [b"{}".to_vec(), vec![b' '; 1_000_000]].concat();
    assert_eq!(problem(&large), JsonProblem::TooLarge { size_bytes: 1_000_002, limit_bytes: 1_000_000 });
    // A gigabyte that takes no disk.
    let dir = Dir::model("sparse");
    let file = fs::File::options().write(true).open(dir.0.join("vae/config.json")).unwrap();
    file.set_len(1 << 30).unwrap();
    let want = JsonProblem::TooLarge { size_bytes: 1 << 30, limit_bytes: 1_000_000 };
    assert!(matches!(dir.open(), Err(Error::Json { problem, .. }) if problem == want));
}

#[test]
fn row_20_foreign_quantization() {
    let dir = Dir::model("quantized");
    dir.edit(
        "transformer/config.json",
        "{",
        "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"},",
    );
    assert!(matches!(dir.open(), Err(Error::ModelConfig { field, .. }) if field == "quantization_config"));
}
