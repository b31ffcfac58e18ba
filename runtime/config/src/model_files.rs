//! Finds the two texts of a model: the model file (`models/llama3_1b.toml`) and the architecture
//! (`.linc`) that it names.

use std::ops::Range;
use std::path::{Path, PathBuf};

use linc_device::words::{help_to_read, reason};
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, FilePlace, Place, Problem};
use crate::model::Model;
use crate::near::{help_for_missing, nearest, nearest_path};
use crate::other_kind;
use crate::shipped::{self, Shipped, ShippedFile};
use crate::syntax;

/// The texts of a model, for the compiler, which reads no files itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// The model TOML.
    pub model_path: PathBuf,
    /// Content of `model_path`.
    pub model_text: String,
    /// The `.linc` file, beside the model TOML unless it says otherwise.
    pub architecture_path: PathBuf,
    /// Content of `architecture_path`.
    pub architecture_text: String,
}

impl ModelFiles {
    /// Finds and reads the model of a config.
    ///
    /// `[model] path` is looked up from the working directory, then from the config's folder. Without it,
    /// `models/<name>_<flavor>.toml` (in lower case) is looked for in `../models` and `models` beside the config,
    /// then in `models` in the working directory, then among the models that are built in. `configs` are the
    /// config's file, if it has one, and those of its bases, beside which is looked next.
    ///
    /// # Errors
    /// No such model (with those there are), or a file that cannot be read.
    pub fn resolve(model: &Model, configs: &[PathBuf], shipped: &Shipped) -> Result<Self, ConfigError> {
        Self::read(&model_path(model, configs, shipped)?, shipped)
    }

    /// Reads a model file and the architecture it names (`architecture = "x.linc"`); where there is no such file, the
    /// model of that name that is built in.
    ///
    /// # Errors
    /// A file that cannot be read, or no architecture in the model file.
    pub fn read(model_path: &Path, shipped: &Shipped) -> Result<Self, ConfigError> {
        other_kind::check_model(model_path, shipped)?;
        let (model_path, model_text) = read_or_shipped(model_path, shipped.models, "model file")?;
        let (architecture_path, span) = architecture_path(&model_path, &model_text)?;
        let is_shipped = |file: &&ShippedFile| file.place() == architecture_path;
        let architecture_text = match shipped.architectures.iter().find(is_shipped) {
            Some(file) => file.text.to_owned(),
            None => read_text(&architecture_path, "architecture file").map_err(|mut error| {
                // The line to mend is the one that names it.
                let file = model_path.display().to_string();
                let place = Place::File(FilePlace::locate(&file, &model_text, span));
                error.problems.iter_mut().for_each(|problem| problem.place = Some(place.clone()));
                error
            })?,
        };
        Ok(Self { model_path, model_text, architecture_path, architecture_text })
    }
}

/// The path of a config's model file, as [`ModelFiles::resolve`] looks for it; of one that is built in, its path there.
pub(crate) fn model_path(
    model: &Model,
    configs: &[PathBuf],
    shipped: &Shipped,
) -> Result<PathBuf, ConfigError> {
    let config_folders = || configs.iter().map(|path| path.parent().unwrap_or(Path::new("")));
    if let Some(path) = &model.path {
        let given = PathBuf::from(path);
        let beside = config_folders().map(|folder| folder.join(path)).find(|beside| beside.is_file());
        return Ok(if given.is_file() { given } else { beside.unwrap_or(given) });
    }
    let mut folders = Vec::new();
    for folder in config_folders() {
        // `configs/..` is written out where that can be done by name, for shorter messages.
        match folder.file_name() {
            Some(_) => folders.push(folder.parent().unwrap_or(Path::new("")).join("models")),
            None => folders.push(folder.join("..").join("models")),
        }
        folders.push(folder.join("models"));
    }
    folders.push(PathBuf::from("models"));
    let file = model_file_name(model);
    match folders.iter().map(|folder| folder.join(&file)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => match shipped::find(shipped.models, Path::new(&file)) {
            Some(file) => Ok(PathBuf::from(file.path)),
            None => Err(no_such_model(model, &file, &folders, shipped)),
        },
    }
}

/// The name of a model's file: `llama3_1b.toml`.
pub(crate) fn model_file_name(model: &Model) -> String {
    format!("{}_{}.toml", model.name.to_lowercase(), model.flavor.to_lowercase())
}

