//! The text form of a kernel, for people and for files: `kernel.to_string()` writes it, [`mod@crate::parse`] reads it.
//!
//! ```text
//! kernel = "kernel" WORD "(" [param {"," param}] ")" "grid" "(" INT "," INT "," INT ")" region
//! param  = WORD ":" mode elem                       mode = "read" | "write" | "readwrite"
//! region = "{" {stmt} ["yield" values] "}"
//! stmt   = [def {"," def} "="] op                   def  = VALUE ":" type
//! type   = elem ["[" INT {"," INT} "]"]             elem = "f32" | "bf16" | "f16" | "i32" | "index" | "bool"
//! values = VALUE {"," VALUE}
//! op     = "const" NUMBER                           NUMBER also inf, -inf, NaN
//!        | "program_id" INT
//!        | unary VALUE | binary VALUE "," VALUE | compare VALUE "," VALUE      words: crate::mnemonic
//!        | ("fma" | "select") VALUE "," VALUE "," VALUE
//!        | ("cast" | "splat" | "transpose") VALUE   to the result's type
//!        | "expand" VALUE "axis" INT | "iota" "axis" INT
//!        | "load" view | "store" view "," VALUE | "scatter" view "," VALUE "at" VALUE
//!        | "dot" ["trans"] VALUE "," ["trans"] VALUE ["," "acc" VALUE]
//!        | ("sum" | "reduce_max") VALUE "axis" INT | "scan" VALUE "axis" INT ["reverse"]
//!        | "for" VALUE "in" VALUE ".." VALUE "step" VALUE ["carry" "(" VALUE "=" VALUE {"," ...} ")"] region
//!        | "if" VALUE region ["else" region]
//! view   = WORD "[" VALUE [";" axis {"," axis}] "]"  offset; then stride and bound of each tile axis
//! axis   = INT ["<" VALUE]
//! VALUE  = "%" letters, digits, "_" ["." digits]    e.g. %12, %row, %row.1
//! ```
//!
//! `#` starts a comment. Values are numbered and names made unique in the order in which the text defines them, so
//! printing what was parsed gives the same text again, and two equal kernels built with different ids print alike.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::ir::{Kernel, Op, Region, Stmt, ValueId, View};

/// The name of every value in the text form, by id, without `%`. A value that nothing defines is `undefined<id>`.
pub fn value_names(kernel: &Kernel) -> Vec<String> {
    let mut naming = Naming {
        hints: &kernel.names,
        names: vec![None; kernel.types.len()],
        used: BTreeMap::new(),
        count: 0,
    };
    naming.stmts(&kernel.body);
    let names = naming.names.into_iter().enumerate();
    names.map(|(id, name)| name.unwrap_or_else(|| format!("undefined{id}"))).collect()
}

/// Whether a text is a word of the text form: a letter or `_`, then letters, digits, `_`.
pub fn is_word(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

struct Naming<'a> {
    hints: &'a [String],
    names: Vec<Option<String>>,
    /// How often each hint was used.
    used: BTreeMap<String, usize>,
    /// Values without a hint so far.
    count: usize,
}

impl Naming<'_> {
    fn stmts(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.define(&stmt.results);
            for region in stmt.op.regions() {
                self.define(&region.args);
                self.stmts(&region.body);
            }
        }
    }

    fn define(&mut self, values: &[ValueId]) {
        for value in values {
            let id = value.0 as usize;
            let Some(None) = self.names.get(id) else { continue };
            let hint = self.hints.get(id).map_or("", String::as_str);
            let name = if hint.is_empty() {
                self.count += 1;
                (self.count - 1).to_string()
            } else {
                let word = to_word(hint);
                let used = self.used.entry(word.clone()).or_insert(0);
                *used += 1;
                if *used == 1 { word } else { format!("{word}.{}", *used - 1) }
            };
            self.names[id] = Some(name);
        }
    }
}

/// A hint with everything that a word cannot hold replaced.
fn to_word(hint: &str) -> String {
    let mut word: String =
        hint.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        word.insert(0, '_');
    }
    word
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = value_names(self);
        let printer = Printer { kernel: self, names: &names };
        write!(f, "kernel {}(", self.name)?;
        for (i, param) in self.params.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {} {}", param.name, param.mode, param.elem)?;
        }
        let [x, y, z] = self.grid;
        writeln!(f, ") grid({x}, {y}, {z}) {{")?;
        printer.body(f, &self.body, &[], 1)?;
        writeln!(f, "}}")
    }
}

/// One statement as one line of text, its regions as `{ ... }`; for error messages.
pub fn stmt_line(kernel: &Kernel, names: &[String], stmt: &Stmt) -> String {
    let printer = Printer { kernel, names };
    let mut line = String::new();
    // Writing to a string does not fail.
    let _ = printer.head(&mut line, stmt);
    if !stmt.op.regions().is_empty() {
        line.push_str(" { ... }");
    }
    line
}

struct Printer<'a> {
    kernel: &'a Kernel,
    names: &'a [String],
}

