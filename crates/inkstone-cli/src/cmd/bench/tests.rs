use inkstone::bench::{Clock, Round};

use super::*;

fn measured(seconds: f64) -> Measurement {
    Measurement {
        case: "block/512".into(),
        dtype: "f32".into(),
        device: "cpu (avx512, 2 threads)".into(),
        clock: Clock::Wall,
        seconds,
        seconds_min: seconds,
        seconds_max: seconds,
        busy_rounds: 0,
        gflops: Some(300.04),
        peak_percent: Some(82.44),
        rounds: vec![Round { seconds, peak_gflops: Some(364.0), pace_gflops: Some(364.0) }],
    }
}

#[test]
fn a_row_has_units_and_says_what_was_not_counted() {
    let one = row(&measured(0.8), None);
    assert_eq!(
        one.split_whitespace().collect::<Vec<_>>().join(" "),
        "block/512 f32 800.00 ms 800.00 ms..800.00 ms 300.0 82.4 %"
    );
    let busy = row(&Measurement { busy_rounds: 1, ..measured(2e-6) }, Some("1.50x as fast"));
    assert!(busy.contains("2.0 us") && busy.ends_with("1 of 1 runs busy  1.50x as fast\n"), "{busy}");
}

#[test]
fn where_there_is_no_peak_there_is_no_share_of_it() {
    let scalar = row(&Measurement { peak_percent: None, ..measured(0.8) }, None);
    assert!(scalar.ends_with(" 300.0        -\n"), "{scalar}");
    let picture = row(&Measurement { peak_percent: None, gflops: None, ..measured(0.8) }, None);
    assert!(picture.ends_with(" -        -\n"), "{picture}");
}

/// What is said of `now` where an earlier run wrote `then`.
fn said(then: &Measurement, now: &Measurement) -> String {
    let event = json!({ "event": "measurement", "measurement": then, "ratio": null });
    let earlier = Earlier::parse(&format!("{{\"event\": \"bench\"}}\n{event}\n")).unwrap();
    compare::verdict(earlier.change(now))
}

#[test]
fn ratios_are_to_the_same_case_type_device_and_clock() {
    let then = measured(1.2);
    assert_eq!(said(&then, &measured(0.6)), "2.00x as fast");
    let now = measured(0.6);
    for other in [
        Measurement { case: "block/256".into(), ..now.clone() },
        Measurement { dtype: "bf16".into(), ..now.clone() },
        Measurement { device: "cpu (avx512, 1 threads)".into(), ..now.clone() },
        Measurement { clock: Clock::Processor, ..now },
    ] {
        assert_eq!(said(&then, &other), "not measured then");
    }
    assert!(Earlier::parse("").is_none());
    assert!(Earlier::parse("no json").is_none());
}

#[test]
fn files_from_before_there_were_clocks_are_of_the_wall() {
    let mut then = json!({ "measurement": measured(1.2) });
    then["measurement"].as_object_mut().unwrap().remove("clock").unwrap();
    let change = Earlier::parse(&then.to_string()).unwrap().change(&measured(0.6));
    assert_eq!(compare::verdict(change), "2.00x as fast");
}

#[test]
fn three_percent_are_noise_and_busy_times_are_said_to_be() {
    let then = measured(1.0);
    assert_eq!(said(&then, &measured(0.98)), "as before");
    assert_eq!(said(&then, &measured(1.02)), "as before");
    assert_eq!(said(&then, &measured(2.0)), "0.50x as fast: slower");
    let busy = Measurement { busy_rounds: 1, ..then };
    assert_eq!(said(&busy, &measured(0.5)), "2.00x as fast, but the machine was busy then");
}
