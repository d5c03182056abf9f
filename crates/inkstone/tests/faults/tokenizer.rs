//! Row 21: tokenizers.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use inkstone::Error;
use inkstone::error::{JsonProblem, TokenizerProblem};
use inkstone::text::PromptTokenizer;

use crate::dir::{Dir, copy_folder};

const TOKENIZER: &str = "tokenizer/tokenizer.json";

/// Calls a function that takes no longer: a pattern that backtracks takes minutes. Counted is this thread's time on a
/// processor where the system tells it, so that a busy machine fails nothing.
fn within_a_second<T>(call: impl FnOnce() -> T) -> T {
    let now = || {
        let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        told.split(' ').next()?.parse().map(Duration::from_nanos).ok()
    };
    let (start, on_processor) = (Instant::now(), now());
    let result = call();
    let on_processor = now().zip(on_processor).map(|(now, before)| now.saturating_sub(before));
    let taken = on_processor.unwrap_or_else(|| start.elapsed());
    assert!(taken < Duration::from_secs(1), "{taken:?}");
    result
}

fn tokenizer_problem(edit: impl Fn(&mut serde_json::Value)) -> TokenizerProblem {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let dir = Dir::model(&format!("tokenizer-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let mut value = serde_json::from_str(&dir.read(TOKENIZER)).unwrap();
    edit(&mut value);
    dir.write(TOKENIZER, value.to_string());
    match within_a_second(|| dir.open().unwrap().tokenizer().unwrap_err()) {
        Error::Tokenizer { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

/// What transformers 5.23 saves as the post-processor of a Qwen tokenizer.
fn template() -> serde_json::Value {
    serde_json::json!({
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {},
    })
}

#[test]
fn row_21_hostile_tokenizers() {
    let got = tokenizer_problem(|t| t["model"]["vocab"]["zzz"] = 512.into());
    assert_eq!(got, TokenizerProblem::IdOutOfRange { token: "zzz".into(), id: 512, vocab_size: 512 });
    let got = tokenizer_problem(|t| t["added_tokens"][0]["id"] = u64::MAX.into());
    assert!(matches!(got, TokenizerProblem::IdOutOfRange { id: u64::MAX, .. }));
    let got = tokenizer_problem(|t| t["model"]["vocab"]["zzz"] = 7.into());
    assert_eq!(got, TokenizerProblem::DuplicateId { id: 7 });
    let got = tokenizer_problem(|t| t["model"]["merges"][3] = "abc".into());
    assert_eq!(got, TokenizerProblem::BadMerge { line: 4 });
    let not_qwen = |edit: &dyn Fn(&mut serde_json::Value)| match tokenizer_problem(edit) {
        TokenizerProblem::NotQwen { part, got, .. } => (part, got),
        other => panic!("{other:?}"),
    };
    // Backtracks without end on "aaaa...b"; and 20 MB of it.
    let evil = |pattern: String| {
        not_qwen(&move |t| {
            t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern.clone().into()
        })
    };
    assert_eq!(evil("(a+)+$".into()), ("pre-tokenizer", "Split by (a+)+$".into()));
    let (part, got) = evil("(a+)+$".repeat(3_500_000));
    assert!(part == "pre-tokenizer" && got.len() < 100);
    let replace = serde_json::json!({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""});
    assert_eq!(not_qwen(&|t| t["normalizer"] = replace.clone()), ("normalizer", "Replace".into()));
    assert_eq!(not_qwen(&|t| t["decoder"] = replace.clone()).0, "decoder");
    assert_eq!(not_qwen(&|t| t["post_processor"] = replace.clone()), ("post-processor", "Replace".into()));
    // The reference asks for what such templates add, at every call.
    let special = serde_json::json!({"SpecialToken": {"id": "<|im_start|>", "type_id": 0}});
    let tokens =
        serde_json::json!({"<|im_start|>": {"id": "<|im_start|>", "ids": [481], "tokens": ["<|im_start|>"]}});
    let text = &template()["single"][0];
    let other = serde_json::json!({"Sequence": {"id": "B", "type_id": 0}});
    for (single, tokens) in [
        (serde_json::json!([special, text]), tokens.clone()),
        (serde_json::json!([text]), tokens),
        (serde_json::json!([text, text]), serde_json::json!({})),
        (serde_json::json!([other]), serde_json::json!({})),
        (serde_json::json!([]), serde_json::json!({})),
    ] {
        let got = not_qwen(&|t| {
            t["post_processor"] = template();
            t["post_processor"]["single"] = single.clone();
            t["post_processor"]["special_tokens"] = tokens.clone();
        });
        assert_eq!(got, ("post-processor", "TemplateProcessing that adds tokens".into()));
    }
    assert_eq!(not_qwen(&|t| t["model"]["type"] = "WordPiece".into()).0, "model");
    assert_eq!(not_qwen(&|t| t["model"]["dropout"] = 0.5.into()).0, "dropout");
    // Longer than any token: nothing may be cut off by its length.
    let long = || "#".repeat(1 << 20);
    let (part, got) = not_qwen(&|t| t["model"]["continuing_subword_prefix"] = long().into());
    assert!(part == "prefix of parts" && got.len() < 100);
    assert_eq!(not_qwen(&|t| t["model"]["end_of_word_suffix"] = "</w>".into()).0, "suffix of words");
    assert_eq!(not_qwen(&|t| t["pre_tokenizer"] = serde_json::Value::Null).0, "pre-tokenizer");

    let dir = Dir::model("tokenizer-size");
    fs::File::options().write(true).open(dir.0.join(TOKENIZER)).unwrap().set_len(200 << 20).unwrap();
    let want = JsonProblem::TooLarge { size_bytes: 200 << 20, limit_bytes: 64_000_000 };
    assert!(matches!(dir.open().unwrap().tokenizer(), Err(Error::Json { problem, .. }) if problem == want));
    dir.write(TOKENIZER, r#"{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}"#);
    assert!(dir.open().unwrap().tokenizer().unwrap_err().to_string().contains("\"a\" occurs twice"));
}

/// Merges that repeat themselves, and tokens that double: a word as long as the longest prompt has its ids at once.
#[test]
fn row_21_endless_merges() {
    let again = |count: usize| vec![serde_json::json!(["a", "a"]); count];
    let got = tokenizer_problem(|t| t["model"]["merges"] = again(300_001).into());
    assert_eq!(got, TokenizerProblem::TooMany { what: "merges", limit: 300_000 });

    let token = |doublings: usize| "a".repeat(1 << doublings);
    let doubling = |doublings: usize| serde_json::json!([token(doublings), token(doublings)]);
    let open = |edit: &dyn Fn(&mut serde_json::Value)| {
        let dir = Dir::model("merges");
        let mut file: serde_json::Value = serde_json::from_str(&dir.read(TOKENIZER)).unwrap();
        // The bytes alone, then 2 to 16,384 of the letter.
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        vocab.retain(|token, _| token.chars().count() == 1);
        assert_eq!(vocab.len(), 256);
        vocab.values_mut().zip(0..).for_each(|(id, number)| *id = number.into());
        vocab.extend((1..=14).map(|doublings| (token(doublings), (255 + doublings).into())));
        file["model"]["merges"] = (0..14).map(doubling).collect::<Vec<_>>().into();
        edit(&mut file["model"]);
        dir.write(TOKENIZER, file.to_string());
        PromptTokenizer::from_json(&dir.open().unwrap().tokenizer().unwrap())
    };
    // 32,768 letters are no token, longer than any, and neither are three, which the crate finds.
    let found = [(doubling(14), "line 14 of its merges"), (serde_json::json!(["a", "aa"]), "Token `aaa`")];
    for (merge, named) in found {
        let error =
            within_a_second(|| open(&|model| model["merges"][13] = merge.clone()).map(drop)).unwrap_err();
        assert_eq!(error.code(), "INK-0313");
        assert!(error.to_string().contains(named), "{error}");
    }
    let more = |model: &mut serde_json::Value| model["merges"].as_array_mut().unwrap().extend(again(100_000));
    for edit in [&|_: &mut serde_json::Value| (), &more as &dyn Fn(&mut _)] {
        let tokenizer = open(edit).unwrap();
        let count = |prompt: &str| within_a_second(|| tokenizer.encode(prompt).unwrap().ids.len());
        // 32,000 = 16,384 + 8,192 + 4,096 + 2,048 + 1,024 + 256: six tokens.
        assert_eq!(count(&"a".repeat(32_000)), count("a") + 5);
    }
}

#[test]
fn a_tokenizer_in_parts_is_the_same() {
    for model in ["golden/data/qwen_tiny", "models/tiny"] {
        let dir = Dir::empty("parts");
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(model), &dir.0);
        let whole: serde_json::Value = serde_json::from_str(&dir.read(TOKENIZER)).unwrap();
        fs::remove_file(dir.0.join(TOKENIZER)).unwrap();
        let files = dir.open().unwrap();
        let parts: serde_json::Value = serde_json::from_slice(&files.tokenizer().unwrap()).unwrap();
        let sizes = ["vocab.json", "merges.txt"].map(|name| dir.read(&format!("tokenizer/{name}")).len());
        assert_eq!(files.tokenizer_file_bytes(), sizes.iter().sum::<usize>());
        assert_eq!(parts["model"]["vocab"], whole["model"]["vocab"]);
        assert_eq!(parts["pre_tokenizer"], whole["pre_tokenizer"]);
        assert_eq!(parts["added_tokens"], whole["added_tokens"]);
        let pair = |merge: &serde_json::Value| match merge.as_str() {
            Some(text) => serde_json::json!(text.split(" ").collect::<Vec<_>>()),
            None => merge.clone(),
        };
        let pairs =
            |merges: &serde_json::Value| merges.as_array().unwrap().iter().map(pair).collect::<Vec<_>>();
        assert_eq!(pairs(&parts["model"]["merges"]), pairs(&whole["model"]["merges"]));
    }
}

/// The prompts and their ids in Python, for each model.
fn pythons_prompts() -> serde_json::Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    serde_json::from_slice(&fs::read(root.join("golden/data/prompts.json")).unwrap()).unwrap()
}

fn assert_pythons_ids(tokenizer: &PromptTokenizer, prompts: &serde_json::Value, name: &str) {
    for case in prompts[name]["prompts"].as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let prompt = case["prompt"].as_str().unwrap();
        assert_eq!(tokenizer.encode(prompt).unwrap().ids, ids, "{name}: {prompt}");
    }
}

/// The parts that `save_pretrained` of transformers 5.23 writes otherwise than Qwen's own files have them. Python gives the
/// prompts the same ids with it: what a tokenizer was last called with is saved, and does not count in the next call.
#[test]
fn a_tokenizer_that_transformers_saved_gives_pythons_ids() {
    let dir = Dir::model("saved");
    let mut saved: serde_json::Value = serde_json::from_str(&dir.read(TOKENIZER)).unwrap();
    saved["post_processor"] = template();
    saved["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = true.into();
    saved["decoder"] = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
    });
    for (truncation, padding) in [
        (serde_json::json!(null), serde_json::json!(null)),
        (serde_json::json!(1058), serde_json::json!("BatchLongest")),
        (serde_json::json!(2), serde_json::json!({"Fixed": 20})),
        (serde_json::json!(2), serde_json::json!({"Fixed": 1u64 << 62})),
    ] {
        if !truncation.is_null() {
            saved["truncation"] = serde_json::json!({
                "direction": "Right", "max_length": truncation, "strategy": "LongestFirst", "stride": 0,
            });
            saved["padding"] = serde_json::json!({
                "strategy": padding, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 480,
                "pad_type_id": 0, "pad_token": "<|endoftext|>",
            });
        }
        dir.write(TOKENIZER, saved.to_string());
        let tokenizer = PromptTokenizer::from_json(&dir.open().unwrap().tokenizer().unwrap()).unwrap();
        assert_pythons_ids(&tokenizer, &pythons_prompts(), "qwen_tiny");
    }
}

#[test]
fn a_tokenizer_in_parts_gives_pythons_ids() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let prompts = pythons_prompts();
    for (model, name) in [("golden/data/qwen_tiny", "qwen_tiny"), ("models/tiny", "models_tiny")] {
        let dir = Dir::empty("parts-ids");
        copy_folder(&root.join(model), &dir.0);
        fs::remove_file(dir.0.join(TOKENIZER)).unwrap();
        let tokenizer = PromptTokenizer::from_json(&dir.open().unwrap().tokenizer().unwrap()).unwrap();
        assert_pythons_ids(&tokenizer, &prompts, name);
    }
}
