use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::PromptTokenizer;
use crate::error::TokenizerProblem;
use crate::golden;
use crate::text::template::{
    BETWEEN, MAX_TOKENS, MESSAGE_END, MESSAGE_START, TEXT_TO_IMAGE_DROP, TEXT_TO_IMAGE_SYSTEM, USER,
};

/// The tokenizer folders of `prompts.json`.
const FOLDERS: [(&str, &str); 2] =
    [("qwen_tiny", "qwen_tiny/tokenizer"), ("models_tiny", "../../models/tiny/tokenizer")];

fn file(folder: &str, name: &str) -> Vec<u8> {
    golden::bytes(&format!("{folder}/{name}"))
}

fn tokenizer(folder: &str) -> PromptTokenizer {
    PromptTokenizer::from_json(&file(folder, "tokenizer.json")).unwrap()
}

fn ids_of(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// A tokenizer.json with one part replaced.
fn altered(path: &str, value: Value) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(&file(FOLDERS[0].1, "tokenizer.json")).unwrap();
    *json.pointer_mut(path).unwrap() = value;
    serde_json::to_vec(&json).unwrap()
}

fn problem(json: &[u8]) -> TokenizerProblem {
    match PromptTokenizer::from_json(json) {
        Err(crate::Error::Tokenizer { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_template_is_the_references() {
    let fixture = golden::json("qwen_tokens.json");
    let (before, after) = fixture["template"].as_str().unwrap().split_once("{}").unwrap();
    let own = [MESSAGE_START, TEXT_TO_IMAGE_SYSTEM, MESSAGE_END, BETWEEN, MESSAGE_START, USER].concat();
    assert_eq!(own, before);
    assert_eq!([MESSAGE_END, BETWEEN, MESSAGE_START, super::ASSISTANT].concat(), after);
    assert_eq!(TEXT_TO_IMAGE_DROP, count(&fixture["drop_idx"]));
    assert_eq!(MAX_TOKENS + TEXT_TO_IMAGE_DROP, count(&golden::json("prompts.json")["max_tokens"]));
}

#[test]
fn the_prefix_of_the_embedded_model_is_what_is_dropped() {
    assert_eq!(tokenizer(FOLDERS[1].1).prefix_len(), TEXT_TO_IMAGE_DROP);
    // The 480 tokens of the random model spell the template out; the reference drops 34 of them all the same.
    assert_eq!(tokenizer(FOLDERS[0].1).prefix_len(), 47);
}

#[test]
fn prompts_have_the_ids_of_the_pipeline() {
    let tokenizer = tokenizer(FOLDERS[0].1);
    for case in golden::json("qwen_tokens.json")["tiny"].as_array().unwrap() {
        let tokens = tokenizer.encode(case["prompt"].as_str().unwrap()).unwrap();
        assert_eq!(tokens.ids, ids_of(&case["ids"]), "{}", case["prompt"]);
        assert_eq!((tokens.drop, tokens.truncated), (34, None));
    }
}

#[test]
fn unusual_and_long_prompts_have_pythons_ids() {
    for (name, folder) in FOLDERS {
        let tokenizer = tokenizer(folder);
        let fixture = &golden::json("prompts.json")[name];
        for case in fixture["prompts"].as_array().unwrap() {
            let tokens = tokenizer.encode(case["prompt"].as_str().unwrap()).unwrap();
            assert_eq!(tokens.ids, ids_of(&case["ids"]), "{name}: {}", case["prompt"]);
        }
        for case in fixture["long"].as_array().unwrap() {
            let prompt = case["unit"].as_str().unwrap().repeat(count(&case["times"]));
            let tokens = tokenizer.encode(&prompt).unwrap();
            let cut = count(&case["count"]).saturating_sub(MAX_TOKENS + TEXT_TO_IMAGE_DROP);
            assert_eq!(tokens.truncated, (cut > 0).then_some(cut), "{name}: {}", case["unit"]);
            let bytes: Vec<u8> = tokens.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            assert_eq!(format!("{:x}", Sha256::digest(&bytes)), case["sha256"].as_str().unwrap());
        }
    }
}

#[test]
fn special_tokens_in_a_prompt_are_text() {
    for (name, folder) in FOLDERS {
        let tokenizer = tokenizer(folder);
        for case in golden::json("prompts.json")[name]["special_as_text"].as_array().unwrap() {
            let tokens = tokenizer.encode(case["text"].as_str().unwrap()).unwrap();
            let want = [&tokenizer.before[..], &ids_of(&case["ids"]), &tokenizer.after].concat();
            assert_eq!(tokens.ids, want, "{name}: {}", case["text"]);
        }
    }
}

#[test]
fn merges_are_pairs_of_tokens_in_either_form() {
    let of = |merges: Value| PromptTokenizer::from_json(&altered("/model/merges", merges));
    let file: Value = serde_json::from_slice(&file(FOLDERS[0].1, "tokenizer.json")).unwrap();
    let pairs: Vec<[String; 2]> = serde_json::from_value(file["model"]["merges"].clone()).unwrap();
    let lines: Vec<String> = pairs.iter().map(|pair| pair.join(" ")).collect();
    let (new, old) = (of(json!(pairs)).unwrap(), of(json!(lines)).unwrap());
    let prompt = "a red apple and the other things";
    assert_eq!(old.encode(prompt).unwrap(), new.encode(prompt).unwrap());
    let none = of(json!([])).unwrap();
    assert!(none.encode(prompt).unwrap().ids.len() > new.encode(prompt).unwrap().ids.len());
    for bad in [json!(["pp"]), json!([["p"]]), json!([["p", "p", "t"]]), json!([7])] {
        assert!(matches!(of(bad), Err(crate::Error::Tokenizer { .. })));
    }
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    for broken in [&b""[..], b"{\"model\": {}}", "[".repeat(100_000).as_bytes()] {
        assert!(matches!(problem(broken), TokenizerProblem::Refused { .. }));
    }
    let merges = json!([["no", "such"], ["token", "s"]]);
    assert!(matches!(problem(&altered("/model/merges", merges)), TokenizerProblem::Refused { .. }));
    let missing = TokenizerProblem::MissingToken { token: MESSAGE_START };
    assert_eq!(problem(&altered("/added_tokens", json!([]))), missing);
}
