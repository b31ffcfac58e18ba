//! A config's file and those that it starts from: `base = "FILE"` above its first section names another config, whose
//! settings hold where its own say nothing.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, FilePlace, Place, Problem};
use crate::model_files::{read_or_shipped, read_text};
use crate::near::{help_for_missing, nearest, nearest_path};
use crate::other_kind;
use crate::shipped::{Shipped, ShippedFile, find};
use crate::value::describe;

/// The key that names the config to start from.
pub const BASE: &str = "base";

/// Where that key stands, for those who look for it elsewhere.
pub(crate) const BASE_HELP: &str =
    "base = \"FILE.toml\" stands above the first section of a config, and nowhere else";

/// A config before it is read: what stands in it, and what messages call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// What messages call it: the path of its file, or of the one that is built in.
    pub name: String,
    /// The content.
    pub text: String,
    /// Its file, if it has one.
    pub path: Option<PathBuf>,
}

/// A config and those that it starts from, directly and by way of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFiles {
    /// The config first; each other is the base of the one before it.
    texts: Vec<ConfigText>,
}

impl ConfigFiles {
    /// A text that is no file of its own and starts from no other.
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { texts: vec![ConfigText { name: name.to_owned(), text: text.to_owned(), path: None }] }
    }

    /// Reads a config file, or the one of that name that is built in where there is no such file, and its bases. A base
    /// is looked for in the folder of the config that names it, then among those that are built in.
    ///
    /// # Errors
    /// A file that cannot be read or is no config; bases that lead back to a config that names them.
    pub fn read(path: &Path, shipped: &Shipped) -> Result<Self, ConfigError> {
        other_kind::check_config(path, shipped)?;
        let is_built_in = !path.exists();
        let (place, text) = read_or_shipped(path, shipped.configs, "config file")?;
        let path = (!is_built_in).then(|| path.to_path_buf());
        Self::follow(ConfigText { name: place.display().to_string(), text, path }, shipped)
    }

    /// A config that is built in, with its bases.
    pub(crate) fn of_shipped(file: &ShippedFile, shipped: &Shipped) -> Result<Self, ConfigError> {
        Self::follow(ConfigText::built_in(file), shipped)
    }

    fn follow(first: ConfigText, shipped: &Shipped) -> Result<Self, ConfigError> {
        let mut files = Self { texts: vec![first] };
        while let Some(base) = files.texts.last().map_or(Ok(None), |last| last.base())? {
            let next = base.open(shipped)?;
            if files.texts.iter().any(|text| text.is_same(&next)) {
                return Err(files.circle(&next));
            }
            files.texts.push(next);
        }
        Ok(files)
    }

    /// The texts: the config first, then its base, and so on.
    pub fn texts(&self) -> &[ConfigText] {
        &self.texts
    }

    /// Whether nothing is set by any of them. A text that is no TOML is no such text: what is wrong with it is an error of its
    /// own.
    pub fn set_nothing(&self) -> bool {
        self.texts.iter().all(|text| sets_nothing(&text.text))
    }

    /// The paths of those that are files, in the same order.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.texts.iter().filter_map(|text| text.path.clone()).collect()
    }

    fn circle(&self, again: &ConfigText) -> ConfigError {
        let begin = self.texts.iter().position(|text| text.is_same(again)).unwrap_or(0);
        let mut way = String::new();
        let mut place = None;
        for text in &self.texts[begin..] {
            if let Ok(Some(base)) = text.base() {
                let at = base.place();
                way.push_str(&format!("{}:{} -> ", at.file, at.line));
                place = Some(Place::File(at));
            }
        }
        let message = format!("`{BASE}` leads back to where it began: {way}{}", self.texts[begin].name);
        let help =
            Some(format!("leave out one of these lines; a config may start from one that has no {BASE}"));
        Problem { message, place, help }.into()
    }
}

/// Whether a text has no setting: it is empty, or has nothing but comments, empty sections and the name of its base.
pub fn sets_nothing(text: &str) -> bool {
    fn is_empty(table: &DeTable<'_>) -> bool {
        table.iter().all(|(key, value)| match value.get_ref() {
            DeValue::Table(inner) => is_empty(inner),
            _ => key.get_ref() == BASE,
        })
    }
    DeTable::parse(text).is_ok_and(|document| is_empty(document.get_ref()))
}

