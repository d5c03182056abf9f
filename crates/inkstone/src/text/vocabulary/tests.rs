use super::{Index, TOKENS_LIMIT, Vocabulary};

fn read(json: &str) -> serde_json::Result<Vocabulary<u64>> {
    serde_json::from_str(json)
}

#[test]
fn tokens_are_found_by_their_text_and_only_they() {
    // As long as words of the hash and longer, and one that is empty.
    let texts: Vec<String> = (0..5000).map(|i| "ab\u{e9}".repeat(i % 9) + &i.to_string()).collect();
    let pairs: Vec<String> =
        texts.iter().enumerate().map(|(i, text)| format!("{text:?}:{}", 7 * i)).collect();
    let vocabulary = read(&format!("{{\"\":1,{}}}", pairs.join(","))).unwrap();
    assert_eq!((vocabulary.len(), vocabulary.place(""), vocabulary.id(0)), (5001, Some(0), 1));
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(vocabulary.place(text), Some(i + 1), "{text}");
        assert_eq!((vocabulary.token(i + 1), vocabulary.id(i + 1)), (text.as_str(), 7 * i as u64));
        assert!(vocabulary.is_at(i + 1, text) && !vocabulary.is_at(i, text));
        assert_eq!(vocabulary.place(&format!("{text}\0")), None);
    }
    assert!(!vocabulary.is_at(5001, ""));
    assert_eq!(vocabulary.iter().nth(3), Some(("ab\u{e9}ab\u{e9}2", 14)));
}

#[test]
fn escapes_are_read_and_what_is_no_number_is_refused() {
    let vocabulary = read(r#"{"\"\u00e9":0,"\\":1}"#).unwrap();
    assert_eq!((vocabulary.place("\"\u{e9}"), vocabulary.place("\\")), (Some(0), Some(1)));
    for bad in [r#"{"a":-1}"#, r#"{"a":"1"}"#, r#"{"a":1.5}"#, r#"["a"]"#, r#"{"a":1"#] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert!(read(r#"{"a":1,"b":2,"a":3}"#).unwrap_err().to_string().contains("\"a\" occurs twice"));
}

#[test]
fn one_more_than_the_limit_is_kept() {
    let many: Vec<String> = (0..TOKENS_LIMIT + 5).map(|i| format!("\"{i}\":{i}")).collect();
    let vocabulary = read(&format!("{{{}}}", many.join(","))).unwrap();
    assert_eq!(vocabulary.len(), TOKENS_LIMIT + 1);
    assert_eq!(vocabulary.place(&(TOKENS_LIMIT + 1).to_string()), None);
}

#[test]
fn places_with_one_hash_are_told_apart() {
    let mut index = Index::default();
    assert_eq!(index.find(7, |_| true), None);
    for place in 0..3000 {
        index.insert(u32::MAX, place).unwrap(); // the last slot: the search goes on from the first
    }
    for place in 0..3000 {
        assert_eq!(index.find(u32::MAX, |other| other == place), Some(place));
    }
    assert_eq!(index.find(u32::MAX, |_| false), None);
}
