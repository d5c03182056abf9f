use serde_json::json;

use super::*;

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn whole_numbers_outside_of_the_range_are_refused_by_name() {
    for bad in [json!(0), json!(201), json!(1_000_000_000), json!(-1), json!(1.5), json!("4"), json!([1])] {
        let config = json!({ "layers": bad });
        let fields = Fields::of("transformer", &config).unwrap();
        let got = message(fields.integer("layers", None, 1..=200));
        assert!(got.contains("transformer"), "{got}");
        assert!(
            got.contains("layers") && got.contains("1 to 200") && got.contains(&bad.to_string()),
            "{got}"
        );
    }
}

#[test]
fn an_absent_number_takes_its_default_or_is_an_error() {
    let config = json!({ "null": null });
    let fields = Fields::of("vae", &config).unwrap();
    assert_eq!(fields.integer("none", Some(7), 1..=9).unwrap(), 7);
    assert_eq!(fields.integer("null", Some(7), 1..=9).unwrap(), 7);
    assert!(message(fields.integer("none", None, 1..=9)).contains("missing"));
}

#[test]
fn lists_are_checked_in_length_and_value() {
    let config = json!({ "short": [1.0], "wild": [1.0, 1e40], "good": [1, 2.5] });
    let fields = Fields::of("vae", &config).unwrap();
    assert_eq!(fields.numbers("good", 2, -1e3..=1e3).unwrap(), [1.0, 2.5]);
    assert!(message(fields.numbers("short", 2, -1e3..=1e3)).contains("2 numbers"));
    assert!(fields.numbers("wild", 2, -1e3..=1e3).is_err());
    assert!(fields.integers("good", &[], 1..=4, 1..=4).is_err());
}

#[test]
fn long_values_are_shortened_in_messages() {
    let config = json!({ "layers": "x".repeat(10_000) });
    let got = message(Fields::of("vae", &config).unwrap().integer("layers", None, 1..=2));
    assert!(got.len() < 200, "{} bytes", got.len());
}

#[test]
fn what_is_not_json_names_the_component() {
    for bad in ["", "{", "[1,]", "\u{feff}{}", "{\"a\": NaN}"] {
        assert!(message(parse("text_encoder", bad)).contains("text_encoder"));
    }
    let deep = "[".repeat(100_000);
    assert!(parse("text_encoder", &deep).is_err());
}
