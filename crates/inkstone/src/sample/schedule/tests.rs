use serde_json::{Value, json};

use super::{MAX_STEPS, Schedule, SchedulerConfig};
use crate::golden;

fn qwen() -> Value {
    golden::json("qwen_sched.json")["qwen_image"]["config"].clone()
}

fn config(json: &Value) -> crate::Result<SchedulerConfig> {
    SchedulerConfig::from_json(&json.to_string())
}

fn with(field: &str, value: Value) -> Value {
    let mut json = qwen();
    json[field] = value;
    json
}

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{got:?} {want:?}");
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= 1e-6, "{got:?} {want:?}");
    }
}

#[test]
fn levels_are_the_references_to_the_bit() {
    let mut compared = 0;
    for name in ["qwen_image", "qwen_image_lightning"] {
        let fixture = &golden::json("qwen_sched.json")[name];
        let config = config(&fixture["config"]).unwrap();
        for case in fixture["cases"].as_array().unwrap() {
            let size = |field: &str| usize::try_from(case[field].as_u64().unwrap()).unwrap();
            let schedule = Schedule::new(&config, size("steps"), size("image_seq_len")).unwrap();
            assert!((config.mu(size("image_seq_len")) - case["mu"].as_f64().unwrap()).abs() < 1e-15);
            // With one step the reference divides 0 by 0; null is its NaN.
            let Ok(sigmas) = serde_json::from_value::<Vec<f32>>(case["sigmas"].clone()) else {
                assert_eq!(schedule.sigmas, [1.0, 0.0]);
                continue;
            };
            let timesteps: Vec<f32> = serde_json::from_value(case["timesteps"].clone()).unwrap();
            assert_eq!((&schedule.sigmas, &schedule.timesteps), (&sigmas, &timesteps), "{name} {case}");
            compared += 1;
        }
    }
    assert_eq!(compared, 15);
}

#[test]
fn published_vectors_hold() {
    let qwen = config(&qwen()).unwrap();
    let at = |steps, tokens| Schedule::new(&qwen, steps, tokens).unwrap().sigmas;
    let large = [1.0, 0.916024, 0.820046, 0.709295, 0.580075, 0.427347, 0.244054, 0.02, 0.0];
    close(&at(8, 64 * 64), &large);
    close(&at(4, 32 * 32), &[1.0, 0.749268, 0.432588, 0.02, 0.0]);
    close(&at(4, 83 * 83), &[1.0, 0.78098, 0.475549, 0.02, 0.0]);

    let lightning = config(&golden::json("qwen_sched.json")["qwen_image_lightning"]["config"]).unwrap();
    let at = |steps| Schedule::new(&lightning, steps, 4096).unwrap().sigmas;
    close(&at(4), &[1.0, 0.9, 0.75, 0.5, 0.0]);
    close(&at(8), &[1.0, 0.954545, 0.9, 0.833333, 0.75, 0.642857, 0.5, 0.3, 0.0]);
}

#[test]
fn fixed_and_linear_shifts_and_given_levels() {
    // Computed by hand from s -> 3 s / (1 + 2 s) on 1, 3/4, 1/2, 1/4.
    let fixed = config(&json!({ "shift": 3.0 })).unwrap();
    close(&Schedule::new(&fixed, 4, 1).unwrap().sigmas, &[1.0, 0.9, 0.75, 0.5, 0.0]);

    // At 256 tokens mu is the base shift, so s -> mu / (mu + 1 / s - 1) with mu = 2.
    let linear = json!({ "use_dynamic_shifting": true, "time_shift_type": "linear", "base_shift": 2.0 });
    let linear = config(&linear).unwrap();
    close(&Schedule::new(&linear, 2, 256).unwrap().sigmas, &[1.0, 2.0 / 3.0, 0.0]);

    let plain = config(&json!({})).unwrap();
    let turbo = [1.0, 0.978453, 0.95418, 0.926626, 0.89508, 0.845148, 0.704534, 0.414568];
    let schedule = Schedule::with_sigmas(&plain, &turbo, 4096).unwrap();
    assert_eq!(schedule.sigmas[..8], turbo);
    assert_eq!(schedule.sigmas[8], 0.0);
    close(&schedule.timesteps[1..2], &[978.453]);
}

