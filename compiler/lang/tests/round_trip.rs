//! The formatter: its text means the same and formats to itself.

use crate::common::{LLAMA3, source};
use linc_lang::Architecture;

fn parse(text: &str) -> Architecture {
    Architecture::parse(&source("a.linc", text)).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Formats, and checks that the text parses to an equal tree and formats to itself.
fn format(text: &str) -> String {
    let first = parse(text);
    let formatted = first.format();
    let second = parse(&formatted);
    assert_eq!(first.ast(), second.ast(), "{formatted}");
    assert_eq!(second.format(), formatted);
    formatted
}

#[test]
fn llama3_is_in_its_stable_form() {
    assert_eq!(format(LLAMA3), LLAMA3);
}

#[test]
fn every_construct_survives() {
    let text = "
# first
# second

fn gate ( x , w ) { return x*sigmoid( x@w.T ) }  # after the function
fn _long(a,) {
  let b = a - -1.50   +  1e-7 // 2


  # before the condition
  if not b >= 128_256 and true or b != 3 { y = 1 } # odd
  else if b == 2 { y = 2 } else {
    # nothing here
  }
  return f ( [ a , ( b ) , y.T . T ] ) }
# last
model m ( tokens : [ b , s ] int ) { # opening
  param w [ 3 , n * d ] init trunc_normal ( 0.02 , bound = 2 ) # weight

  block inner { for i in layers { x = f( q , # inside
      k = v ) } }
  block empty {}


  # tail

}
# end
";
    insta::assert_snapshot!(format(text), @r"
    # first
    # second

    fn gate(x, w) {
      return x * sigmoid(x @ w.T)
    }

    # after the function
    fn _long(a) {
      let b = a - -1.5 + 1e-7 // 2

      # before the condition
      # odd
      if not b >= 128256 and true or b != 3 {
        y = 1
      } else if b == 2 {
        y = 2
      } else {
        # nothing here
      }
      return f([a, (b), y.T.T])
    }

    # last
    model m(tokens: [b, s] int) {
      # opening
      param w [3, n * d] init trunc_normal(0.02, bound = 2)  # weight

      block inner {
        for i in layers {
          # inside
          x = f(q, k = v)
        }
      }
      block empty {}

      # tail
    }
    # end
    ");
}

#[test]
fn else_if_is_not_an_else_block_with_a_comment() {
    let text = "fn f(a) {\n  if a {} else {\n    # why\n    if a {}\n  }\n  return a\n}\n";
    assert_eq!(format(text), text);
}

#[test]
fn line_ends_and_byte_order_marks_do_not_matter() {
    let text = format!("\u{feff}{}", LLAMA3.replace('\n', "\r\n"));
    assert_eq!(format(&text), LLAMA3);
}

#[test]
fn the_kind_of_a_layer_is_asked_for_as_anything_is() {
    let text = "model m(tokens: [b, s] int) {\n  for layer in layers {\n    if kind==linear {param gate [dim] init ones }\n    \
                else if softmax != kind { }\n  }\n}\n";
    insta::assert_snapshot!(format(text), @r"
    model m(tokens: [b, s] int) {
      for layer in layers {
        if kind == linear {
          param gate [dim] init ones
        } else if softmax != kind {}
      }
    }
    ");
}
