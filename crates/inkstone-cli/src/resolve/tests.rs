use inkstone::request::Aspect;

use super::*;

fn defaults() -> Defaults {
    Defaults { width_px: 64, height_px: 64, steps: 20, true_cfg_scale: 4.0, negative_prompt: " ".into() }
}

fn resolved(flags: &What, stored: Option<&Metadata>, settings: &Settings) -> Vec<Request> {
    requests(Sources { flags, stored, settings, defaults: &defaults() }, &["a cat".into()], |_| Ok(None))
        .unwrap()
}

#[test]
fn flags_win_over_metadata_over_settings_over_the_model() {
    let settings = Settings { steps: Some(3), ..Settings::default() };
    let stored = Metadata { steps: Some(2), ..Metadata::default() };
    let flags = What { steps: Some(1), ..What::default() };
    let none = (What::default(), Settings::default());
    assert_eq!(resolved(&flags, Some(&stored), &settings)[0].steps, 1);
    assert_eq!(resolved(&none.0, Some(&stored), &settings)[0].steps, 2);
    assert_eq!(resolved(&none.0, None, &settings)[0].steps, 3);
    assert_eq!(resolved(&none.0, None, &none.1)[0].steps, 20);
}

#[test]
fn a_default_request_has_guidance() {
    let request = &resolved(&What::default(), None, &Settings::default())[0];
    assert_eq!((request.negative_prompt.as_deref(), request.true_cfg_scale), (Some(" "), 4.0));
    assert_eq!((request.width_px, request.height_px), (64, 64));
}

#[test]
fn a_stored_request_without_a_negative_prompt_has_none() {
    let settings = Settings { negative_prompt: Some("blur".into()), ..Settings::default() };
    let request = &resolved(&What::default(), Some(&Metadata::default()), &settings)[0];
    assert_eq!(request.negative_prompt, None);
}

#[test]
fn sizes() {
    let size = |what: What| {
        let settings = Settings { height: Some(96), ..Settings::default() };
        let request = resolved(&what, None, &settings).remove(0);
        (request.width_px, request.height_px)
    };
    let given = Some(Size { width_px: 128, height_px: 80 });
    assert_eq!(size(What { size: given, ..What::default() }), (128, 80));
    assert_eq!(size(What { width: Some(128), ..What::default() }), (128, 96));
    let aspect: Option<Aspect> = "1:2".parse().ok();
    assert_eq!(size(What { aspect, ..What::default() }), (64, 128));
}

#[test]
fn one_picture_a_seed() {
    let seeds = |seed: &[Seed], count| {
        let what = What { seed: seed.to_vec(), count, ..What::default() };
        resolved(&what, None, &Settings::default()).iter().map(|r| r.seed).collect::<Vec<_>>()
    };
    assert_eq!(seeds(&[Seed::Fixed(7)], Some(3)), [7, 8, 9]);
    assert_eq!(seeds(&[Seed::Fixed(u64::MAX)], Some(2)), [u64::MAX, 0]);
    assert_eq!(seeds(&[Seed::Fixed(7), Seed::Fixed(3)], None), [7, 3]);
    let random = seeds(&[], Some(2));
    assert_eq!(random[1], random[0] + 1);
    assert_ne!(seeds(&[Seed::Random], None), seeds(&[Seed::Random], None));
}

#[test]
fn row_42_counts_that_are_refused() {
    for (seed, count) in [(vec![], 0), (vec![], 11), (vec![Seed::Fixed(1), Seed::Fixed(2)], 2)] {
        let what = What { seed, count: Some(count), ..What::default() };
        let sources =
            Sources { flags: &what, stored: None, settings: &Settings::default(), defaults: &defaults() };
        let Err(Failure::Told(told)) = requests(sources, &["a cat".into()], |_| Ok(None)) else {
            panic!("{count} is taken")
        };
        assert!(told.what.contains("count") && told.exit == 2);
    }
}

#[test]
fn every_prompt_has_the_same_seeds() {
    let drawn = |prompts: &[&str], seed: &[Seed], count| {
        let prompts: Vec<String> = prompts.iter().map(|&prompt| prompt.into()).collect();
        let what = What { seed: seed.to_vec(), count, ..What::default() };
        let (settings, defaults) = (Settings::default(), defaults());
        let sources = Sources { flags: &what, stored: None, settings: &settings, defaults: &defaults };
        requests(sources, &prompts, |_| Ok(None))
    };
    let two = drawn(&["a cat", "a dog"], &[Seed::Fixed(7)], Some(2)).unwrap();
    let told: Vec<_> = two.iter().map(|r| (r.prompt.as_str(), r.seed)).collect();
    assert_eq!(told, [("a cat", 7), ("a cat", 8), ("a dog", 7), ("a dog", 8)]);
    let random = drawn(&["a cat", "a dog"], &[], None).unwrap();
    assert_eq!(random[0].seed, random[1].seed, "the same noise, to compare prompts");
    assert_eq!(drawn(&["a cat"; 1000], &[], None).unwrap().len(), 1000);
    let Err(Failure::Told(told)) = drawn(&["a cat"; 501], &[], Some(2)) else { panic!("1002 are taken") };
    assert!(told.what.contains("1002 pictures") && told.exit == 2, "{}", told.what);
}
