use inkstone::bench::Round;

use super::*;

fn measured(seconds: f64) -> Measurement {
    Measurement {
        case: "block/512".into(),
        dtype: "f32".into(),
        device: "cpu (avx512, 2 threads)".into(),
        seconds,
        seconds_min: seconds,
        seconds_max: seconds,
        busy_rounds: 0,
        gflops: Some(300.04),
        peak_percent: Some(82.44),
        rounds: vec![Round { seconds, peak_gflops: 364.0 }],
    }
}

#[test]
fn a_row_has_units_and_says_what_was_not_counted() {
    let one = row(&measured(0.8), None);
    assert_eq!(
        one.split_whitespace().collect::<Vec<_>>().join(" "),
        "block/512 f32 800.00 ms 800.00 ms..800.00 ms 300.0 82.4 %"
    );
    let busy = row(&Measurement { busy_rounds: 1, ..measured(2e-6) }, Some(1.5));
    assert!(busy.contains("2.0 us") && busy.ends_with("1 of 1 runs busy  1.50x as fast\n"), "{busy}");
}

#[test]
fn ratios_are_to_the_same_case_type_and_device() {
    let event = json!({ "event": "measurement", "measurement": measured(1.2), "ratio": null });
    let earlier = Earlier::parse(&format!("{{\"event\": \"bench\"}}\n{event}\n")).unwrap();
    assert_eq!(earlier.ratio(&measured(0.6)), Some(2.0));
    let other = Measurement { dtype: "bf16".into(), ..measured(0.6) };
    assert_eq!(earlier.ratio(&other), None);
    assert!(Earlier::parse("").is_none());
    assert!(Earlier::parse("no json").is_none());
}

#[test]
fn three_percent_are_noise() {
    assert_eq!(compare::verdict(1.02), "as before");
    assert_eq!(compare::verdict(0.98), "as before");
    assert_eq!(compare::verdict(2.0), "2.00x as fast");
    assert_eq!(compare::verdict(0.5), "0.50x as fast: slower");
}
