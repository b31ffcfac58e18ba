//! What a review would ask for anyway: every file says what it is, none is too long, nothing is unfinished, no match
//! over operations has a wildcard arm, no path of one machine, no dead link, and every crate states its invariants.

use linc_tests::rust::{code, matches, paths, patterns};
use linc_tests::tree::{TextFile, files, read, root, rust_files};

use crate::layering::assert_none;

/// No file is longer.
const MAX_LINES: usize = 800;
/// No file of a library is longer.
const LIBRARY_LINES: usize = 450;

fn sources() -> Vec<TextFile> {
    let sources = rust_files();
    assert!(sources.len() > 150, "only {} Rust files found", sources.len());
    sources
}

fn lines_with(file: &TextFile, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = file.text.lines().enumerate().filter(|(_, line)| wanted(line));
    numbered.map(|(i, line)| format!("{}:{}: {}", file.path, i + 1, line.trim())).collect()
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|f| !f.text.starts_with("//! ") && !f.text.starts_with("#![doc = include_str!("))
        .map(|f| f.path)
        .collect();
    assert_none("files that do not start with `//! ` and what they are", &silent);
}

#[test]
fn files_stay_readable() {
    let lines = |f: &TextFile| f.text.lines().count();
    let too_long: Vec<String> = sources()
        .iter()
        .filter(|f| lines(f) > MAX_LINES)
        .map(|f| format!("{} has {} lines", f.path, lines(f)))
        .collect();
    assert_none(&format!("files of more than {MAX_LINES} lines: split them by topic"), &too_long);
    let long: Vec<String> = sources()
        .iter()
        .filter(|f| f.path.contains("/src/") && !f.path.ends_with("/tests.rs"))
        .filter(|f| lines(f) > LIBRARY_LINES)
        .map(|f| format!("{} has {} lines", f.path, lines(f)))
        .collect();
    assert_none(&format!("library files of more than {LIBRARY_LINES} lines: split them"), &long);
}

#[test]
fn nothing_is_unfinished() {
    const UNFINISHED: [&str; 6] = ["todo!", "unimplemented!", "dbg!", "FIXME", "XXX", "TODO"];
    let found: Vec<String> = sources()
        .iter()
        .filter(|f| f.path != "tests/tests/tidy.rs")
        .flat_map(|f| lines_with(f, |line| UNFINISHED.iter().any(|word| line.contains(word))))
        .collect();
    assert_none("unfinished code", &found);
}

/// Dispatches over the operations of an IR: each names most variants, so that a new one must be decided here.
#[test]
fn matches_over_operations_have_no_wildcard() {
    // The places that define an operation. Others are found by their size alone.
    const DISPATCHES: [&str; 9] = [
        "compiler/ir/src/facts.rs",
        "compiler/ir/src/infer.rs",
        "compiler/ir/src/interp/mod.rs",
        "compiler/passes/src/autodiff/vjp.rs",
        "compiler/kernels/src/lower.rs",
        "compiler/kernels/src/cost.rs",
        "compiler/tile/src/walk.rs",
        "compiler/tile/src/interp/eval.rs",
        "compiler/tile/src/verify/typing.rs",
    ];
    let mut dispatching = vec![];
    let mut wild = vec![];
    for file in sources().into_iter().filter(|f| f.path.contains("/src/")) {
        for found in matches(&code(&file.text)) {
            if found.variants("Op").len() >= 10 {
                dispatching.push(file.path.clone());
                if found.has_wildcard() {
                    wild.push(format!("{}:{}", file.path, found.line));
                }
            }
        }
    }
    for path in DISPATCHES {
        assert!(dispatching.iter().any(|p| p == path), "no match over operations found in {path}");
    }
    assert_none("matches over operations with a `_` arm", &wild);
}

