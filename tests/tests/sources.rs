//! The reader of Rust sources that the rules on layers and tidiness stand on.

use linc_tests::rust::{code, matches, paths};

#[test]
fn comments_and_literals_vanish_and_columns_stay() {
    let text = "a /* b /* c */ d */ 'e' \"f \\\" g\" r#\"h \" i\"# <'j> '\\'' k // l\nm";
    let expected = "a                                            <'j>      k     \nm";
    assert_eq!(code(text).split_whitespace().collect::<Vec<_>>(), ["a", "<'j>", "k", "m"]);
    assert_eq!(code(text).chars().count(), text.chars().count());
    assert_eq!(code(text).lines().count(), expected.lines().count());
}

#[test]
fn groups_of_paths_are_spelled_out() {
    let text = "use crate::{a::{B, c::*}, d as e};\nlet x = crate::f::g(1); other_crate::h; x::crate::i";
    let expected = ["crate::a::B", "crate::a::c::*", "crate::d", "crate::f::g"];
    assert_eq!(paths(text, "crate").into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn arms_of_matches_are_found() {
    let text = "match f(|x| { x }) {\n Op::A { x } | Op::B => { y }\n Op::C(_) if z => match w { _ => 1 },\n _ => g(a, b),\n}";
    let found = matches(text);
    assert_eq!(found[0].arms, ["Op::A { x } | Op::B", "Op::C(_) if z", "_"]);
    assert_eq!((found[0].line, found[1].line), (1, 3));
    assert_eq!(found[0].variants("Op").into_iter().collect::<Vec<_>>(), ["Op::A", "Op::B", "Op::C"]);
    assert!(found[0].has_wildcard() && found[1].has_wildcard());
    assert!(!matches("match x { Op::A => 1, Op::B(n) => 2 }")[0].has_wildcard());
    assert!(matches("match x { Op::A => 1, other => 2 }")[0].has_wildcard());
}
