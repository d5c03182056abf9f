use std::time::Duration;

use super::*;

fn path(template: &str, apart: Apart) -> String {
    let fields = Fields { seed: 42, n: 3, model: "Qwen/Image 2.0" };
    let template = Template::new(Some(OsStr::new(template)), apart).unwrap();
    template.path(fields).unwrap().into_os_string().into_string().unwrap()
}

fn refused(template: &str) -> String {
    match Template::new(Some(OsStr::new(template)), Apart::Alone) {
        Err(Failure::Told(told)) => {
            assert_eq!(told.exit, 2);
            told.why
        }
        other => panic!("{template:?} is taken: {other:?}"),
    }
}

#[test]
fn fields_are_filled_in() {
    assert_eq!(path("a.png", Apart::Alone), "a.png");
    assert_eq!(path("a-{seed}-{n}.png", Apart::Alone), "a-42-3.png");
    assert_eq!(path("{model}/{seed}.PNG", Apart::Alone), "Qwen-Image-2.0/42.png");
    assert_eq!(path("cat", Apart::Alone), "cat.png");
    assert_eq!(path("v1.5", Apart::Alone), "v1.5.png");
    assert_eq!(path("no/such/folder/", Apart::Alone), "no/such/folder/inkstone-42.png");
    assert_eq!(path("../up/{n}.png", Apart::Alone), "../up/3.png");
    let date = path("{date}.png", Apart::Alone);
    assert!(date.len() == "2026-11-21.png".len() && date.starts_with("20"), "{date}");
}

#[test]
fn several_pictures_never_share_a_name() {
    assert_eq!(path("a.png", Apart::Seeds), "a-3.png");
    assert_eq!(path("a-{n}.png", Apart::Seeds), "a-3.png");
    assert_eq!(path("a-{seed}.png", Apart::Seeds), "a-42.png");
    assert_eq!(path("a-{seed}.png", Apart::Numbers), "a-42-3.png");
    assert_eq!(path("{n}/{seed}.png", Apart::Numbers), "3/42.png");
    assert_eq!(path("folder/", Apart::Numbers), "folder/inkstone-42-3.png");
}

#[test]
fn row_56_templates_that_are_refused() {
    assert!(refused("{seed}/../../x").contains("climbs"));
    assert!(refused("{model}/..").contains("climbs"));
    assert!(refused("a\r\nb.png").contains("control"));
    assert!(refused("{sed}.png").contains("{seed}"));
    assert!(refused("{seed.png").contains("lacks"));
    assert!(refused("a.jpg").contains("PNG"));
    assert!(refused("").contains("name"));
    assert!(refused("-").contains("name"));
}

#[test]
fn days_are_days() {
    let day = |seconds: u64| date(UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(day(0), "1970-01-01");
    assert_eq!(day(951_782_399), "2000-02-28");
    assert_eq!(day(951_782_400), "2000-02-29");
    assert_eq!(day(1_735_689_599), "2024-12-31");
    assert_eq!(day(1_795_219_200), "2026-11-21");
}

#[test]
fn row_75_a_file_that_exists_is_kept_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let saved = |bytes: &[u8], existing| save(&path, bytes, None, existing).unwrap();
    assert_eq!(saved(b"1", Existing::Number), path);
    assert_eq!(saved(b"2", Existing::Number), folder.path().join("a-2.png"));
    assert_eq!(saved(b"3", Existing::Number), folder.path().join("a-3.png"));
    assert_eq!(fs::read(&path).unwrap(), b"1");
    assert_eq!(saved(b"4", Existing::Replace), path);
    assert_eq!(fs::read(&path).unwrap(), b"4");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_sidecar_goes_with_its_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    fs::write(folder.path().join("a.json"), b"somebody's").unwrap();
    let saved = save(&path, b"p", Some(b"{}"), Existing::Number).unwrap();
    assert_eq!(saved, folder.path().join("a-2.png"));
    assert_eq!(fs::read(folder.path().join("a-2.json")).unwrap(), b"{}");
    assert_eq!(fs::read(folder.path().join("a.json")).unwrap(), b"somebody's");
}

#[test]
fn row_74_places_where_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    fs::create_dir(folder.path().join("dir.png")).unwrap();
    for place in [folder.path().join("missing/a.png"), file.join("a.png"), folder.path().join("dir.png")] {
        let Err(Failure::Told(told)) = check_place(&place) else { panic!("{} is taken", place.display()) };
        assert_eq!((told.code, told.exit), ("INK-0252", 2));
    }
    let Err(Failure::Told(told)) = check_place(&folder.path().join("x".repeat(300))) else {
        panic!("too long")
    };
    assert_eq!(told.exit, 2);
    assert!(check_place(&folder.path().join("a.png")).is_ok());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the trial file is still there");
}