/// Which operations are views, cheap, pointwise, ..: a list of them in a condition, with everything else on the other side,
/// is wrong without a word when an operation is added. `compiler/ir/src/facts.rs` says it of each.
#[test]
fn sets_of_operations_are_facts() {
    /// A list of so many operations is a set.
    const SET: usize = 3;
    let is_set = |pattern: &str| paths(pattern, "Op").len() >= SET;
    let found = |text: &str| -> Vec<usize> {
        let code = code(text);
        let listed = patterns(&code).into_iter().filter(|(_, pattern)| is_set(pattern)).map(|(line, _)| line);
        let wild =
            matches(&code).into_iter().filter(|m| m.has_wildcard() && m.arms.iter().any(|a| is_set(a)));
        listed.chain(wild.map(|m| m.line)).collect()
    };
    assert_eq!(found("f();\nmatches!(\n op(x),\n Op::A | Op::B(_)\n | Op::C { .. }\n)"), [2]);
    assert_eq!(found("match x { Op::A | Op::B | Op::C => 1, _ => 2 }"), [1]);
    assert!(
        found("match x { Op::A | Op::B | Op::C => 1, Op::D => 2 }; matches!(f(Op::A), Op::B)").is_empty()
    );
    let mut sets = vec![];
    for folder in ["ir", "passes", "kernels", "driver"] {
        let folder = format!("compiler/{folder}/src/");
        for file in sources().into_iter().filter(|f| f.path.starts_with(&folder)) {
            sets.extend(found(&file.text).into_iter().map(|line| format!("{}:{line}", file.path)));
        }
    }
    assert_none("sets of operations that compiler/ir/src/facts.rs should declare", &sets);
}

