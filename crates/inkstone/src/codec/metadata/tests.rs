use super::{LoraRecord, MAX_JSON_BYTES, Metadata, Origin};
use crate::codec::{exif, png};
use crate::request::InitImage;
use crate::{Pixels, Request, golden};

fn pixels() -> Pixels {
    Pixels { width_px: 4, height_px: 2, rgb: (0..24).collect() }
}

fn request() -> Request {
    Request {
        prompt: "a \"cat\"\n\u{0}🐈 <b>".into(),
        negative_prompt: Some(" ".into()),
        width_px: 512,
        height_px: 768,
        steps: 20,
        seed: u64::MAX,
        true_cfg_scale: 3.7,
        init: Some(InitImage { pixels: pixels().into(), strength: 0.6 }),
    }
}

#[test]
fn json_is_canonical_and_comes_back() {
    let metadata = Metadata::of(&request(), "tiny");
    let json = metadata.to_json();
    let want = concat!(
        r#"{"height":768,"model":"tiny","negative_prompt":" ","prompt":"a \"cat\"\n\u0000🐈 <b>","#,
        r#""seed":18446744073709551615,"steps":20,"strength":0.6,"true_cfg_scale":3.7,"version":"0.1.0","width":512}"#
    );
    assert_eq!(json, want);
    assert_eq!(Metadata::from_json(&json).unwrap(), metadata);
}

#[test]
fn keys_are_sorted() {
    let text = || Some("x".to_owned());
    let all = Metadata { dtype: text(), image: text(), ..Metadata::of(&request(), "tiny") }.to_json();
    let keys: Vec<&str> =
        all.split("\":").filter_map(|part| part.rsplit_once('"').map(|(_, key)| key)).collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(keys, sorted);
    assert_eq!(keys.len(), 12);
}

#[test]
fn a_picture_carries_its_settings() {
    let mut metadata = Metadata::of(&request(), "tiny");
    metadata.loras.push(LoraRecord { name: "ink.safetensors".into(), scale: -0.5, sha256: "ab".repeat(32) });
    let file = png::write(&pixels(), Some(&metadata)).unwrap();
    assert_eq!(Metadata::read_png(&file).unwrap(), Some((metadata, Origin::Inkstone)));
    let bare = png::write(&pixels(), None).unwrap();
    assert_eq!(Metadata::read_png(&bare).unwrap(), None);
}

#[test]
fn settings_of_other_programs_are_read() {
    let read = |name: &str| Metadata::read_png(&golden::bytes(&format!("pictures/{name}"))).unwrap();
    for (name, prompt) in [
        ("a1111.png", "a cat, masterpiece"),
        ("a1111_unicode.png", "eine Katze, 猫"),
        ("a1111_compressed.png", "a cat, masterpiece"),
    ] {
        let (metadata, origin) = read(name).unwrap();
        assert_eq!(origin, Origin::A1111, "{name}");
        assert_eq!(metadata.prompt.as_deref(), Some(prompt));
        assert_eq!((metadata.steps, metadata.seed), (Some(30), Some(1234)));
        assert_eq!((metadata.width_px, metadata.height_px), (Some(640), Some(960)));
    }
    let (metadata, origin) = read("mflux.png").unwrap();
    let want = Metadata {
        prompt: Some("a red apple".into()),
        negative_prompt: None,
        model: Some("Qwen/Qwen-Image".into()),
        seed: Some(42),
        steps: Some(20),
        true_cfg_scale: Some(4.0),
        width_px: Some(1024),
        height_px: Some(768),
        ..Metadata::default()
    };
    assert_eq!((metadata, origin), (want, Origin::Mflux));
    assert_eq!(read("orientation6.png"), None);
    assert_eq!(read("gray.png"), None);
}

#[test]
fn row_96_hostile_settings_give_known_fields_or_an_error() {
    let json =
        r#"{"prompt":"x","image":"/etc/passwd","url":"http://127.0.0.1/","lora":["../x"],"exec":{"a":1}}"#;
    let read = Metadata::from_json(json).unwrap();
    let known =
        Metadata { prompt: Some("x".into()), image: Some("/etc/passwd".into()), ..Metadata::default() };
    assert_eq!(read, known);

    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    let long = format!("{{\"prompt\":\"{}\"}}", "x".repeat(MAX_JSON_BYTES));
    for bad in [
        "",
        "[]",
        "{",
        r#"{"seed":-1}"#,
        r#"{"seed":18446744073709551616}"#,
        r#"{"steps":1.5}"#,
        r#"{"true_cfg_scale":1e999}"#,
        r#"{"prompt":7}"#,
        r#"{"prompt":"a","prompt":"b"}"#,
        &deep,
        &long,
    ] {
        assert!(Metadata::from_json(bad).is_err(), "{}", &bad[..bad.len().min(40)]);
    }
}

#[test]
fn exif_with_places_outside_of_it_has_no_comment() {
    assert_eq!(exif::user_comment(b""), None);
    assert_eq!(exif::user_comment(b"II*\0\xff\xff\xff\xff"), None);
    // A directory that says it has 65,535 entries, one that points at itself, one whose comment is 4 GB long.
    assert_eq!(exif::user_comment(b"II*\0\x08\0\0\0\xff\xff"), None);
    let entry = |tag: u16, count: u32, place: u32| {
        [&tag.to_be_bytes()[..], &[0, 4], &count.to_be_bytes(), &place.to_be_bytes()].concat()
    };
    let root = |place| [b"MM\0*\0\0\0\x08\0\x01".to_vec(), entry(0x8769, 1, place)].concat();
    assert_eq!(exif::user_comment(&root(8)), None);
    let comment =
        |count| [root(22), vec![0, 1], entry(0x9286, count, 36), b"ASCII\0\0\0hello".to_vec()].concat();
    assert_eq!(exif::user_comment(&comment(13)).as_deref(), Some("hello"));
    assert_eq!(exif::user_comment(&comment(u32::MAX)), None);
}
