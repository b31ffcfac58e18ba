//! Who may know whom: the table of crates, and what lives in one crate only: some libraries, and unsafe code.
//!
//! A new crate, or an arrow that the table lacks, is a decision: write it into the table here and into
//! `compiler/README.md` or `runtime/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use linc_tests::rust::{code, names};
use linc_tests::tree::{TextFile, files, root, rust_files};
use serde_json::Value;

/// Each crate with its folder and the workspace crates that it may use.
const CRATES: [(&str, &str, &[&str]); 28] = [
    ("linc-text", "compiler/text", &[]),
    ("linc-ir", "compiler/ir", &["linc-text"]),
    ("linc-lang", "compiler/lang", &["linc-ir"]),
    ("linc-passes", "compiler/passes", &["linc-ir"]),
    ("linc-tile", "compiler/tile", &["linc-text"]),
    ("linc-kernels", "compiler/kernels", &["linc-ir", "linc-tile"]),
    ("linc-codegen-cpu", "compiler/codegen-cpu", &["linc-tile"]),
    ("linc-codegen-cuda", "compiler/codegen-cuda", &["linc-tile"]),
    ("linc-plan", "compiler/plan", &[]),
    (
        "linc-driver",
        "compiler/driver",
        &[
            "linc-ir",
            "linc-lang",
            "linc-passes",
            "linc-tile",
            "linc-kernels",
            "linc-codegen-cpu",
            "linc-codegen-cuda",
            "linc-plan",
        ],
    ),
    ("linc-device", "runtime/device", &["linc-tile", "linc-plan", "linc-codegen-cpu", "linc-codegen-cuda"]),
    ("linc-exec", "runtime/exec", &["linc-plan", "linc-device"]),
    ("linc-config", "runtime/config", &["linc-driver", "linc-device"]),
    ("linc-data", "runtime/data", &["linc-device", "linc-config"]),
    (
        "linc-checkpoint",
        "runtime/checkpoint",
        &["linc-plan", "linc-driver", "linc-device", "linc-exec", "linc-config", "linc-data"],
    ),
    ("linc-session", "runtime/session", &["linc-plan", "linc-driver", "linc-device", "linc-exec"]),
    (
        "linc-infer",
        "runtime/infer",
        &["linc-plan", "linc-driver", "linc-device", "linc-exec", "linc-config", "linc-data", "linc-session"],
    ),
    ("linc-serve", "runtime/serve", &["linc-config", "linc-device", "linc-data", "linc-infer"]),
    (
        "linc-bench",
        "runtime/bench",
        &["linc-plan", "linc-driver", "linc-device", "linc-exec", "linc-session", "linc-infer"],
    ),
    (
        "linc-eval",
        "runtime/eval",
        &[
            "linc-driver",
            "linc-device",
            "linc-config",
            "linc-data",
            "linc-checkpoint",
            "linc-session",
            "linc-infer",
            "linc-train",
        ],
    ),
    (
        "linc-train",
        "runtime/train",
        &[
            "linc-plan",
            "linc-driver",
            "linc-device",
            "linc-exec",
            "linc-config",
            "linc-data",
            "linc-checkpoint",
            "linc-session",
            "linc-infer",
        ],
    ),
    (
        "linc-study",
        "runtime/study",
        &[
            "linc-driver",
            "linc-device",
            "linc-exec",
            "linc-config",
            "linc-data",
            "linc-checkpoint",
            "linc-session",
            "linc-infer",
            "linc-eval",
            "linc-bench",
            "linc-train",
        ],
    ),
    ("linc-watch", "runtime/watch", &["linc-device", "linc-config", "linc-checkpoint", "linc-train"]),
    (
        "linc",
        "runtime/cli",
        &[
            "linc-plan",
            "linc-driver",
            "linc-device",
            "linc-exec",
            "linc-config",
            "linc-data",
            "linc-checkpoint",
            "linc-session",
            "linc-infer",
            "linc-eval",
            "linc-train",
            "linc-serve",
            "linc-bench",
            "linc-study",
            "linc-watch",
        ],
    ),
    (
        "linc-tests",
        "tests",
        &[
            "linc-ir",
            "linc-lang",
            "linc-passes",
            "linc-tile",
            "linc-codegen-cuda",
            "linc-emulator",
            "linc-plan",
            "linc-driver",
            "linc-device",
            "linc-exec",
        ],
    ),
    ("linc-cases", "tests/cases", &["linc-plan", "linc-tile"]),
    ("linc-emulator", "tests/emulator", &["linc-tile", "linc-codegen-cuda"]),
    ("linc-gpu-check", "tests/gpu", &["linc-cases", "linc-plan", "linc-device", "linc-tile"]),
];

