//! Inside of a code generator: a folder of its sources knows those before it only, and no two files import each other. A
//! new folder has its place in the table here and in what the crate says of itself.

use std::collections::{BTreeMap, BTreeSet};

use linc_tests::rust::{code, paths};
use linc_tests::tree::rust_files;

/// Crates whose sources stand in folders, each of which may use those before it and none behind.
const FOLDERS: [(&str, &[&str]); 2] = [
    ("compiler/codegen-cpu/src/", &["analysis", "schedule", "emission"]),
    ("compiler/codegen-cuda/src/", &["analysis", "decisions", "text", "hopper", "emission"]),
];

/// The module of a file in `src`, such as `emission::tiles`; a folder is its `mod.rs`.
fn module(file: &str) -> String {
    file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
}

/// The modules of a crate that the code of one names, by `crate::`, by `super::` or, of those in its own folder, directly.
/// What stands in `lib.rs` is of all of them.
fn modules_named(own: &str, code: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let is_folder = modules.iter().any(|m| m.starts_with(&format!("{own}::")));
    let folder = if is_folder { own } else { own.rsplit_once("::").map_or("", |(folder, _)| folder) };
    let above = own.rsplit_once("::").map_or("", |(folder, _)| folder);
    let mut named: Vec<String> = vec![];
    let mut add = |first: &str, from: &str| {
        let inner = |path: String| path.split_once("::").map(|(_, rest)| rest.to_string());
        let absolute = |rest: String| if from.is_empty() { rest } else { format!("{from}::{rest}") };
        named.extend(paths(code, first).into_iter().filter_map(inner).map(absolute));
    };
    add("crate", "");
    add("super", above);
    for module in modules {
        if let Some(child) = module.strip_prefix(&format!("{folder}::")).filter(|_| is_folder) {
            add(child, module);
        }
    }
    let known = |path: String| {
        let mut path = path.as_str();
        while !modules.contains(path) {
            path = path.rsplit_once("::")?.0;
        }
        (path != own).then(|| path.to_string())
    };
    named.into_iter().filter_map(known).collect()
}

/// The modules that are left when those that name none of the others are taken away, again and again.
fn in_circles(named: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut left: BTreeSet<&String> = named.keys().collect();
    loop {
        let (below, rest) = left.iter().partition(|m| named[**m].iter().all(|other| !left.contains(other)));
        let below: BTreeSet<&String> = below;
        if below.is_empty() {
            return left.into_iter().cloned().collect();
        }
        left = rest;
    }
}

#[test]
fn files_of_a_code_generator_know_only_those_below() {
    let modules: BTreeSet<String> = ["a", "a::x", "a::y", "b", "b::z"].map(str::to_string).into();
    let code_of_x = "use super::y::Y; use crate::b::{z::Z, B}; use crate::Options;";
    let named = |own: &str, code: &str| modules_named(own, code, &modules).into_iter().collect::<Vec<_>>();
    assert_eq!(named("a::x", code_of_x), ["a::y", "b", "b::z"]);
    assert_eq!(named("a", "use x::X; pub fn f() { y::g() }"), ["a::x", "a::y"]);
    let circle = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "a")];
    let circle = circle.map(|(m, other)| (m.to_string(), [other.to_string()].into()));
    assert_eq!(in_circles(&circle.into()), ["a", "b", "c", "d"]);
    let mut wrong = vec![];
    for (source, order) in FOLDERS {
        let files: Vec<(String, String)> = rust_files()
            .iter()
            .filter_map(|f| {
                let shipped = f.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
                Some((module(f.path.strip_prefix(source)?), code(shipped)))
            })
            .filter(|(module, _)| module != "lib")
            .collect();
        let modules: BTreeSet<String> = files.iter().map(|(module, _)| module.clone()).collect();
        let named: BTreeMap<String, BTreeSet<String>> =
            files.iter().map(|(own, code)| (own.clone(), modules_named(own, code, &modules))).collect();
        // Files beside the folders are vocabulary, and before all of them.
        let place = |module: &str| {
            order.iter().position(|f| module.split("::").next() == Some(f)).map_or(0, |i| i + 1)
        };
        for folder in order {
            assert!(modules.contains(*folder), "{source}{folder} is not a folder of modules");
        }
        for (own, others) in &named {
            let behind = others.iter().filter(|other| place(other) > place(own));
            wrong.extend(behind.map(|other| format!("{source}{own} uses {other}, which comes behind it")));
        }
        wrong.extend(
            in_circles(&named).into_iter().map(|m| format!("{source}{m} is in a circle, or uses one")),
        );
    }
    assert!(wrong.is_empty(), "files that use what stands above them:\n  {}", wrong.join("\n  "));
}
