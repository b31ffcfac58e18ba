//! Lines with indentation.

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
