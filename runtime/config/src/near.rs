//! The nearest in spelling, of names and of paths.

use std::fs;
use std::path::{Path, PathBuf};

/// Entries of a folder that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// The known name nearest in spelling, if near enough to be what was meant; else the shortest of those of which a part is
/// (`nano` of `llama3_nano`).
pub fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let known: Vec<&str> = known.collect();
    let whole = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, candidate)| {
            let (key, said) = (last_part(candidate), last_part(name));
            // Of two names without a letter in common neither is a slip of the other.
            let letters = key.chars().count().max(said.chars().count());
            *distance <= (key.len() / 3).max(2) && *distance < letters
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate);
    let part = || {
        let near = known.iter().map(|candidate| (distance_of_parts(name, candidate), *candidate));
        let near = near.filter(|(distance, _)| name.len() > 2 && *distance <= name.len() / 4);
        near.min_by_key(|(distance, candidate)| (*distance, candidate.len())).map(|(_, candidate)| candidate)
    };
    whole.or_else(part)
}

/// What stands behind the last dot.
fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// How far a name is from the nearest part of another.
fn distance_of_parts(name: &str, other: &str) -> usize {
    let parts = other.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(|part| strsim::damerau_levenshtein(name, part)).min().unwrap_or(usize::MAX)
}

/// How far a name is from another or from a part of it.
pub(crate) fn distance(name: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(name, other).min(distance_of_parts(name, other))
}

/// The name of dotted parts that has what a pattern with stars says nearest in spelling, however far; of equals the first.
pub fn nearest_to_pattern<'n>(pattern: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let said = pattern.replace('*', "");
    let said = said.trim_matches('.');
    let distance = |name: &&str| {
        let parts: Vec<&str> = name.split('.').collect();
        let spans = (0..parts.len()).flat_map(|from| (from..parts.len()).map(move |to| (from, to)));
        spans.map(|(from, to)| strsim::damerau_levenshtein(said, &parts[from..=to].join("."))).min()
    };
    known.min_by_key(distance)
}

/// The path that was meant by one at which nothing is: each part that does not exist is taken for the name in its folder
/// that is nearest.
pub(crate) fn nearest_path(path: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    for part in path.components() {
        if found.join(part).exists() {
            found.push(part);
            continue;
        }
        let folder = if found.as_os_str().is_empty() { Path::new(".") } else { &found };
        let entries = fs::read_dir(folder).ok()?.take(MOST_ENTRIES);
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        let near = nearest(part.as_os_str().to_str()?, names.iter().map(String::as_str))?;
        found.push(near);
    }
    Some(found)
}

/// What to say of a path at which nothing is: the nearest that there is, or where paths start.
pub fn help_for_missing(path: &Path) -> Option<String> {
    if path.as_os_str().is_empty() {
        return Some("name one".to_owned());
    }
    if let Some(near) = nearest_path(path) {
        return Some(format!("did you mean {}?", near.display()));
    }
    let here = std::env::current_dir().ok().filter(|_| path.is_relative())?;
    Some(format!("paths start at {}", here.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_name_is_near_to_it() {
        let models = ["llama3_debugmodel", "llama3_nano", "llama3_nano_wide", "recall_small"];
        let near = |name| nearest(name, models.into_iter());
        for (typed, meant) in [("nano", "llama3_nano"), ("nanno", "llama3_nano"), ("recal", "recall_small")] {
            assert_eq!(near(typed), Some(meant), "{typed}");
        }
        for typed in ["", "x", "3", "none", "gpt2"] {
            assert_eq!(near(typed), None, "{typed}");
        }
        assert_eq!(nearest("memry", ["none", "full", "memory_budget"].into_iter()), Some("memory_budget"));
    }

    #[test]
    fn names_without_a_letter_in_common_are_not_near() {
        let names = ["s5", "mqar", "training.s5"];
        for (typed, meant) in
            [("c4", None), ("training.c4", None), ("x", None), ("s6", Some("s5")), ("5", Some("s5"))]
        {
            assert_eq!(nearest(typed, names.into_iter()), meant, "{typed}");
        }
    }

    #[test]
    fn a_pattern_is_near_to_what_has_its_words() {
        let names =
            ["tok.weight", "layers.0.attention.wq.weight", "layers.0.attention.wo.weight", "norm.weight"];
        for (pattern, meant) in [("*.wo", 2), ("layers.0.attention.wx", 1), ("*.nrom", 3), ("tokk.*", 0)] {
            assert_eq!(nearest_to_pattern(pattern, names.into_iter()), Some(names[meant]), "{pattern}");
        }
        assert_eq!(nearest_to_pattern("x", [].into_iter()), None);
    }

    #[test]
    fn each_part_of_a_path_may_be_misspelt() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("configs")).expect("a folder");
        for name in ["configs/quickstart.toml", "configs/recall.toml", "tokenizer.json"] {
            fs::write(at(name), "").expect("a file");
        }
        for (typed, meant) in [
            ("configs/quickstart.tml", "configs/quickstart.toml"),
            ("config/quickstart.toml", "configs/quickstart.toml"),
            ("confgs/recal.toml", "configs/recall.toml"),
            ("tokeniser.json", "tokenizer.json"),
        ] {
            assert_eq!(nearest_path(&at(typed)), Some(at(meant)), "{typed}");
        }
        for typed in ["elsewhere/quickstart.toml", "configs/other.toml", "tokenizer.json/below"] {
            assert_eq!(nearest_path(&at(typed)), None, "{typed}");
        }
        assert_eq!(help_for_missing(&at("nowhere")), None, "an absolute path starts where it says");
    }
}
