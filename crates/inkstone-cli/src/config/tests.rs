use super::*;

fn refused(text: &[u8]) -> (String, String) {
    match parse("inkstone.toml", text) {
        Err(Failure::Told(told)) => (told.what, told.why),
        other => panic!("expected a refusal of {text:?}, got {other:?}"),
    }
}

#[test]
fn errors_have_line_and_column() {
    let (what, why) = refused(b"steps = 20\nstpes = 3\n");
    assert_eq!(what, "inkstone.toml:2:1 is wrong");
    assert!(why.contains("stpes") && why.contains("steps"), "{why}");
    let (what, why) = refused("# \u{e9}\n\nsteps = \"many\"".as_bytes());
    assert_eq!(what, "inkstone.toml:3:9 is wrong");
    assert!(why.contains("many"), "{why}");
    assert_eq!(refused(b"steps = \n").0, "inkstone.toml:1:9 is wrong");
    assert_eq!(refused(b"steps = 1\nsteps = 2").0, "inkstone.toml:2:1 is wrong");
    assert_eq!(refused(b"device = \"gpu\"").0, "inkstone.toml:1:10 is wrong");
    assert_eq!(refused(b"steps = 1\nmodel = \"\xff\"").0, "inkstone.toml:2:10 is wrong");
    assert_eq!(refused(b"[steps]\nx = 1").0, "inkstone.toml:1:1 is wrong");
}

#[test]
fn a_byte_order_mark_is_no_error_and_no_column() {
    assert_eq!(parse("x", b"\xef\xbb\xbfsteps = 7").unwrap()["steps"], Value::Integer(7));
    assert_eq!(refused(b"\xef\xbb\xbfstpes = 7").0, "inkstone.toml:1:1 is wrong");
}

#[test]
fn the_list_of_keys_is_the_settings() {
    let why = refused(b"no-such-key = 1").1;
    let known: Vec<&str> = why.split('`').skip(3).step_by(2).collect();
    assert_eq!(known, KEYS);
}

#[test]
fn the_environment_has_numbers_and_truth_values() {
    let read = |key: &str, text: &str| from_environment(key, &variable(key), text.into());
    assert_eq!(read("steps", "12").unwrap(), Value::Integer(12));
    assert_eq!(read("true-cfg-scale", "2.5").unwrap(), Value::Float(2.5));
    assert_eq!(read("quiet", "true").unwrap(), Value::Boolean(true));
    assert_eq!(read("model", "7").unwrap(), Value::String("7".into()));
    assert_eq!(read("seed", "18446744073709551615").unwrap(), Value::String(u64::MAX.to_string()));
    for (key, text) in [("steps", "many"), ("steps", "1.5"), ("steps", "-1"), ("quiet", "1"), ("seed", "-2")]
    {
        let Err(Failure::Told(told)) = read(key, text) else { panic!("{key}={text} is taken") };
        assert_eq!(told.what, format!("{} is wrong", variable(key)));
        assert!(told.why.contains(text), "{}", told.why);
    }
}

#[test]
fn docs_list_every_key() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/command-line.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, listed) = docs.split_once("Keys: ").unwrap();
    let listed: Vec<&str> = listed.split("\n\n").next().unwrap().split('`').skip(1).step_by(2).collect();
    assert_eq!(listed, KEYS);
}
