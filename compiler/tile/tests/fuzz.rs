//! Random texts: the parser gives a kernel that round-trips or an error with a position, and never panics.

use linc_tile::{TileError, parse, verify};
use proptest::prelude::*;

/// Text to mutate: every construct of the grammar.
const SEED: &str = "\
kernel seed(x: read f32, h: readwrite bf16, n: read i32, y: write f32) grid(4, 2, 1) {
  %pid: index = program_id 0
  %0: index = const 64
  %off: index = mul %pid, %0
  %n: i32 = load n[%off]
  %hi: index = cast %n
  %1: index = const 2
  %2: f32 = const -1e-5
  %inf: f32 = const -inf
  %acc: f32[2, 3] = splat %2
  %acc.1: f32[2, 3], %best: f32 = for %i in %pid..%hi step %1 carry(%acc.2 = %acc, %b = %inf) {
    %left: index = sub %hi, %i
    %x: bf16[2, 3] = load h[%i; 8, 1 < %left]
    %3: f32[2, 3] = cast %x
    %d: f32[2, 2] = dot %3, trans %acc.2
    %4: f32[2] = sum %d axis 1
    %r: f32[2] = scan %4 axis 0 reverse
    %e: f32[2, 3] = expand %r axis 1
    %j: i32[2, 3] = iota axis 1
    %c: bool = lt %i, %hi
    %5: f32[2, 3] = if %c {
      %6: f32[2, 3] = fma %e, %3, %acc.2
      yield %6
    } else {
      yield %e
    }
    if %c {
      store h[%i; 8, 1 < %left], %x
    }
    %7: f32 = reduce_max %r axis 0
    %8: f32 = max %7, %b
    yield %5, %8
  }
  store y[%off; 3, 1], %acc.1
  %p: i32[4] = iota axis 0
  %9: f32[4] = cast %p
  scatter y[%off], %9 at %p
}
";

/// Words of the language, and things that are almost words of it.
const WORDS: &[&str] = &[
    "kernel",
    "grid",
    "read",
    "yield",
    "for",
    "if",
    "else",
    "carry",
    "step",
    "in",
    "..",
    "%",
    "%x",
    "%0",
    "%acc.1",
    "%9",
    "f32",
    "bf16",
    "i32",
    "index",
    "bool",
    "[2, 3]",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "=",
    ",",
    ";",
    ":",
    "<",
    "const",
    "add",
    "neg",
    "dot",
    "trans",
    "acc",
    "load",
    "store",
    "scatter",
    "at",
    "axis",
    "0",
    "1",
    "-1",
    "1.5",
    "1e999",
    "NaN",
    "inf",
    "-inf",
    "99999999999999999999",
    "#",
    "\n",
    " ",
    "é",
    "\0",
    "\u{200b}",
    ".",
    "-",
    "e",
];

/// What must hold for any text.
fn check(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(kernel) => {
            prop_assert!(verify(&kernel).is_ok());
            let printed = kernel.to_string();
            let again = parse(&printed).map_err(|e| TestCaseError::fail(format!("{e}\n{printed}")))?;
            prop_assert_eq!(again.to_string(), printed);
        }
        Err(TileError::Parse { line, column, message }) => {
            prop_assert!(line >= 1 && line <= text.lines().count() + 1, "line {} of {:?}", line, text);
            prop_assert!(column >= 1 && !message.is_empty());
        }
        Err(error) => return Err(TestCaseError::fail(format!("not a parse error: {error}"))),
    }
    Ok(())
}

/// Where a text can be cut.
fn cut(text: &str, at: prop::sample::Index) -> usize {
    let places: Vec<usize> = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect();
    *at.get(&places)
}

fn a_word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(WORDS)
}

#[test]
fn the_seed_is_a_kernel() {
    assert_eq!(parse(SEED).unwrap().to_string(), SEED);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replaced_parts(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..8, a_word()), 1..4)) {
        let mut text = SEED.to_string();
        for (at, remove, word) in edits {
            let start = cut(&text, at);
            let end = text[start..].char_indices().nth(remove).map_or(text.len(), |(i, _)| start + i);
            text.replace_range(start..end, word);
        }
        check(&text)?;
    }

    #[test]
    fn swapped_lines(swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4)) {
        let mut lines: Vec<&str> = SEED.lines().collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
        }
        check(&lines.join("\n"))?;
    }

    #[test]
    fn changed_tokens(at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>()) {
        let mut tokens: Vec<&str> = SEED.split_inclusive(' ').collect();
        let token = *other.get(&tokens);
        let at = at.index(tokens.len());
        tokens[at] = token;
        check(&tokens.concat())?;
    }

    #[test]
    fn cut_off(at in any::<prop::sample::Index>()) {
        check(&SEED[..cut(SEED, at)])?;
    }

    #[test]
    fn soups_of_words(words in prop::collection::vec(a_word(), 0..60)) {
        check(&words.join(" "))?;
        check(&format!("kernel k(x: read f32) grid(1, 1, 1) {{ {} }}", words.join(" ")))?;
    }

    #[test]
    fn any_text(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn any_float_is_exact(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let mut b = linc_tile::Builder::new("float", [1, 1, 1]);
        b.float(value);
        let parsed = parse(&b.finish().to_string()).unwrap();
        let linc_tile::Op::ConstF(found) = parsed.body[0].op else { panic!("not a constant") };
        prop_assert!(found.to_bits() == bits || (found.is_nan() && value.is_nan()));
    }
}
