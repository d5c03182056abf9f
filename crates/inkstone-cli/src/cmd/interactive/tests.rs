use super::*;

fn asked(text: &str, pictures: usize) -> Asked {
    match parse(text, pictures).unwrap() {
        Line::Picture(asked) => asked,
        other => panic!("{text:?} is {other:?}"),
    }
}

#[test]
fn a_line_is_a_prompt_with_size_and_picture_in_front() {
    assert_eq!(asked("a red apple\n", 0).prompt, "a red apple");
    let size = Some(Size { width_px: 512, height_px: 768 });
    assert_eq!(asked("512x768  a cat", 0), Asked { size, from: None, prompt: "a cat".into() });
    assert_eq!(asked("$1 a cat", 2).from, Some((1, 0.6)));
    let both = Asked { size, from: Some((0, 0.25)), prompt: "a 64x64 cat for $5".into() };
    assert_eq!(asked("$0=0.25 512x768 a 64x64 cat for $5", 1), both);
    assert_eq!(asked("512x768 $0=0.25 a 64x64 cat for $5", 1), both);
    assert_eq!(asked("xx a", 0).prompt, "xx a");
}

#[test]
fn words_for_the_program() {
    assert_eq!(parse("  \n", 0).unwrap(), Line::Nothing);
    assert_eq!(parse("!quit", 0).unwrap(), Line::Quit);
    assert_eq!(parse("!help\r\n", 0).unwrap(), Line::Help);
    assert!(matches!(parse("help", 0).unwrap(), Line::Picture(_)));
}

#[test]
fn lines_that_are_refused() {
    for (text, pictures, what) in [
        ("$0 a cat", 0, "$0"),
        ("$2 a cat", 2, "$2"),
        ("$x a cat", 2, "$x"),
        ("$0=x a cat", 1, "$0=x"),
        ("65x64 a cat", 0, "size"),
        ("64x64", 0, "prompt"),
    ] {
        let Err(Failure::Told(told)) = parse(text, pictures) else { panic!("{text:?} is taken") };
        assert!(told.what.contains(what), "{text:?}: {}", told.what);
    }
}