/// Libraries that only some crates may name, with the reason.
const CONFINED: [(&str, &[&str], &str); 15] = [
    ("toml", &["linc-lang", "linc-config"], "models are read by the language, configs by their own crate"),
    (
        "cranelift-codegen",
        &["linc-codegen-cpu", "linc-device"],
        "CLIF is written by one crate and run by another",
    ),
    ("cranelift-frontend", &["linc-codegen-cpu"], "CLIF is written by one crate"),
    ("cranelift-jit", &["linc-device"], "machine code exists only in a device"),
    ("cranelift-module", &["linc-device"], "machine code exists only in a device"),
    ("cranelift-native", &["linc-device"], "only a device looks at the machine"),
    ("cudarc", &["linc-device"], "CUDA belongs to a device"),
    ("libloading", &["linc-device"], "only a device opens libraries"),
    ("rayon", &["linc-data"], "only data splits work that is not a kernel's among threads"),
    ("libc", &["linc-device"], "only a device asks the system"),
    ("tokenizers", &["linc-data"], "text becomes tokens in one crate"),
    ("anyhow", &["linc"], "libraries have typed errors"),
    ("tokio", &["linc-serve"], "only the server waits for many at once"),
    ("axum", &["linc-serve"], "HTTP is spoken in one crate"),
    ("hyper", &["linc-serve"], "HTTP is spoken in one crate"),
];

struct Package {
    name: String,
    folder: String,
    /// Normal and build dependencies.
    dependencies: BTreeSet<String>,
}

/// The packages of the workspace as cargo sees them. Development dependencies are left out: tests may use anything.
fn packages() -> Vec<Package> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_string();
    let base = text(&metadata["workspace_root"]);
    let package = |package: &Value| {
        let manifest = text(&package["manifest_path"]);
        let folder = manifest.strip_prefix(&base).and_then(|p| p.strip_suffix("Cargo.toml"));
        let dependencies = package["dependencies"].as_array().expect("a list").iter();
        Package {
            name: text(&package["name"]),
            folder: folder.expect("a path in the workspace").trim_matches(['/', '\\']).replace('\\', "/"),
            dependencies: dependencies.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect(),
        }
    };
    metadata["packages"].as_array().expect("a list").iter().map(package).collect()
}

pub(crate) fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn arrows_are_only_those_of_the_table() {
    let table: BTreeMap<&str, (&str, &[&str])> =
        CRATES.iter().map(|(name, folder, may)| (*name, (*folder, *may))).collect();
    let packages = packages();
    let known: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(known, table.keys().copied().collect(), "the crates of the workspace and of the table differ");
    let mut wrong = vec![];
    for package in &packages {
        let (folder, may) = table[package.name.as_str()];
        if package.folder != folder {
            wrong.push(format!("{} is in {}, expected {folder}", package.name, package.folder));
        }
        for used in package.dependencies.iter().filter(|d| known.contains(d.as_str())) {
            if !may.contains(&used.as_str()) {
                wrong.push(format!("{} must not use {used}", package.name));
            }
        }
    }
    assert_none("arrows against the design", &wrong);
}

#[test]
fn libraries_stay_where_they_belong() {
    let mut wrong = vec![];
    for package in packages() {
        for (library, owners, reason) in CONFINED {
            if package.dependencies.contains(library) && !owners.contains(&package.name.as_str()) {
                wrong.push(format!("{} uses {library}: {reason}", package.name));
            }
        }
    }
    assert_none("libraries outside of their crates", &wrong);
}

