//! Tile programs as files: `tiles/<kind>/<name>.tile`, each with its operands in the comments above it.
//!
//! ```text
//! # What the program is about, in a sentence.
//! # x = 768 * spread
//! # id = [3, 0]
//! # y = 64 * 1 step 0.5 but 1e20 at 31
//! kernel k(x: read bf16, id: read i32, y: readwrite f32) grid(1, 1, 1) {
//! ```
//!
//! A line for each parameter says how many elements it has and what they are: `spread` (different numbers between -1 and
//! 1.7), a number, or numbers that `step` by another one, `mod` a third if it is given. `but VALUE at INDEX` replaces one
//! element, `at FIRST to LAST` a range and `at FIRST step N` every so many. A list in brackets gives all elements.

use std::path::{Path, PathBuf};

use linc_tile::interp::Buffer;
use linc_tile::{Elem, Kernel};

use crate::Case;

/// Errors of sums in another order and of fused multiply-adds. Types are rounded where the program says so, alike everywhere.
const TOLERANCE: (f64, f64) = (1e-7, 1e-4);

/// A tile program with the path of its file below `tests/cases/tiles`.
pub struct TileFile {
    /// Such as `loops/nested.tile`.
    pub path: String,
    /// The program on its operands.
    pub case: Case,
}

/// All tile programs that are files, by path. Panics, with the file and the line, where one cannot be read.
pub fn tile_files() -> Vec<TileFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiles");
    let mut paths = vec![];
    collect(&root, &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let case = case(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let inside = path.strip_prefix(&root).expect("a path below the root");
        TileFile { path: inside.to_string_lossy().replace('\\', "/"), case }
    };
    let files: Vec<TileFile> = paths.iter().map(read).collect();
    assert!(files.len() > 40, "only {} tile programs in {}", files.len(), root.display());
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|e| e == "tile") {
            paths.push(path);
        }
    }
}

/// A program with operands from its text; the error says the line.
fn case(text: &str) -> Result<Case, String> {
    let kernel = linc_tile::parse(text).map_err(|e| e.to_string())?;
    linc_tile::verify(&kernel).map_err(|e| e.to_string())?;
    let buffers: Result<Vec<Buffer>, String> =
        kernel.params.iter().map(|param| operand(text, &kernel, &param.name, param.elem)).collect();
    Ok(Case::new(&kernel, &buffers?, TOLERANCE))
}

/// The operand that the comments above a kernel give a parameter.
fn operand(text: &str, kernel: &Kernel, name: &str, elem: Elem) -> Result<Buffer, String> {
    let comments = || text.lines().take_while(|line| line.starts_with('#')).enumerate();
    let operand = |line: &str| {
        let (of, what) = line.trim_start_matches(['#', ' ']).split_once(" = ")?;
        (!of.contains(' ')).then(|| (of.to_string(), what.to_string()))
    };
    for (i, (of, _)) in comments().filter_map(|(i, line)| Some((i, operand(line)?))) {
        if !kernel.params.iter().any(|param| param.name == of) {
            return Err(format!("line {}: the kernel has no parameter {of}", i + 1));
        }
    }
    let mut given =
        comments().filter_map(|(i, line)| Some((i, operand(line)?))).filter(|(_, (of, _))| of == name);
    let (i, (_, what)) =
        given.next().ok_or(format!("no operand for {name}; help: a line `# {name} = 64 * 0`"))?;
    if let Some((again, _)) = given.next() {
        return Err(format!("line {}: another operand for {name}", again + 1));
    }
    let values = values(&what).ok_or_else(|| {
        format!("line {}: `{what}` is no operand, such as `64 * 1 step 0.5 but 0 at 3`", i + 1)
    })?;
    if elem == Elem::I32 {
        return Ok(Buffer::I32(values.into_iter().map(|value| value as i32).collect()));
    }
    Buffer::from_f64(elem, &values).ok_or(format!("line {}: no operand can be of type {elem:?}", i + 1))
}

