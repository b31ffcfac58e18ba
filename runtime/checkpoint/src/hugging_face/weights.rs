//! The weights of a Hugging Face folder: one safetensors file, or several with an index that says which has what. All that is
//! wrong with them is found before any is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use linc_config::Problem;
use linc_device::words::{count, help_to_read, reason};
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use super::config::Config;
use super::convert::{Element, widened};
use super::json::{Document, is_special};
use super::names::{EMBEDDING, OUTPUT, Weight, is_position_buffer};
use crate::read::{TensorFile, Unfit};

/// The file of a model that is in one.
pub(super) const ONE: &str = "model.safetensors";
/// The file that says which tensor is in which of several.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// So many names of tensors are listed where more are wrong.
const LISTED: usize = 8;

/// What lies where.
pub(super) struct Weights {
    files: Vec<TensorFile>,
    /// By name: the file and the place in it.
    places: BTreeMap<String, (usize, TensorInfo)>,
    /// What is odd and harmless.
    pub(super) notes: Vec<String>,
}

impl Weights {
    /// Opens the files of a folder and compares them with the index, with each other and with the tensors of the model.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn open(folder: &Path, config: &Config, wanted: &[Weight]) -> Result<Self, Vec<Problem>> {
        let mut problems = vec![];
        let (one, index) = (folder.join(ONE), folder.join(INDEX));
        let index = match (one.is_file(), index.is_file()) {
            (true, false) => None,
            (false, true) => Some(Index::read(folder).map_err(|problem| vec![problem])?),
            (true, true) => {
                let message = format!("{}: there are both {ONE} and {INDEX}", folder.display());
                return Err(vec![problem(message, "remove the one that is not meant")]);
            }
            (false, false) => return Err(vec![no_weights(folder)]),
        };
        let names = match &index {
            Some(index) => index.files(&mut problems),
            None => vec![ONE.to_owned()],
        };
        let files: Vec<TensorFile> =
            names.iter().filter_map(|name| open(&folder.join(name), index.as_ref(), &mut problems)).collect();
        let mut weights = Weights { files, places: BTreeMap::new(), notes: vec![] };
        weights.place(index.as_ref(), &mut problems);
        // Tensors of files that are not there are missing for a reason that was said.
        if weights.files.len() == names.len() {
            weights.compare(folder, config, wanted, &mut problems);
        }
        if problems.is_empty() { Ok(weights) } else { Err(problems) }
    }

    /// Finds the place of each tensor.
    fn place(&mut self, index: Option<&Index>, problems: &mut Vec<Problem>) {
        for (number, file) in self.files.iter().enumerate() {
            let (mut foreign, mut twice) = (vec![], vec![]);
            let held = file.metadata.tensors();
            let sorted: BTreeMap<&String, &&TensorInfo> = held.iter().collect();
            for (name, info) in sorted {
                let listed = index.map(|index| index.map.get(name).map(String::as_str));
                if listed.is_some_and(|listed| listed != file.path.file_name().and_then(|name| name.to_str()))
                {
                    foreign.push(name.clone());
                }
                if self.places.insert(name.clone(), (number, (*info).clone())).is_some() {
                    twice.push(name.clone());
                }
            }
            let path = file.path.display();
            if !foreign.is_empty() {
                let message = format!("{path}: {INDEX} does not name it for {}", listed(&foreign));
                problems.push(problem(message, AGAIN));
            }
            if !twice.is_empty() {
                let message = format!("{path}: another file has these tensors as well: {}", listed(&twice));
                problems.push(problem(message, AGAIN));
            }
            let lost: Vec<String> = index.map_or(vec![], |index| {
                let here = |(_, name): &(&String, &String)| file.path.ends_with(name.as_str());
                let lost = index.map.iter().filter(here).filter(|(name, _)| !held.contains_key(*name));
                lost.map(|(name, _)| name.clone()).collect()
            });
            if !lost.is_empty() {
                let message =
                    format!("{path}: {INDEX} names it for {}, which it does not have", listed(&lost));
                problems.push(problem(message, AGAIN));
            }
        }
        let bytes: u64 = self.files.iter().map(|file| file.metadata.data_len() as u64).sum();
        if let Some(total) = index.and_then(|index| index.total_size).filter(|total| *total != bytes) {
            self.notes.push(format!("{INDEX} says total_size = {total}, the tensors have {bytes} bytes"));
        }
    }

    /// Compares what is there with what the model has.
    fn compare(&mut self, folder: &Path, config: &Config, wanted: &[Weight], problems: &mut Vec<Problem>) {
        let folder = folder.display();
        let mut known = BTreeSet::new();
        let (mut missing, mut shapes, mut types) = (vec![], vec![], vec![]);
        let mut others = BTreeSet::new();
        for weight in wanted {
            let names = if weight.foreign == EMBEDDING && config.sizes.tied {
                &[EMBEDDING, OUTPUT][..]
            } else {
                &[&*weight.foreign][..]
            };
            known.extend(names.iter().map(|name| (*name).to_owned()));
            let held: Vec<(&str, &TensorInfo)> =
                names.iter().filter_map(|name| Some((*name, &self.places.get(*name)?.1))).collect();
            if held.is_empty() {
                missing.push(weight.foreign.clone());
            }
            for (name, info) in held {
                if info.shape != weight.shape {
                    shapes.push(format!("{name} {:?} and not {:?}", info.shape, weight.shape));
                }
                if Element::of(info.dtype).is_none() {
                    types.push(format!("{name} {:?}", info.dtype));
                }
                others.insert(format!("{:?}", info.dtype));
            }
        }
        let is_extra =
            |name: &&String| !known.contains(*name) && !is_position_buffer(name, config.sizes.layers);
        let extra: Vec<String> = self.places.keys().filter(is_extra).cloned().collect();
        let model = "the model of config.json";
        let mut wrong = |names: &[String], said: &str, help: &str| {
            if !names.is_empty() {
                problems.push(problem(
                    format!("{folder}: {}{said}: {}", count(names.len(), "tensor"), listed(names)),
                    help,
                ));
            }
        };
        let tied = "get the files again; if the output projection is the embedding, config.json has \"tie_word_embeddings\": true";
        wrong(
            &missing,
            &format!(" of {model} missing"),
            if missing.iter().any(|name| name == OUTPUT) { tied } else { AGAIN },
        );
        wrong(
            &extra,
            &format!(" that {model} does not have"),
            "it may be of another model: config.json and weights belong together",
        );
        wrong(
            &shapes,
            " of another shape than config.json says",
            "config.json and weights belong together: get both again",
        );
        wrong(
            &types,
            " of a number format that linc does not read",
            "linc reads F32, BF16 and F16; quantised weights have to be converted first",
        );
        if let Some(dtype) = config.dtype {
            others.remove(dtype);
            if types.is_empty() && !others.is_empty() {
                let others: Vec<String> = others.into_iter().collect();
                self.notes.push(format!(
                    "config.json says {dtype}, and there are tensors of {}: each is read as it is",
                    others.join(" and ")
                ));
            }
        }
    }

    /// The number formats of the tensors, for people.
    pub(super) fn formats(&self) -> String {
        let formats: BTreeSet<String> =
            self.places.values().map(|(_, info)| format!("{:?}", info.dtype)).collect();
        formats.into_iter().collect::<Vec<_>>().join(" and ")
    }

    /// Contents of a tensor as f32, in the order of Hugging Face.
    ///
    /// # Errors
    /// The file was changed since it was opened, or cannot be read.
    pub(super) fn read(&self, weight: &Weight) -> Result<Vec<u8>, String> {
        // The embedding of a tied model may be stored under the name of the output projection only.
        let name = if self.places.contains_key(&weight.foreign) { &*weight.foreign } else { OUTPUT };
        let (file, info) = self.places.get(name).ok_or_else(|| format!("{name} is missing"))?;
        let file = &self.files[*file];
        let bytes = file.read(name, info).map_err(|error| {
            let reason = match error {
                Unfit::Io(error) => error.to_string(),
                Unfit::Damaged(message) => message,
            };
            format!("{}: {reason}", file.path.display())
        })?;
        Ok(widened(bytes, Element::of(info.dtype).unwrap_or(Element::F32)))
    }

    /// Refuses a tied model with an output projection of its own.
    ///
    /// # Errors
    /// A file cannot be read, or the two differ.
    pub(super) fn check_tie(&self, folder: &Path, config: &Config) -> Result<(), Problem> {
        if !config.sizes.tied || !self.places.contains_key(EMBEDDING) || !self.places.contains_key(OUTPUT) {
            return Ok(());
        }
        let read = |name: &str| {
            let weight =
                Weight { linc: String::new(), foreign: name.to_owned(), shape: vec![], rotary_heads: None };
            self.read(&weight).map_err(|message| problem(message, AGAIN))
        };
        if read(EMBEDDING)? == read(OUTPUT)? {
            return Ok(());
        }
        let message = format!(
            "{}: config.json has \"tie_word_embeddings\": true, but {EMBEDDING} and {OUTPUT} differ",
            folder.display()
        );
        Err(problem(
            message,
            "set tie_word_embeddings to false if the model has an output projection of its own",
        ))
    }
}