impl Printer<'_> {
    fn value(&self, value: ValueId) -> String {
        match self.names.get(value.0 as usize) {
            Some(name) => format!("%{name}"),
            None => format!("%undefined{}", value.0),
        }
    }

    fn values(&self, values: &[ValueId]) -> String {
        values.iter().map(|v| self.value(*v)).collect::<Vec<_>>().join(", ")
    }

    fn body(&self, f: &mut impl Write, body: &[Stmt], yields: &[ValueId], depth: usize) -> fmt::Result {
        for stmt in body {
            self.indent(f, depth)?;
            self.head(f, stmt)?;
            for (i, region) in stmt.op.regions().into_iter().enumerate() {
                // Only `if` has a second region; an empty one is not written.
                if i > 0 {
                    if region.body.is_empty() && region.yields.is_empty() {
                        continue;
                    }
                    write!(f, " else")?;
                }
                self.region(f, region, depth)?;
            }
            writeln!(f)?;
        }
        if !yields.is_empty() {
            self.indent(f, depth)?;
            writeln!(f, "yield {}", self.values(yields))?;
        }
        Ok(())
    }

    fn region(&self, f: &mut impl Write, region: &Region, depth: usize) -> fmt::Result {
        writeln!(f, " {{")?;
        self.body(f, &region.body, &region.yields, depth + 1)?;
        self.indent(f, depth)?;
        write!(f, "}}")
    }

    fn indent(&self, f: &mut impl Write, depth: usize) -> fmt::Result {
        write!(f, "{:1$}", "", 2 * depth)
    }

    /// A statement up to its regions.
    fn head(&self, f: &mut impl Write, stmt: &Stmt) -> fmt::Result {
        for (i, result) in stmt.results.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}: ", self.value(*result))?;
            match self.kernel.types.get(result.0 as usize) {
                Some(ty) => write!(f, "{ty}")?,
                None => write!(f, "?")?,
            }
        }
        if !stmt.results.is_empty() {
            write!(f, " = ")?;
        }
        let v = |value: &ValueId| self.value(*value);
        match &stmt.op {
            Op::ConstF(value) => write!(f, "const {value:?}"),
            Op::ConstI(value) => write!(f, "const {value}"),
            Op::ProgramId(axis) => write!(f, "program_id {axis}"),
            Op::Unary(op, a) => write!(f, "{op} {}", v(a)),
            Op::Binary(op, a, b) => write!(f, "{op} {}, {}", v(a), v(b)),
            Op::Fma(a, b, c) => write!(f, "fma {}, {}, {}", v(a), v(b), v(c)),
            Op::Compare(op, a, b) => write!(f, "{op} {}, {}", v(a), v(b)),
            Op::Select(c, a, b) => write!(f, "select {}, {}, {}", v(c), v(a), v(b)),
            Op::Cast(a) => write!(f, "cast {}", v(a)),
            Op::Splat(a) => write!(f, "splat {}", v(a)),
            Op::Expand { vector, axis } => write!(f, "expand {} axis {axis}", v(vector)),
            Op::Iota { axis } => write!(f, "iota axis {axis}"),
            Op::Load(view) => write!(f, "load {}", self.view(view)),
            Op::Store(view, value) => write!(f, "store {}, {}", self.view(view), v(value)),
            Op::Scatter { to, places, value } => {
                write!(f, "scatter {}, {} at {}", self.view(to), v(value), v(places))
            }
            Op::Dot { a, b, acc, trans_a, trans_b } => {
                let trans = |flag: &bool| if *flag { "trans " } else { "" };
                write!(f, "dot {}{}, {}{}", trans(trans_a), v(a), trans(trans_b), v(b))?;
                acc.iter().try_for_each(|acc| write!(f, ", acc {}", v(acc)))
            }
            Op::Reduce { op, axis, value } => write!(f, "{op} {} axis {axis}", v(value)),
            Op::Scan { axis, reverse, value } => {
                let reverse = if *reverse { " reverse" } else { "" };
                write!(f, "scan {} axis {axis}{reverse}", v(value))
            }
            Op::Transpose(a) => write!(f, "transpose {}", v(a)),
            Op::For { lower, upper, step, init, body } => {
                let mut args = body.args.iter().map(v);
                let counter = args.next().unwrap_or_else(|| "%undefined".into());
                write!(f, "for {counter} in {}..{} step {}", v(lower), v(upper), v(step))?;
                if !init.is_empty() {
                    let carried = args.chain(std::iter::repeat("%undefined".into()));
                    let pairs: Vec<String> =
                        carried.zip(init).map(|(arg, init)| format!("{arg} = {}", v(init))).collect();
                    write!(f, " carry({})", pairs.join(", "))?;
                }
                Ok(())
            }
            Op::If { cond, .. } => write!(f, "if {}", v(cond)),
        }
    }

    fn view(&self, view: &View) -> String {
        let param = self.kernel.params.get(view.param.0 as usize).map_or("?", |p| p.name.as_str());
        let mut text = format!("{param}[{}", self.value(view.offset));
        for (i, axis) in view.axes.iter().enumerate() {
            text.push_str(if i == 0 { "; " } else { ", " });
            text.push_str(&axis.stride.to_string());
            if let Some(bound) = axis.bound {
                text.push_str(&format!(" < {}", self.value(bound)));
            }
        }
        text + "]"
    }
}