/// The elements that an operand says.
fn values(text: &str) -> Option<Vec<f64>> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    if let Some(list) = text.strip_prefix('[') {
        return list.strip_suffix(']')?.split(',').map(number).collect();
    }
    let mut parts = text.split(" but ");
    let (count, fill) = parts.next()?.split_once(" * ")?;
    let count: usize = count.parse().ok()?;
    let mut values: Vec<f64> = if fill == "spread" {
        (0..count).map(|i| ((i * 7919 + 13) % 101) as f64 / 37.0 - 1.0).collect()
    } else {
        let (fill, modulus) = fill
            .split_once(" mod ")
            .map_or(Some((fill, f64::INFINITY)), |(fill, m)| Some((fill, number(m).filter(|m| *m > 0.0)?)))?;
        let (from, step) = match fill.split_once(" step ") {
            Some((from, step)) => (number(from)?, number(step)?),
            None => (number(fill)?, 0.0),
        };
        let rest = |value: f64| if modulus.is_finite() { value % modulus } else { value };
        (0..count).map(|i| rest(from + i as f64 * step)).collect()
    };
    for exception in parts {
        let (value, places) = exception.split_once(" at ")?;
        let (value, place) = (number(value)?, |text: &str| text.trim().parse::<usize>().ok());
        let (first, last, step) = match (places.split_once(" to "), places.split_once(" step ")) {
            (Some((first, last)), None) => (place(first)?, place(last)?, 1),
            (None, Some((first, step))) => (place(first)?, count.checked_sub(1)?, place(step)?),
            (None, None) => (place(places)?, place(places)?, 1),
            (Some(_), Some(_)) => return None,
        };
        if step == 0 {
            return None;
        }
        for i in (first..=last).step_by(step) {
            *values.get_mut(i)? = value;
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_what_they_say() {
        let of = |text: &str| values(text).unwrap_or_else(|| panic!("`{text}`"));
        assert_eq!(of("[3, -0.5]"), [3.0, -0.5]);
        assert_eq!(of("3 * 2"), [2.0; 3]);
        assert_eq!(of("3 * 1 step 0.5"), [1.0, 1.5, 2.0]);
        assert_eq!(of("5 * 5 step 37 mod 40 but -1 at 1 step 3"), [5.0, -1.0, 39.0, 36.0, -1.0]);
        assert_eq!(of("4 * 0 but 7 at 1 to 2 but -inf at 0"), [f64::NEG_INFINITY, 7.0, 7.0, 0.0]);
        let spread = of("101 * spread");
        assert!(spread.iter().all(|x| (-1.0..1.8).contains(x)) && spread[1] != spread[2]);
        for wrong in
            ["", "3", "3 * much", "2 * 0 but 1 at 2", "2 * 0 but 1 at 0 step 0", "2 * 1 mod 0", "[1, two]"]
        {
            assert_eq!(values(wrong), None, "`{wrong}`");
        }
    }

    #[test]
    fn errors_say_what_is_missing() {
        let kernel = "kernel k(x: read f32, y: write f32) grid(1, 1, 1) {
  %o: index = const 0
  %a: f32 = load x[%o]
  store y[%o], %a
}";
        let error = |header: &str| case(&format!("{header}{kernel}")).expect_err("a fault");
        assert_eq!(error("# x = 1 * 2\n"), "no operand for y; help: a line `# y = 64 * 0`");
        assert_eq!(error("# z = 1 * 2\n"), "line 1: the kernel has no parameter z");
        assert_eq!(error("# x = 1 * 2\n# x = 1 * 3\n"), "line 2: another operand for x");
        let what = "`1 * a` is no operand, such as `64 * 1 step 0.5 but 0 at 3`";
        assert_eq!(error("# Words.\n# x = 1 * a\n"), format!("line 2: {what}"));
        assert!(case(&format!("# x = 1 * 2\n# y = 1 * 0\n{kernel}")).is_ok());
    }
}