#[test]
fn no_path_of_one_machine() {
    // Written in two parts, so that this file does not find itself.
    let places = ["work", "root", "home", "tmp", "Users"].map(|folder| format!("/{folder}/"));
    let starts = |line: &str, place: &str| {
        line.match_indices(place).any(|(at, _)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '}'))
        })
    };
    assert!(starts("see \"/tmp/x\"", &places[3]) && !starts("../tmp/x and a/tmp/b", &places[3]));
    let found: Vec<String> = files()
        .iter()
        .flat_map(|f| lines_with(f, |line| places.iter().any(|place| starts(line, place))))
        .filter(|line| !line.starts_with("tests/tests/tidy.rs:"))
        .collect();
    assert_none("paths that exist on one machine only", &found);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut dead = vec![];
    let mut links = 0;
    for file in files().iter().filter(|f| f.path.ends_with(".md")) {
        let folder = root().join(&file.path).parent().expect("a folder").to_path_buf();
        for (at, _) in file.text.match_indices("](") {
            let target = file.text[at + 2..].split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            if !folder.join(target).exists() {
                dead.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert!(links > 5, "only {links} links found in the documents");
    assert_none("dead links", &dead);
}

#[test]
fn every_crate_states_its_invariants() {
    let parts = ["compiler", "runtime"].map(|part| (part, read(&format!("{part}/README.md"))));
    let mut silent = vec![];
    for (part, overview) in parts {
        for file in files().iter().filter(|f| f.path.starts_with(part) && f.path.ends_with("/Cargo.toml")) {
            let name = file.path.split('/').nth(1).unwrap_or_default();
            let stated =
                overview.lines().any(|l| l.starts_with("*Invariant:*") && l.contains(&format!("`{name}`")));
            if !stated {
                silent.push(format!("{part}/{name}"));
            }
        }
    }
    assert_none("crates without an *Invariant:* line in compiler/README.md or runtime/README.md", &silent);
}

/// Crates whose tests are one program turn cargo's search for test files off: a file that nobody names would not run.
#[test]
fn every_test_file_is_part_of_a_program() {
    let (mut crates, mut forgotten) = (0, vec![]);
    let all = files();
    for manifest in all.iter().filter(|f| f.path.ends_with("/Cargo.toml")) {
        if !manifest.text.contains("autotests = false") {
            continue;
        }
        crates += 1;
        let folder = manifest.path.replace("Cargo.toml", "tests/");
        let program = read(&format!("{folder}main.rs"));
        for file in &all {
            let Some(inside) = file.path.strip_prefix(&folder) else { continue };
            let Some(module) = inside.strip_suffix("/mod.rs").or_else(|| inside.strip_suffix(".rs")) else {
                continue;
            };
            if module != "main" && !module.contains('/') && !program.contains(&format!("mod {module};")) {
                forgotten.push(file.path.clone());
            }
        }
    }
    assert!(crates > 3, "only {crates} crates with one test program found");
    assert_none("test files that tests/main.rs does not name", &forgotten);
}

/// A manifest that says there is nothing to test in a library saves building it a second time; then there is nothing.
#[test]
fn what_is_not_built_as_a_test_has_none() {
    let all = files();
    let mut untested = vec![];
    for manifest in all.iter().filter(|f| f.path.ends_with("/Cargo.toml")) {
        let folder = manifest.path.replace("Cargo.toml", "src/");
        for file in all.iter().filter(|f| f.path.starts_with(&folder) && f.path.ends_with(".rs")) {
            let unit = manifest.text.contains("\ntest = false") && code(&file.text).contains("#[test]");
            let comments = file.text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
            let mut opened =
                comments.filter_map(|line| line[1..].trim_start().strip_prefix("```")).step_by(2);
            let documented = manifest.text.contains("\ndoctest = false")
                && opened.any(|language| language.is_empty() || language.starts_with("rust"));
            if unit || documented {
                untested.push(file.path.clone());
            }
        }
    }
    assert_none("tests in a library whose manifest says `test = false` or `doctest = false`", &untested);
}

/// Words that carry nothing by themselves: `Shape of the tile.` says no more of `tile_shape: Shape` than its name.
const LITTLE_WORDS: &str = "a all an and any are as at be by each for from has have in is it its of on one or some that the \
                            this to what which with";

/// The words of a text without their endings, names in any case taken apart.
fn stems(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in text.chars() {
        let hump = before.is_lowercase() && c.is_uppercase();
        if !c.is_alphanumeric() || hump {
            words.push(String::new());
        }
        words
            .last_mut()
            .expect("a word")
            .extend(c.is_alphanumeric().then_some(c).into_iter().flat_map(char::to_lowercase));
        before = c;
    }
    let little: Vec<&str> = LITTLE_WORDS.split_whitespace().collect();
    words.retain(|word| !word.is_empty() && !little.contains(&word.as_str()));
    let ending = |word: &String| {
        ["ings", "ing", "ies", "es", "ed", "s"]
            .into_iter()
            .find(|e| word.ends_with(e) && word.len() >= e.len() + 3)
    };
    words.iter().map(|word| word[..word.len() - ending(word).map_or(0, str::len)].to_string()).collect()
}

/// Whether a doc line says no more than the line of code that it is about. Notation does: `[m, n]`, `a + b`, `@scope`.
fn only_repeats(doc: &str, item: &str) -> bool {
    let notation = doc
        .split('`')
        .skip(1)
        .step_by(2)
        .any(|span| span.contains(|c: char| !c.is_alphanumeric() && c != '_'));
    let item = stems(item);
    !notation && stems(doc).iter().all(|word| item.contains(word))
}

#[test]
fn docs_say_more_than_a_name() {
    assert!(only_repeats("The shape of a tile.", "pub tile_shape: Shape,"));
    assert!(only_repeats("All kernels.", "pub kernels: Vec<Kernel>,"));
    assert!(!only_repeats("Shape, outermost axis first.", "pub shape: Vec<usize>,"));
    assert!(!only_repeats("`[rows, cols]`", "pub rows_cols: [usize; 2],"));
    let mut empty = vec![];
    for file in sources() {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        let is_doc = |i: usize| lines.get(i).is_some_and(|line| line.starts_with("///"));
        for (i, line) in lines.iter().enumerate() {
            let Some(doc) = line.strip_prefix("/// ") else { continue };
            if is_doc(i + 1) || (i > 0 && is_doc(i - 1)) {
                continue;
            }
            let mut attribute = false;
            let item = lines[i + 1..].iter().find(|line| {
                let inside = attribute || line.starts_with("#[");
                attribute = inside && !line.ends_with(']');
                !inside
            });
            if item.is_some_and(|item| only_repeats(doc, item)) {
                empty.push(format!("{}:{}: {doc}", file.path, i + 1));
            }
        }
    }
    assert_none(
        "docs that only repeat a name: say shape, unit, when, who or why, or delete the line",
        &empty,
    );
}
