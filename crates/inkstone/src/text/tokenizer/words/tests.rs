use serde_json::{Value, json};
use tokenizers::Model;
use tokenizers::models::bpe::BpeBuilder;

use super::Words;

/// A stream of numbers, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Letters, some tokens that merges make of them, and merges in any order, some of them twice.
fn vocabulary(numbers: &mut Numbers) -> (Vec<String>, Vec<(String, String)>) {
    let mut tokens: Vec<String> = ["a", "b", "c", "\u{e9}", "<unk>"].map(str::to_owned).into();
    if numbers.below(2) == 0 {
        tokens.extend(["<0xF0>", "<0x9F>", "<0x8D>", "<0x8E>"].map(str::to_owned));
    }
    let mut merges = Vec::new();
    for _ in 0..numbers.below(40) {
        let (a, b) = (&tokens[numbers.below(tokens.len())], &tokens[numbers.below(tokens.len())]);
        let (pair, joined) = ((a.clone(), b.clone()), format!("{a}{b}"));
        if joined.len() > 40 {
            continue;
        }
        if !tokens.contains(&joined) {
            tokens.push(joined);
        }
        merges.insert(numbers.below(merges.len() + 1), pair);
    }
    (tokens, merges)
}

/// Known letters, an unknown one, and one that may have tokens for its bytes.
fn word(numbers: &mut Numbers) -> String {
    let letters = ["a", "b", "c", "a", "b", "\u{e9}", "z", "\u{1F34E}"];
    (0..numbers.below(30)).map(|_| letters[numbers.below(letters.len())]).collect()
}

/// Each way of the crate's own, over vocabularies that chance made.
#[test]
fn words_have_the_tokens_that_the_crate_gives_them() {
    let mut numbers = Numbers(1);
    for round in 0..600 {
        let (tokens, merges) = vocabulary(&mut numbers);
        let ids: Vec<(String, u32)> = tokens.iter().cloned().zip(100..).collect();
        let [unknown, fuse, fallback, whole] = [0; 4].map(|_| numbers.below(2) == 0);
        let mut builder = BpeBuilder::new()
            .cache_capacity(0)
            .vocab_and_merges(ids.iter().cloned().collect::<tokenizers::models::bpe::Vocab>(), merges.clone())
            .fuse_unk(fuse)
            .byte_fallback(fallback)
            .ignore_merges(whole);
        if unknown {
            builder = builder.unk_token("<unk>".into());
        }
        let crates = builder.build().unwrap();
        let vocab: serde_json::Map<_, _> = ids.iter().map(|(token, id)| (token.clone(), json!(id))).collect();
        let own: Words = serde_json::from_value(json!({
            "vocab": vocab, "merges": merges, "unk_token": unknown.then_some("<unk>"), "fuse_unk": fuse,
            "byte_fallback": fallback, "ignore_merges": whole,
        }))
        .unwrap();
        assert_eq!(own.get_vocab(), crates.get_vocab());
        for _ in 0..20 {
            let word = word(&mut numbers);
            assert_eq!(own.tokenize(&word).unwrap(), crates.tokenize(&word).unwrap(), "{round}: {word}");
        }
        for (token, id) in &ids {
            assert_eq!(own.token_to_id(token), Some(*id));
            assert_eq!(own.id_to_token(*id).as_ref(), Some(token));
        }
    }
}

fn problem(model: Value) -> String {
    serde_json::from_value::<Words>(model).unwrap_err().to_string()
}

#[test]
fn merges_of_what_is_no_token_are_named_by_their_line() {
    let model = |merges: Value| json!({"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges});
    let found = problem(model(json!([["a", "b"], ["c", "b"]])));
    assert!(found.contains("line 2 of its merges joins something that is no token"), "{found}");
    let found = problem(model(json!([["a", "b"], ["a", "b"], ["a", "ab"]])));
    assert!(found.contains("line 3 of its merges gives something that is no token"), "{found}");
    assert!(problem(json!({"vocab": {"a": u64::MAX}, "merges": []})).contains("u32"));
}

#[test]
fn an_unknown_token_that_is_none_is_an_error_of_the_words_that_need_it() {
    let model = json!({"vocab": {"a": 0}, "merges": [], "unk_token": "?"});
    let words: Words = serde_json::from_value(model).unwrap();
    assert_eq!(words.tokenize("a").unwrap().len(), 1);
    assert!(words.tokenize("b").unwrap_err().to_string().contains("\"?\" is no token"));
    assert!(words.tokenize("").unwrap().is_empty());
}