const AGAIN: &str = "get the files again";

fn problem(message: String, help: &str) -> Problem {
    Problem { message, place: None, help: Some(help.to_owned()) }
}

/// The first names of a list.
fn listed(names: &[String]) -> String {
    let first = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Opens one of the files and checks that it is whole.
fn open(path: &Path, index: Option<&Index>, problems: &mut Vec<Problem>) -> Option<TensorFile> {
    let shown = path.display();
    if is_special(path) {
        problems.push(problem(format!("{shown}: it is a pipe, socket or device"), AGAIN));
        return None;
    }
    let file = match TensorFile::open(path) {
        Ok(file) => file,
        Err(Unfit::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            let named =
                |index: &Index| index.map.values().filter(|name| path.ends_with(name.as_str())).count();
            let tensors = count(index.map_or(0, named), "tensor");
            problems
                .push(problem(format!("{shown}: it is missing, and {INDEX} names it for {tensors}"), AGAIN));
            return None;
        }
        Err(Unfit::Io(error)) => {
            problems.push(problem(
                format!("{shown}: it cannot be read: {}", reason(&error)),
                help_to_read(&error),
            ));
            return None;
        }
        Err(Unfit::Damaged(message)) => {
            problems.push(problem(
                format!("{shown}: {message}"),
                "it may be cut off or half loaded: get the file again",
            ));
            return None;
        }
    };
    let lacking = file.missing_bytes();
    if lacking > 0 {
        let message = format!(
            "{shown}: it is truncated: {} of its tensors are missing",
            count(lacking as usize, "byte")
        );
        problems.push(problem(message, AGAIN));
        return None;
    }
    // The parser keeps the last of two tensors of one name.
    let header = file.header().ok().and_then(|header| String::from_utf8(header).ok()).unwrap_or_default();
    if let Ok(document) = Document::parse(shown.to_string(), header, "header") {
        let mut names: Vec<String> = document.keys(&[]).into_iter().map(str::to_owned).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        if names.len() < all {
            let message = format!("{shown}: its header names {} twice", count(all - names.len(), "tensor"));
            problems.push(problem(message, AGAIN));
        }
    }
    Some(file)
}

/// What a folder has in place of weights that can be read.
fn no_weights(folder: &Path) -> Problem {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| [".safetensors", ".bin", ".pth", ".pt", ".gguf"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    let message = format!("{}: there is neither {ONE} nor {INDEX}", folder.display());
    let help = match names.first() {
        None => "get the weights, which belong beside config.json".to_owned(),
        Some(name) => {
            format!("there is {name}: have transformers load and save it as safetensors (save_pretrained)")
        }
    };
    problem(message, &help)
}

/// Which tensor is in which file.
struct Index {
    path: PathBuf,
    map: BTreeMap<String, String>,
    total_size: Option<u64>,
}

impl Index {
    fn read(folder: &Path) -> Result<Self, Problem> {
        let path = folder.join(INDEX);
        let document = Document::open(&path, "index")?;
        if let Some(twice) = document.doubles().into_iter().next() {
            return Err(twice);
        }
        let Some(Value::Object(entries)) = document.get(&["weight_map"]) else {
            return Err(document.problem(&["weight_map"], "the index has no weight_map", AGAIN));
        };
        let mut map = BTreeMap::new();
        for (tensor, file) in entries {
            let name =
                file.as_str().filter(|name| Path::new(name).file_name().is_some_and(|only| only == *name));
            let Some(name) = name else {
                let message = format!("{file} is no name of a file beside the index");
                return Err(document.problem(&["weight_map", tensor], message, AGAIN));
            };
            map.insert(tensor.clone(), name.to_owned());
        }
        let total_size =
            document.get(&["metadata", "total_size"]).and_then(Value::as_f64).map(|size| size as u64);
        Ok(Index { path, map, total_size })
    }

    /// The names of all files, each once.
    fn files(&self, problems: &mut Vec<Problem>) -> Vec<String> {
        let names: BTreeSet<&String> = self.map.values().collect();
        if names.is_empty() {
            problems.push(problem(format!("{}: its weight_map is empty", self.path.display()), AGAIN));
        }
        names.into_iter().cloned().collect()
    }
}

impl Element {
    /// The number format of a tensor; nothing if linc does not read it.
    fn of(dtype: Dtype) -> Option<Self> {
        Element::ALL.into_iter().find(|element| element.dtype() == dtype)
    }
}
