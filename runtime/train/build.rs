//! Collects linc's own sources and docs into one text, the built-in dataset `selftext`.
//!
//! The text is every `.rs`, `.md`, `.linc` and `.toml` file of the workspace, by path, with a NUL
//! between two files. It depends on nothing but those files, so that a build from the same sources
//! trains on the same text.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Where in the workspace the files are; `target` and run outputs are elsewhere.
const ROOTS: [&str; 9] =
    ["Cargo.toml", "README.md", "benches", "compiler", "configs", "docs", "models", "runtime", "tests"];
const EXTENSIONS: [&str; 4] = ["rs", "md", "linc", "toml"];
/// Files beyond this many bytes in all are left out, so that the program stays small.
const MAX_BYTES: usize = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = package.join("../..");
    let mut files = Vec::new();
    for root in ROOTS {
        let path = workspace.join(root);
        // A root that does not exist yet would make every build a rebuild.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
            collect(&path, root, &mut files)?;
        }
    }
    if files.is_empty() {
        collect(&package, "runtime/train", &mut files)?;
    }
    files.sort();

    let mut out = String::new();
    for (_, path) in files {
        let bytes = fs::read(&path)?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if text.trim().is_empty() || text.contains('\0') || out.len() + text.len() >= MAX_BYTES {
            continue;
        }
        if !out.is_empty() {
            out.push('\0');
        }
        // A checkout with CRLF line ends gives the same text.
        out.push_str(&text.replace("\r\n", "\n"));
    }
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("selftext.txt"), out)?;
    Ok(())
}

/// Appends the files under `path`, each with its name in the workspace, `/` between its parts.
fn collect(path: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> Result<(), Box<dyn Error>> {
    if path.is_file() {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) {
            files.push((name.to_owned(), path.to_path_buf()));
        }
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(child) = entry.file_name().into_string() else { continue };
        let is_source = !child.starts_with('.') && !matches!(child.as_str(), "target" | "outputs");
        // Links could lead out of the workspace, or in circles.
        if is_source && !entry.file_type()?.is_symlink() {
            collect(&entry.path(), &format!("{name}/{child}"), files)?;
        }
    }
    Ok(())
}