#[test]
fn one_step_starts_from_noise() {
    let schedule = Schedule::new(&config(&qwen()).unwrap(), 1, 4096).unwrap();
    assert_eq!(schedule, Schedule { sigmas: vec![1.0, 0.0], timesteps: vec![1000.0] });
    // Rounding takes the first level of this shift to 1.0000001, in the reference too.
    let shift = config(&json!({ "shift": 1.930_881_579_472_362_2, "shift_terminal": 0.02 })).unwrap();
    for steps in [1, 50] {
        let first = Schedule::new(&shift, steps, 4096).unwrap().sigmas[0];
        assert!((first - 1.0).abs() < 1e-6, "{first}");
    }
}

#[test]
fn strength_cuts_whole_steps_as_the_reference_does() {
    let config = config(&qwen()).unwrap();
    let whole = |steps| Schedule::new(&config, steps, 24).unwrap();
    // (steps, strength, steps that Python keeps): int(max(n - min(n * s, n), 0)) is the first one.
    for (steps, strength, kept) in
        [(5, 0.6, 3), (20, 0.75, 15), (10, 0.29, 3), (100, 0.29, 29), (4, 1.0, 4), (4, 0.0, 0), (3, 0.1, 1)]
    {
        let (all, cut) = (whole(steps), whole(steps).for_strength(strength));
        assert_eq!(cut.steps(), kept, "{steps} steps at {strength}");
        assert_eq!(cut.sigmas, all.sigmas[steps - kept..]);
    }
    assert_eq!(whole(4).for_strength(0.0).sigmas, [0.0]);
    assert_eq!(whole(4).for_strength(7.0), whole(4));
    assert_eq!(whole(4).for_strength(-1.0).steps(), 0);
    assert_eq!(whole(4).for_strength(f32::NAN), whole(4));
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    for (field, value) in [
        ("_class_name", json!("UniPCMultistepScheduler")),
        ("use_karras_sigmas", json!(true)),
        ("use_exponential_sigmas", json!(true)),
        ("use_beta_sigmas", json!(true)),
        ("invert_sigmas", json!(true)),
        ("stochastic_sampling", json!(true)),
        ("num_train_timesteps", json!(0)),
        ("shift", json!(0)),
        ("shift", json!(-1.0)),
        ("shift_terminal", json!(1.0)),
        ("shift_terminal", json!(-0.1)),
        ("base_shift", json!(1e308)),
        ("max_shift", json!(null)),
        ("max_image_seq_len", json!(256)),
    ] {
        let message = config(&with(field, value)).unwrap_err().to_string();
        assert!(message.contains(field), "{field}: {message}");
    }
    for (field, value) in [("num_train_timesteps", json!(-4)), ("time_shift_type", json!("cosine"))] {
        assert!(config(&with(field, value)).is_err(), "{field}");
    }
    assert!(SchedulerConfig::from_json("[").is_err());
    assert!(config(&with("something_new", json!({ "a": [1] }))).is_ok());
    assert!(config(&with("shift_terminal", json!(0))).is_ok());
}

#[test]
fn absurd_sizes_and_steps_are_refused() {
    let qwen = config(&qwen()).unwrap();
    for steps in [0, MAX_STEPS + 1, usize::MAX] {
        assert!(Schedule::new(&qwen, steps, 4096).is_err(), "{steps}");
    }
    let steep = config(&with("max_image_seq_len", json!(257))).unwrap();
    assert!(Schedule::new(&steep, 4, 1 << 40).is_err());
    assert!(Schedule::with_sigmas(&qwen, &[2.0, f32::NAN], 4096).is_err());
}

/// Of the published schedule: x -> 3 x / (1 + 2 x) at levels 1, 1 - 1/N, ..
#[test]
fn lightning_has_its_own_levels() {
    let qwen = r#"{"use_dynamic_shifting": true, "base_shift": 0.5, "max_shift": 0.9, "max_image_seq_len": 8192,
        "shift_terminal": 0.02}"#;
    let config = SchedulerConfig::from_json(qwen).unwrap().lightning();
    let eight: [f32; 9] = [1.0, 0.954_545, 0.9, 0.833_333, 0.75, 0.642_857, 0.5, 0.3, 0.0];
    for (steps, want) in [(4, &[1.0, 0.9, 0.75, 0.5, 0.0][..]), (8, &eight)] {
        for tokens in [256, 4096] {
            let got = Schedule::new(&config, steps, tokens).unwrap().sigmas;
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        }
    }
}
