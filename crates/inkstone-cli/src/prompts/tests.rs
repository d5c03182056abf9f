use super::*;

#[test]
fn lines_are_prompts_and_blank_ones_are_not() {
    let prompts = |text: &str| lines("p.txt".as_ref(), text).unwrap();
    assert_eq!(
        prompts("a cat\r\n\n  two dogs, \"red\" # 1 \n \t\n熊猫"),
        ["a cat", "two dogs, \"red\" # 1", "熊猫"]
    );
    assert_eq!(prompts("a cat\na cat"), ["a cat", "a cat"], "two pictures of it");
}

#[test]
fn a_line_that_can_be_no_prompt_is_named() {
    let refused = |text: &str| match lines("p.txt".as_ref(), text) {
        Err(Failure::Told(told)) => told.what,
        other => panic!("{text:?} is taken: {other:?}"),
    };
    assert!(refused("a cat\n\na\0b").starts_with("p.txt line 3: prompt is text with a NUL"));
    let long = format!("a cat\n{}", "x".repeat(MAX_PROMPT_CHARS + 1));
    assert!(refused(&long).starts_with("p.txt line 2: prompt is 32001 characters"));
    assert_eq!(refused("\n \n"), "p.txt has no prompt");
    assert_eq!(refused(""), "p.txt has no prompt");
}
