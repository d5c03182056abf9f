use std::io::Read as _;
use std::path::PathBuf;

use super::*;

fn here(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("inkstone-regular-{}-{name}", std::process::id()))
}

#[test]
fn a_file_is_opened_whatever_its_length() {
    let path = here("file");
    for bytes in [&b""[..], b"some"] {
        std::fs::write(&path, bytes).unwrap();
        let mut read = Vec::new();
        open(&path).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_is_no_file_is_told() {
    let error = open(&std::env::temp_dir()).unwrap_err();
    assert_eq!(NotRegular::of(&error), Some(NotRegular("a folder")));
    assert_eq!(error.to_string(), "it is a folder, not a file");
    assert_eq!(NotRegular::of(&io::ErrorKind::NotFound.into()), None);
}

#[cfg(unix)]
#[test]
fn pipes_devices_and_sockets_are_refused_at_once() {
    let kind = |path: &Path| NotRegular::of(&open(path).unwrap_err()).unwrap().0;
    assert_eq!(kind(Path::new("/dev/zero")), "a device");
    let socket = here("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(kind(&socket), "a socket");
    drop(listener);
    std::fs::remove_file(&socket).unwrap();
    // Nobody ever writes to it.
    let pipe = here("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(kind(&pipe), "a pipe");
    std::fs::remove_file(&pipe).unwrap();
}