/// Reads a text file, or what is built in under that name where there is none; with the place that messages name.
///
/// # Errors
/// The file cannot be read or is not UTF-8.
pub fn read_or_shipped(
    path: &Path,
    files: &'static [ShippedFile],
    what: &str,
) -> Result<(PathBuf, String), ConfigError> {
    match shipped::find(files, path).filter(|_| !path.exists()) {
        Some(file) => Ok((file.place(), file.text.to_owned())),
        None => match read_text(path, what) {
            Ok(text) => Ok((path.to_path_buf(), text)),
            // Names of what is built in are as good as names of files.
            Err(error) if !path.exists() && nearest_path(path).is_none() => {
                let known = files.iter().flat_map(|file| [file.path, file.name()]);
                match path.to_str().and_then(|path| nearest(path, known)) {
                    Some(near) => Err(error.help(format!("did you mean {near}, which is built in?"))),
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        },
    }
}

/// The path of the architecture that a model file names, and where in its text.
fn architecture_path(model_path: &Path, text: &str) -> Result<(PathBuf, Range<usize>), ConfigError> {
    let file = model_path.display().to_string();
    let problem = |message: String, span: Range<usize>, help: Option<String>| {
        let place = Some(Place::File(FilePlace::locate(&file, text, span)));
        ConfigError::from(Problem { message, place, help })
    };
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(text.len()..text.len());
        let help = Some(syntax::help(text, span.start));
        problem(format!("not valid TOML: {}", error.message()), span, help)
    })?;
    let table = table.get_ref();
    let help = || {
        Some("add `architecture = \"llama3.linc\"`, the file's name relative to the model file".to_owned())
    };
    // The key may stand at the top or in a table such as [model].
    let in_tables =
        || table.values().filter_map(|value| value.get_ref().as_table()?.get("architecture")).next();
    let Some(value) = table.get("architecture").or_else(in_tables) else {
        return Err(ConfigError::new(format!("{file}: the model file names no architecture"))
            .help(help().unwrap_or_default()));
    };
    match value.get_ref() {
        DeValue::String(name) => {
            Ok((model_path.parent().unwrap_or(Path::new("")).join(&**name), value.span()))
        }
        other => {
            let message =
                format!("`architecture`: expected a string, found {}", crate::value::describe(other));
            Err(problem(message, value.span(), help()))
        }
    }
}

fn no_such_model(model: &Model, file: &str, folders: &[PathBuf], shipped: &Shipped) -> ConfigError {
    let mut looked: Vec<String> =
        folders.iter().map(|folder| folder.join(file).display().to_string()).collect();
    let mut seen = std::collections::BTreeSet::new();
    looked.retain(|path| seen.insert(path.clone()));
    let message = format!(
        "no model file for name = \"{}\", flavor = \"{}\"; looked for {}",
        model.name,
        model.flavor,
        looked.join(", ")
    );
    let mut known: Vec<String> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_owned))
        .chain(shipped.models.iter().map(|file| file.name().to_owned()))
        .collect();
    known.sort();
    known.dedup();
    let wanted = file.strip_suffix(".toml").unwrap_or(file);
    let help = match nearest(wanted, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}? There are {}", known.join(", ")),
        None if known.is_empty() => "say [model] path = \"FILE.toml\"".to_owned(),
        None => format!("there are {}; or say [model] path = \"FILE.toml\"", known.join(", ")),
    };
    ConfigError::new(message).help(help)
}

/// Reads a text file; `what` names its role in messages.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, ConfigError> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| {
        let problem = ConfigError::new(format!("{shown}: cannot read the {what}: {}", reason(&error)));
        match error.kind() {
            std::io::ErrorKind::NotFound => match help_for_missing(path) {
                Some(help) => problem.help(help),
                None => problem,
            },
            _ => problem.help(help_to_read(&error)),
        }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ConfigError::new(format!("{shown}: the {what} is not UTF-8 text (byte {at})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn model(flavor: &str) -> Model {
        Model { flavor: flavor.to_owned(), ..Model::default() }
    }

    /// A folder with `configs/a.toml`, `models/llama3_1b.toml` and `models/llama3.linc`.
    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["configs", "models"] {
            fs::create_dir(folder.path().join(name)).expect("mkdir");
        }
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("write");
        write("configs/a.toml", "");
        write("models/llama3_1b.toml", "architecture = \"llama3.linc\"\ndim = 8\n");
        write("models/llama3_8b.toml", "dim = 8\n");
        write("models/llama3_bad.toml", "architecture = 7\n");
        write("models/llama3_lost.toml", "architecture = \"lost.linc\"\n");
        write("models/llama3.linc", "model llama3 {}\n");
        folder
    }

    #[test]
    fn a_flavor_is_found_beside_the_configs() {
        let folder = tree();
        let config = folder.path().join("configs/a.toml");
        let files =
            ModelFiles::resolve(&model("1B"), std::slice::from_ref(&config), &Shipped::NONE).expect("found");
        assert_eq!(files.model_path, folder.path().join("models/llama3_1b.toml"));
        assert_eq!(files.architecture_path, folder.path().join("models/llama3.linc"));
        assert!(files.model_text.contains("dim = 8"));
        assert_eq!(files.architecture_text, "model llama3 {}\n");
        let by_path = Model { path: Some("../models/llama3_1b.toml".to_owned()), ..Model::default() };
        assert_eq!(
            ModelFiles::resolve(&by_path, &[config], &Shipped::NONE).expect("found").model_text,
            files.model_text
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tree();
        let config = folder.path().join("configs/a.toml");
        let error = |flavor: &str| {
            ModelFiles::resolve(&model(flavor), std::slice::from_ref(&config), &Shipped::NONE)
                .expect_err(flavor)
                .to_string()
        };
        let missing = error("1c");
        assert!(
            missing.contains("flavor = \"1c\"") && missing.contains("did you mean llama3_1b?"),
            "{missing}"
        );
        assert!(error("8b").contains("names no architecture"));
        let wrong = error("bad");
        assert!(wrong.contains(":1:16:") && wrong.contains("the integer 7"), "{wrong}");
        let lost = error("lost");
        assert!(
            lost.contains("llama3_lost.toml:1:16: error: ")
                && lost.contains("lost.linc: cannot read")
                && lost.contains("no such file"),
            "{lost}"
        );
    }
}