/// The crates of the workspace that code names, such as `linc-ir` for `linc_ir::Graph`.
fn crates_named(code: &str) -> BTreeSet<String> {
    names(code)
        .into_iter()
        .filter(|name| name.starts_with("linc_"))
        .map(|name| name.replace('_', "-"))
        .collect()
}

/// Sources and tests of a crate, without those of crates inside its folder.
fn sources_of(folder: &str) -> Vec<TextFile> {
    let others = CRATES.iter().map(|(_, other, _)| *other).filter(|other| *other != folder);
    let inner: Vec<String> =
        others.map(|other| format!("{other}/")).filter(|o| o.starts_with(&format!("{folder}/"))).collect();
    let is_own = |path: &str| {
        path.starts_with(&format!("{folder}/")) && !inner.iter().any(|inner| path.starts_with(inner))
    };
    rust_files().into_iter().filter(|file| is_own(&file.path)).collect()
}

#[test]
fn the_table_has_no_stale_rows() {
    let mut stale = vec![];
    let packages = packages();
    for (name, folder, may) in CRATES {
        let sources = sources_of(folder);
        assert!(!sources.is_empty(), "{folder} has no sources");
        let named: BTreeSet<String> =
            sources.iter().flat_map(|file| crates_named(&code(&file.text))).collect();
        stale.extend(
            may.iter()
                .filter(|used| !named.contains(**used))
                .map(|used| format!("{name} never names {used}")),
        );
    }
    for (library, owners, _) in CONFINED {
        let uses =
            |owner: &&&str| packages.iter().any(|p| p.name == **owner && p.dependencies.contains(library));
        stale.extend(
            owners.iter().filter(|owner| !uses(owner)).map(|owner| format!("{owner} does not use {library}")),
        );
    }
    assert_none("what the tables allow and nobody does", &stale);
}

/// A crate that is handed on whole would be used past the table, by whoever uses the crate that does so.
#[test]
fn no_crate_hands_another_on() {
    let hands_on = |code: &str| {
        let uses = code
            .split(';')
            .filter_map(|statement| statement.trim().split_once("pub use ").map(|(_, path)| path.trim()));
        let whole = uses.filter(|path| {
            let first = path.split(" as ").next().unwrap_or_default().trim_start_matches("::").trim();
            let is_whole = !first.contains("::") || first.ends_with("::*");
            first.starts_with("linc_") && is_whole
        });
        whole.map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(hands_on("pub use linc_plan as plan; pub use linc_ir::Op;"), ["linc_plan as plan"]);
    assert_eq!(hands_on("mod a;\npub use linc_ir::*;"), ["linc_ir::*"]);
    let found: Vec<String> = rust_files()
        .iter()
        .filter(|file| file.path.contains("/src/"))
        .flat_map(|file| hands_on(&code(&file.text)).into_iter().map(|path| format!("{}: {path}", file.path)))
        .collect();
    assert_none("crates that are handed on whole", &found);
}

#[test]
fn unsafe_code_is_in_the_device_crate_only() {
    let naming: Vec<String> = rust_files()
        .into_iter()
        .filter(|f| {
            let code = code(&f.text);
            let names = names(&code);
            names.contains("unsafe") || names.contains("unsafe_code")
        })
        .map(|f| f.path)
        .collect();
    assert!(!naming.is_empty(), "the device crate has unsafe code; has the search broken?");
    let outside: Vec<String> =
        naming.into_iter().filter(|path| !path.starts_with("runtime/device/src/")).collect();
    assert_none("unsafe outside of runtime/device", &outside);
    let manifest = linc_tests::tree::read("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"deny\""), "the workspace denies unsafe code");
    let without: Vec<String> = files()
        .into_iter()
        .filter(|f| f.path.ends_with("/Cargo.toml") && !f.text.contains("[lints]\nworkspace = true"))
        .map(|f| f.path)
        .collect();
    assert_none("crates without the workspace's lints", &without);
}
