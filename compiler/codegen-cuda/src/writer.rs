//! Text with indentation, and names that C++ accepts.

use std::collections::BTreeSet;

use linc_tile::Kernel;
use linc_tile::text::value_names;

/// C++ text under construction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    /// A writer that starts `depth` levels deep.
    pub(crate) fn new(depth: usize) -> Self {
        Writer { text: String::new(), depth }
    }

    /// Adds one line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        // Labels of the preprocessor start wherever; they are indented like the loops they belong to.
        for _ in 0..self.depth {
            self.text.push_str("  ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Opens a block: `head {`.
    pub(crate) fn open(&mut self, head: impl AsRef<str>) {
        self.line(format!("{} {{", head.as_ref()).trim_start());
        self.depth += 1;
    }

    /// Closes a block.
    pub(crate) fn close(&mut self) {
        self.close_with("}");
    }

    /// Closes a block with a text of its own, `};` or `} else {`.
    pub(crate) fn close_with(&mut self, end: &str) {
        self.depth -= 1;
        self.line(end);
        if end.ends_with('{') {
            self.depth += 1;
        }
    }

    /// Opens a loop over the constant range `0..count`, unrolled so that registers stay registers.
    pub(crate) fn unrolled(&mut self, counter: &str, count: usize, step: usize) {
        self.line("#pragma unroll");
        let next = if step == 1 { format!("++{counter}") } else { format!("{counter} += {step}") };
        self.open(format!("for (int {counter} = 0; {counter} < {count}; {next})"));
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Words that a value must not be called: C++ and what the emitted text itself uses.
const RESERVED: [&str; 47] = [
    "auto", "bool", "break", "case", "char", "class", "const", "continue", "default", "delete", "do",
    "double", "else", "enum", "extern", "float", "for", "if", "index", "inline", "int", "load", "long",
    "new", "not", "or", "and", "operator", "private", "public", "return", "short", "signed", "sizeof",
    "static", "store", "struct", "switch", "this", "thread", "lane", "warp", "typename", "union", "unsigned",
    "void", "while",
];

/// A C++ name for every value, by id, after its name in the tile program.
pub(crate) fn names(kernel: &Kernel) -> Vec<String> {
    let mut taken: BTreeSet<String> = kernel.params.iter().map(|p| p.name.clone()).collect();
    taken.extend(RESERVED.iter().map(|w| w.to_string()));
    let name = |name: String| {
        let mut word = name.replace('.', "_");
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            word.insert(0, 't');
        }
        // Single letters are the emitted loops' counters.
        if word.len() == 1 || taken.contains(&word) {
            word.push_str("_tile");
        }
        while !taken.insert(word.clone()) {
            word.push('_');
        }
        word
    };
    value_names(kernel).into_iter().map(name).collect()
}

/// An f32 constant.
pub(crate) fn float(value: f64) -> String {
    let value = value as f32;
    if value.is_nan() {
        return "bits_float(0x7fc00000u)".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "LINC_INFINITY".into() } else { "-LINC_INFINITY".into() };
    }
    // Enough digits to read back the same.
    format!("{value:?}f")
}
