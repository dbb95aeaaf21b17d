use super::*;

#[test]
fn a_long_text_is_shortened_once() {
    let longest = "x".repeat(WHO_BYTES_MAX);
    assert_eq!(short(&longest), longest);
    let long = format!("header={}é{}", "x".repeat(56), "y".repeat(1_000));
    let once = short(&long);
    assert!(once.starts_with(&format!("header={}…sha256:", "x".repeat(56))) && once.len() <= WHO_BYTES_MAX, "{once}");
    assert_eq!(short(&once), once);
    assert_ne!(short(&format!("{long}y")), once);
}
