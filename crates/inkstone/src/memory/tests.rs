use super::*;

#[cfg(target_os = "linux")]
#[test]
fn this_process_has_a_peak() {
    assert!(peak_bytes().unwrap() > 1 << 20);
    assert!(available_bytes().unwrap() > 0);
    let usage = Usage::now();
    assert!(usage.anonymous_bytes <= usage.resident_bytes);
    assert!(usage.resident_bytes < usage.address_space_bytes);
    // The system looks for the peak where memory is given back: what another test takes and gives back between the two
    // questions may be missing in it. Not always.
    assert!((0..1000).any(|_| Usage::now().resident_bytes <= peak_bytes().unwrap()));
}
