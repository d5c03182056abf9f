use super::*;

#[test]
fn time_left_after_the_second_step_leaves_out_the_first() {
    let begun = Instant::now();
    let at = |ms: u64| begun + Duration::from_millis(ms);
    let mut pace = Pace::new(begun);
    // The first step takes 3 s, the others 1 s.
    assert!((pace.part_s(at(3000)) - 3.0).abs() < 1e-9);
    for done in 2..=20 {
        let part_s = pace.part_s(at(2000 + 1000 * done));
        assert!((part_s - 1.0).abs() < 1e-9, "step {done}: {part_s}");
    }
}

#[test]
fn time_left_is_right_within_15_percent_when_steps_differ() {
    let begun = Instant::now();
    let mut pace = Pace::new(begun);
    // Steps of 400 ms that differ by 10 %, after a first one of 900 ms.
    let ms: Vec<u64> = (0..20).map(|i| if i == 0 { 900 } else { [360, 440, 400][i % 3] }).collect();
    let end: u64 = ms.iter().sum();
    let mut now = 0;
    for (i, step) in ms.iter().enumerate() {
        now += step;
        let part_s = pace.part_s(begun + Duration::from_millis(now));
        let left_s = part_s * (ms.len() - i - 1) as f64;
        let really_s = (end - now) as f64 / 1000.0;
        if i >= 1 {
            assert!((left_s - really_s).abs() <= 0.15 * really_s, "step {}: {left_s} for {really_s}", i + 1);
        }
    }
}

#[test]
fn time_left_follows_a_change_of_speed_within_eight_steps() {
    let begun = Instant::now();
    let mut pace = Pace::new(begun);
    // Ten steps of 1 s, then steps of 0.2 s.
    let ends = (1..=10).map(|i| 1000 * i).chain((1..=8).map(|i| 10_000 + 200 * i));
    let last = ends.map(|ms| pace.part_s(begun + Duration::from_millis(ms))).last().unwrap();
    assert!((last - 0.2).abs() < 1e-9, "{last}");
}

#[test]
fn durations_in_words() {
    for (seconds, text) in [
        (0.354, "0.35 s"),
        (12.3, "12 s"),
        (99.9, "1 min 40 s"),
        (3599.6, "60 min 00 s"),
        (7322.0, "2 h 02 min"),
    ] {
        assert_eq!(duration(seconds), text);
    }
}

#[test]
fn the_table_has_every_stage_and_the_total() {
    let taken = [
        Taken { stage: Stage::Text, seconds: 0.25, peak_bytes: Some(64 << 20) },
        Taken { stage: Stage::Denoise, seconds: 1.5, peak_bytes: Some(128 << 20) },
    ];
    let text = table(&taken);
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["text", "0.250", "64", "MiB"],
            vec!["denoise", "1.500", "128", "MiB"],
            vec!["total", "1.750", "128", "MiB"]
        ]
    );
}