impl ConfigText {
    fn built_in(file: &ShippedFile) -> Self {
        Self { name: file.place().display().to_string(), text: file.text.to_owned(), path: None }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (&self.path, &other.path) {
            (None, None) => self.name == other.name,
            (Some(a), Some(b)) => {
                a == b || fs::canonicalize(a).ok().is_some_and(|a| fs::canonicalize(b).ok() == Some(a))
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// The base that it names. A text that is no TOML names none: what is wrong with it is said where its settings are
    /// read.
    fn base(&self) -> Result<Option<Base<'_>>, ConfigError> {
        let Ok(document) = DeTable::parse(&self.text) else { return Ok(None) };
        let Some(value) = document.get_ref().get(BASE) else { return Ok(None) };
        let span = value.span();
        match value.get_ref() {
            DeValue::String(file) if !file.trim().is_empty() => {
                Ok(Some(Base { named_by: self, span, file: file.to_string() }))
            }
            other => {
                let found = match other {
                    DeValue::String(_) => "an empty one".to_owned(),
                    other => describe(other),
                };
                let base = Base { named_by: self, span, file: String::new() };
                let message = format!("`{BASE}`: expected the name of a config file, found {found}");
                Err(base
                    .problem(message, Some(format!("write {BASE} = \"FILE.toml\", or leave the line out"))))
            }
        }
    }
}

/// A base as a config names it.
struct Base<'a> {
    named_by: &'a ConfigText,
    /// Of the name in the text.
    span: Range<usize>,
    file: String,
}

impl Base<'_> {
    fn place(&self) -> FilePlace {
        FilePlace::locate(&self.named_by.name, &self.named_by.text, self.span.clone())
    }

    fn problem(&self, message: String, help: Option<String>) -> ConfigError {
        Problem { message, place: Some(Place::File(self.place())), help }.into()
    }

    /// Finds and reads it.
    fn open(&self, shipped: &Shipped) -> Result<ConfigText, ConfigError> {
        // What is no regular file, such as a pipe, has no folder of its own.
        let folder = self.named_by.path.as_deref().map(|path| match path.is_file() {
            true => path.parent().unwrap_or(Path::new("")),
            false => Path::new(""),
        });
        let beside = folder.map(|folder| folder.join(&self.file));
        let built_in = || find(shipped.configs, Path::new(&self.file)).map(ConfigText::built_in);
        let Some(path) = beside.filter(|path| path.exists() || built_in().is_none()) else {
            return built_in().ok_or_else(|| self.missing(None, shipped));
        };
        if !path.exists() {
            return Err(self.missing(Some(&path), shipped));
        }
        let shown = path.display();
        if let Some(kind) = other_kind::not_a_config(&path, shipped) {
            let help = "a base is a config as `linc train` takes one; which model is trained, [model] says";
            return Err(self.problem(
                format!("`{BASE}`: {shown} is {kind}, not the config of a run"),
                Some(help.to_owned()),
            ));
        }
        if !path.is_file() {
            return Err(
                self.problem(format!("`{BASE}`: {shown} is no file"), Some("name a config file".to_owned()))
            );
        }
        let text = read_text(&path, "config file").map_err(|error| {
            let first = error.problems.into_iter().next();
            let (message, help) =
                first.map_or_else(Default::default, |problem| (problem.message, problem.help));
            self.problem(format!("`{BASE}`: {message}"), help)
        })?;
        Ok(ConfigText { name: shown.to_string(), text, path: Some(path) })
    }

    fn missing(&self, path: Option<&Path>, shipped: &Shipped) -> ConfigError {
        let (message, near) = match path {
            Some(path) => (
                format!("`{BASE}`: there is no file {}", path.display()),
                nearest_path(path).map(|near| format!("did you mean {}?", near.display())),
            ),
            None => (format!("`{BASE}`: no config of that name is built in"), None),
        };
        let known = shipped.configs.iter().map(ShippedFile::name);
        let built_in = || {
            let wanted = Path::new(&self.file).file_stem()?.to_str()?;
            Some(format!("did you mean {}.toml, which is built in?", nearest(wanted, known)?))
        };
        let help = near.or_else(built_in).or_else(|| help_for_missing(path?));
        let help = help.or(Some("a base is looked for in the folder of the config that names it".to_owned()));
        self.problem(message, help)
    }
}
