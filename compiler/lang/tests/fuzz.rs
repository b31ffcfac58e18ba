//! Broken texts: whatever is in a file, the answer is a value or an error that prints, never a panic.
//!
//! Mutations are drawn from a fixed generator, so a failure repeats.

use crate::common::{LLAMA3, NANO, flavor_text, shape, source};
use linc_lang::{Architecture, ModelConfig, build};

/// A 64-bit linear congruential generator; the upper bits are good enough here.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Splits into words, numbers, spaces and single characters.
fn pieces(text: &str) -> Vec<String> {
    let class = |c: char| {
        if c.is_alphanumeric() || c == '_' {
            1
        } else if c == ' ' {
            2
        } else {
            0
        }
    };
    let mut pieces: Vec<String> = Vec::new();
    let mut last = 0;
    for c in text.chars() {
        match pieces.last_mut() {
            Some(piece) if class(c) != 0 && class(c) == last => piece.push(c),
            _ => pieces.push(c.to_string()),
        }
        last = class(c);
    }
    pieces
}

const STRANGE: [&str; 24] = [
    "",
    "\0",
    "\u{feff}",
    "é",
    "\u{2028}",
    "🦀",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "0",
    "-1",
    "nan",
    "(((((((((",
    "{{{{{{{{",
    "}",
    "]",
    "param",
    "for",
    "if",
    "else",
    "return",
    "fn",
    ".T",
    "\"",
];

/// Replaces, removes, repeats or moves a few pieces.
fn mutate(text: &str, random: &mut Random) -> String {
    let mut pieces = pieces(text);
    for _ in 0..1 + random.below(4) {
        let (i, j) = (random.below(pieces.len()), random.below(pieces.len()));
        match random.below(6) {
            0 => {
                pieces.remove(i);
            }
            1 => pieces[i] = STRANGE[random.below(STRANGE.len())].to_string(),
            2 => pieces.insert(i, STRANGE[random.below(STRANGE.len())].to_string()),
            3 => pieces.swap(i, j),
            4 => pieces[i] = pieces[j].clone(),
            _ => pieces.truncate(i.max(1)),
        }
        if pieces.is_empty() {
            break;
        }
    }
    pieces.concat()
}

/// Parses, formats and builds; the errors must print.
fn exercise(linc: &str, toml: &str) -> bool {
    let arch = Architecture::parse(&source("a.linc", linc));
    if let Ok(arch) = &arch {
        let formatted = arch.format();
        let again = Architecture::parse(&source("a.linc", &formatted)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(arch.ast(), again.ast(), "{formatted}");
        assert_eq!(again.format(), formatted);
    }
    let config = ModelConfig::parse(&source("a.toml", toml));
    let result = arch.and_then(|arch| build(&arch, &config?, &shape(2, 4, 8), &[]));
    match result {
        Ok(_) => true,
        Err(errors) => {
            let text = errors.to_string();
            assert!(!errors.errors.is_empty() && text.contains("error: "), "{text}");
            false
        }
    }
}

#[test]
fn mutated_architectures() {
    let mut random = Random(1);
    let built = (0..6000).filter(|_| exercise(&mutate(LLAMA3, &mut random), NANO)).count();
    // Both kinds of outcome must occur for the test to mean something.
    assert!((100..5900).contains(&built), "{built} of 6000 built");
}

#[test]
fn mutated_model_files() {
    let mut random = Random(2);
    let text =
        format!("{}\n[linear_attention]\nchunk = 32\n", flavor_text("1b").replace("dim = 2048", "dim = 256"));
    let built = (0..3000).filter(|_| exercise(LLAMA3, &mutate(&text, &mut random))).count();
    assert!((100..2900).contains(&built), "{built} of 3000 built");
}

#[test]
fn random_bytes() {
    let mut random = Random(3);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.below(256) as u8).collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!exercise(&text, NANO) && !exercise(LLAMA3, &text));
    }
}

#[test]
fn deep_and_long_texts_end_in_an_error() {
    let in_model = |body: &str| format!("model m(tokens: [b, s] int) {{\n{body}\n}}\n");
    let n = 100_000;
    let chain: String =
        (0..n).map(|i| format!("fn f{i}(x) {{ return f{}(x) + f{}(x) }}\n", i + 1, i + 1)).collect();
    let doubling: String = (0..200).map(|i| format!("let a{} = a{i} + a{i}\n", i + 1)).collect();
    let calls: String =
        (0..60).map(|i| format!("fn f{i}(x) {{ return f{}(x) + f{}(x) }}\n", i + 1, i + 1)).collect();
    for text in [
        "(".repeat(n),
        in_model(&format!("let a = {}1{}", "(".repeat(n), ")".repeat(n))),
        in_model(&format!("let a = 1{}", " + 1".repeat(n))),
        in_model(&format!("let a = {}1", "-".repeat(n))),
        in_model(&format!("let a = {}true", "not ".repeat(n))),
        in_model(&format!("let a = w{}", ".T".repeat(n))),
        in_model(&format!("let a = {}1{}", "f(".repeat(n), ")".repeat(n))),
        in_model(&format!("let a = {}1{}", "[".repeat(n), "]".repeat(n))),
        in_model(&format!("{}{}", "block a {".repeat(n), "}".repeat(n))),
        in_model(&format!("if true {{}} {}", "else if true {}".repeat(n))),
        in_model(&(0..2000).map(|i| format!("let a{i} = a{}\n", i + 1)).collect::<String>()),
        in_model(&format!("let a0 = 1\n{doubling}")),
        format!("{chain}fn f{n}(x) {{ return x }}\n{}", in_model("let a = f0(1)")),
        format!("{calls}fn f60(x) {{ return x }}\n{}", in_model("logits = f0(1)")),
    ] {
        let shown: String = text.chars().take(40).collect();
        assert!(!exercise(&text, NANO), "{shown}");
    }
}

#[test]
fn a_model_with_too_many_layers_is_refused() {
    let toml = NANO.replace("n_layers = 4", "n_layers = 2000000000");
    assert!(!exercise(LLAMA3, &toml));
}
