//! Who may know whom: the table of crates, the few libraries that live in one crate only, and the rules inside the
//! compiler: no contact with the machine, no pass that imports another, one place that reads the ratio.
//!
//! A new crate, or an arrow that the table lacks, is a decision: write it into the table here and into
//! `compiler/README.md` or `runtime/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use linc_tests::rust::{code, names, paths};
use linc_tests::tree::{TextFile, files, root, rust_files};
use serde_json::Value;

/// Each crate with its folder and the workspace crates that it may use.
const CRATES: [(&str, &str, &[&str]); 24] = [
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
    (
        "linc-bench",
        "runtime/bench",
        &["linc-plan", "linc-driver", "linc-device", "linc-exec", "linc-session"],
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
            "linc-train",
            "linc-bench",
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
const CONFINED: [(&str, &[&str], &str); 12] = [
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
];

/// What the passes may take from each other: plain vocabulary, and the schedule that the memory plan is made for.
/// The right side is an item, or all items of a file.
const SHARED: [(&str, &str); 9] = [
    ("*", "error"),
    ("*", "setting"),
    ("attention", "positions::POSITION"),
    ("optimizer", "autodiff::Gradients"),
    ("optimizer", "loss_scale::Scaling"),
    ("accumulate", "autodiff::Gradients"),
    ("memory", "schedule::run"),
    ("memory", "loss::LOSS"),
    ("pipeline", "*"),
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

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// The rust files of the compiler's libraries: `src` folders, without tests.
fn compiler_sources() -> Vec<TextFile> {
    let sources: Vec<TextFile> = rust_files()
        .into_iter()
        .filter(|f| f.path.starts_with("compiler/") && f.path.split('/').nth(2) == Some("src"))
        .collect();
    assert!(sources.len() > 80, "only {} sources of the compiler found", sources.len());
    sources
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

/// Contacts with the machine in code: modules of `std`, and macros that print or read the environment.
fn contacts(code: &str) -> Vec<String> {
    const MODULES: [&str; 7] = ["fs", "env", "time", "thread", "process", "net", "os"];
    const MACROS: [&str; 6] = ["println!", "eprintln!", "print!", "eprint!", "env!", "option_env!"];
    let mut found: Vec<String> = paths(code, "std")
        .into_iter()
        .filter(|path| {
            let module = path.split("::").nth(1).unwrap_or_default();
            MODULES.contains(&module) || path.starts_with("std::io::std")
        })
        .collect();
    let called = |name: &&str| {
        code.match_indices(*name)
            .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    found.extend(MACROS.iter().filter(|name| called(name)).map(|name| (*name).to_string()));
    found
}

#[test]
fn the_compiler_has_no_contact_with_the_machine() {
    assert_eq!(contacts("use std::{fmt, fs::File};\nstd::env::var(x)"), ["std::env::var", "std::fs::File"]);
    assert_eq!(contacts("writeln!(f, x); println!(x)"), ["println!"]);
    let found: Vec<String> = compiler_sources()
        .iter()
        .flat_map(|f| contacts(&code(&f.text)).into_iter().map(|contact| format!("{}: {contact}", f.path)))
        .collect();
    assert_none("compiler sources that touch files, environment, clock, threads or the console", &found);
}

/// What the pass in `file` (a file or folder of `src`) takes from other passes without being allowed to.
fn foreign(file: &str, code: &str) -> Vec<String> {
    let allowed = |item: &str| {
        SHARED.iter().any(|(who, what)| {
            (*who == file || *who == "*")
                && (*what == "*" || item == *what || item.starts_with(&format!("{what}::")))
        })
    };
    paths(code, "crate")
        .into_iter()
        .filter_map(|path| path.strip_prefix("crate::").map(str::to_string))
        .filter(|item| item.split("::").next() != Some(file) && !allowed(item))
        .collect()
}

#[test]
fn no_pass_imports_another() {
    assert_eq!(foreign("cse", "use crate::{dce, error::PassError};"), ["dce"]);
    assert_eq!(
        foreign("memory", "crate::schedule::run(g); crate::schedule::priorities(g)"),
        ["schedule::priorities"]
    );
    let mut found = vec![];
    for file in compiler_sources() {
        let Some(inside) = file.path.strip_prefix("compiler/passes/src/") else { continue };
        let pass = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if pass != "lib" {
            found.extend(foreign(pass, &code(&file.text)).into_iter().map(|item| format!("{pass}: {item}")));
        }
    }
    assert_none("passes that know other passes", &found);
}

/// A file without its comments and its unit tests; literals stay.
fn without_comments_and_tests(file: &TextFile) -> String {
    let shipped = file.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    shipped.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// What a tensor, a node or a step is, it says by a role, a layer or an operation. Whoever takes strings apart below the
/// level of files and commands reads a text form, or what a user wrote.
#[test]
fn nobody_reads_names_apart() {
    const FOLDERS: [&str; 8] = [
        "compiler/ir/",
        "compiler/passes/",
        "compiler/kernels/",
        "compiler/plan/",
        "compiler/driver/",
        "runtime/exec/",
        "runtime/session/",
        "runtime/bench/",
    ];
    // Text forms of the graph and of tile sizes, the ratio, the list of layers and the limit of memory
    // that a user wrote, and files of the
    // session's own: sizes that were measured, and the list of what it wrote to a folder.
    const READERS: [&str; 8] = [
        "compiler/ir/src/dot.rs",
        "compiler/ir/src/parse.rs",
        "compiler/ir/src/scope.rs",
        "compiler/kernels/src/attention/softmax/tiles.rs",
        "compiler/passes/src/placement.rs",
        "compiler/passes/src/recompute/policy.rs",
        "runtime/session/src/autotune/store.rs",
        "runtime/session/src/output.rs",
    ];
    const METHODS: [&str; 12] = [
        "starts_with(",
        "ends_with(",
        "strip_prefix(",
        "strip_suffix(",
        "split(",
        "rsplit(",
        "split_once(",
        "rsplit_once(",
        "contains(\"",
        "contains('",
        "find(\"",
        "find('",
    ];
    let reads = |text: &str| METHODS.iter().any(|method| text.contains(&format!(".{method}")));
    assert!(reads("name.ends_with(\".grad\")") && reads("n.contains(\".m\")") && !reads("set.contains(&id)"));
    let inside =
        |f: &TextFile| f.path.contains("/src/") && FOLDERS.iter().any(|folder| f.path.starts_with(folder));
    let mut readers: Vec<String> = rust_files()
        .into_iter()
        .filter(|f| inside(f) && reads(&without_comments_and_tests(f)))
        .map(|f| f.path)
        .collect();
    readers.sort();
    assert_eq!(readers, READERS, "files that take strings apart");
}

/// The names of states are those of checkpoints; a pass gives them, and nothing else knows them.
#[test]
fn names_of_states_are_given_in_one_place() {
    for (word, giver) in [
        ("exp_avg", "compiler/ir/src/optimizer/adamw.rs"),
        (".grad", "compiler/passes/src/accumulate.rs"),
        ("loss_scale.", "compiler/passes/src/loss_scale.rs"),
        ("cache_k", "compiler/passes/src/attention/softmax.rs"),
        ("state_sum", "compiler/passes/src/attention/efficient.rs"),
        ("elu_sum", "compiler/passes/src/attention/elu.rs"),
    ] {
        let literal = |text: &str| {
            text.match_indices(word).any(|(at, _)| {
                let line = text[..at].rsplit('\n').next().unwrap_or_default();
                line.matches('"').count() % 2 == 1
            })
        };
        assert!(literal(&format!("f(\"a{word}\")")) && !literal(&format!("x{word}; f(\"a\")")));
        let naming: Vec<String> = rust_files()
            .into_iter()
            .filter(|f| f.path.starts_with("compiler/") || f.path.starts_with("runtime/"))
            .filter(|f| f.path.split('/').nth(2) == Some("src") && !f.path.ends_with("/tests.rs"))
            .filter(|f| literal(&without_comments_and_tests(f)))
            .map(|f| f.path)
            .collect();
        assert_eq!(naming, [giver], "files with a literal of `{word}`");
    }
}

/// A kind of attention is a module at each level, and an arm or a field where its level registers kinds. Whoever else named
/// what belongs to one would assume its formula.
#[test]
fn kinds_of_attention_stay_in_their_modules() {
    const KINDS: [(&str, &[&str]); 3] = [
        ("softmax", &["SoftmaxOp", "SoftmaxOptions", "SoftmaxForwardSpec", "SoftmaxDecodeSpec"]),
        (
            "efficient",
            &["Efficient", "EfficientOp", "EfficientForm", "EfficientSpec", "EfficientOptions", "NO_KEY"],
        ),
        ("elu", &["Elu", "EluOp", "EluSpec", "EluOptions"]),
    ];
    // Where kinds are registered, and where the numbers of a model file become options of kinds.
    const REGISTERS: [&str; 5] = [
        "compiler/driver/src/model.rs",
        "compiler/ir/src/attention/mod.rs",
        "compiler/ir/src/interp/attention/mod.rs",
        "compiler/kernels/src/attention/mod.rs",
        "compiler/passes/src/attention/mod.rs",
    ];
    let is_own = |path: &str, kind: &str| {
        path.split_once("/attention/").is_some_and(|(_, inside)| {
            inside.starts_with(&format!("{kind}/")) || inside == format!("{kind}.rs")
        })
    };
    assert!(is_own("a/src/attention/softmax/tiles.rs", "softmax") && !is_own("a/softmax.rs", "softmax"));
    let mut found = vec![];
    let mut registers = BTreeSet::new();
    let ships = |path: &str| {
        path.split('/').nth(2) == Some("src")
            && (path.starts_with("compiler/") || path.starts_with("runtime/"))
    };
    for file in rust_files().into_iter().filter(|f| ships(&f.path)) {
        let code = code(&file.text);
        let names = names(&code);
        for (kind, own) in KINDS {
            for name in own.iter().filter(|name| names.contains(**name) && !is_own(&file.path, kind)) {
                if REGISTERS.contains(&file.path.as_str()) {
                    registers.insert(file.path.clone());
                } else {
                    found.push(format!("{}: {name}", file.path));
                }
            }
        }
    }
    assert_none("files that know a kind of attention", &found);
    assert_eq!(registers, REGISTERS.map(String::from).into(), "registers of kinds");
}

#[test]
fn the_ratio_is_read_in_one_place() {
    let ratio = |f: &TextFile| {
        let code = code(&f.text);
        let names = names(&code);
        ["Ratio", "linear_attn_ratio"].iter().any(|name| names.contains(name))
    };
    let naming: Vec<String> = compiler_sources()
        .iter()
        .filter(|f| !f.path.starts_with("compiler/driver/"))
        .filter(|f| ratio(f))
        .map(|f| f.path.clone())
        .collect();
    assert_eq!(naming, ["compiler/passes/src/placement.rs"]);
    // The driver takes it from its caller and hands it to the placement: nothing that compiles or reports sees it.
    let driver: Vec<String> = compiler_sources()
        .iter()
        .filter(|f| f.path.starts_with("compiler/driver/") && ratio(f))
        .map(|f| f.path.clone())
        .collect();
    assert_eq!(driver, ["compiler/driver/src/lib.rs", "compiler/driver/src/model.rs"]);
}
