//! The models and configs of the source folders, in the program: an installed linc finds them by name where there is
//! no source folder, and `linc init` writes them to be edited.
//!
//! The program hands them over as [`Shipped`], so that an edit of one builds nothing but the program anew.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use linc_device::words::{help_to_write, reason};

use crate::error::ConfigError;
use crate::files::ConfigFiles;
use crate::model::Model;
use crate::near::nearest;

/// A file that is part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedFile {
    /// Its path in the source folder, such as `models/llama3_1b.toml`.
    pub path: &'static str,
    /// The content, the same in every build.
    pub text: &'static str,
}

/// The files that are part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Shipped {
    /// Runs, ready to train, and sweeps of runs.
    pub configs: &'static [ShippedFile],
    /// Model files: the numbers of one flavour.
    pub models: &'static [ShippedFile],
    /// What the model files are flavours of.
    pub architectures: &'static [ShippedFile],
}

impl Shipped {
    /// Nothing is built in.
    pub const NONE: Shipped = Shipped { configs: &[], models: &[], architectures: &[] };
}

impl ShippedFile {
    /// The name that it goes by: `llama3_1b`.
    pub fn name(&self) -> &'static str {
        let file = self.path.rsplit('/').next().unwrap_or(self.path);
        file.strip_suffix(".toml").unwrap_or(file)
    }

    /// The first line of its text, which says what it is.
    pub fn title(&self) -> &'static str {
        self.text.lines().next().unwrap_or("").trim_start_matches('#').trim()
    }

    /// Whether it is a sweep of runs, of the configs.
    pub fn is_sweep(&self) -> bool {
        self.text.lines().any(|line| line.trim() == "[sweep]")
    }

    /// The place that messages name.
    pub(crate) fn place(&self) -> PathBuf {
        Path::new("(built in)").join(self.path)
    }
}

/// The file that a path means where nothing is at the path: its name with or without folder and suffix
/// (`llama3_1b`, `llama3_1b.toml`, `models/llama3_1b.toml`), and no other folder, so that a mistyped path is an error.
pub(crate) fn find(files: &'static [ShippedFile], path: &Path) -> Option<&'static ShippedFile> {
    let path = path.to_str()?;
    let path = path.strip_prefix("./").unwrap_or(path);
    files.iter().find(|file| {
        let name = file.path.rsplit('/').next().unwrap_or(file.path);
        path == file.path || path == name || path == file.name()
    })
}

/// What [`init`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The files, in the order in which somebody would read them.
    pub files: Vec<PathBuf>,
    /// The config among them, to be trained.
    pub config: PathBuf,
}

/// The schema's file, beside configs.
const SCHEMA_FILE: &str = "configs/linc.schema.json";

/// The first line of a config, by which editors find the schema beside it.
const SCHEMA_LINE: &str = "#:schema ./linc.schema.json\n";

/// Writes a config of that name, its model file and its architecture below `folder`, for the user to edit, and the schema
/// of configs, by which editors complete and check the config. A model that no config trains gets a short one.
///
/// # Errors
/// No such name (with the nearest), a file that exists, or one that cannot be written. Nothing is overwritten but a
/// schema, which is that of another version.
pub fn init(shipped: &Shipped, name: &str, folder: &Path, schema: &str) -> Result<Written, ConfigError> {
    let wanted = Path::new(name);
    let (config_path, config_text, model) =
        match (find(shipped.configs, wanted), find(shipped.models, wanted)) {
            (Some(config), _) => (config.path.to_owned(), config.text.to_owned(), model_of(shipped, config)),
            (None, Some(model)) => (format!("configs/{}.toml", model.name()), config_for(model), Some(model)),
            (None, None) => return Err(no_such_name(shipped, name)),
        };
    let model =
        model.ok_or_else(|| ConfigError::new(format!("{config_path} names no model that is built in")))?;
    let architecture = shipped
        .architectures
        .iter()
        .find(|file| model.text.contains(&format!("\"{}\"", file.name())))
        .ok_or_else(|| ConfigError::new(format!("{} names no architecture that is built in", model.path)))?;
    let config_text = format!("{SCHEMA_LINE}{config_text}");
    let texts = [
        (config_path.as_str(), config_text.as_str()),
        (model.path, model.text),
        (architecture.path, architecture.text),
    ];
    let mut targets: Vec<PathBuf> = texts.iter().map(|(path, _)| folder.join(path)).collect();
    // The same text may stand there already, of another config with the same model.
    let is_other = |(path, text): (&PathBuf, &str)| {
        path.exists() && fs::read(path).ok().as_deref() != Some(text.as_bytes())
    };
    if let Some((path, _)) =
        targets.iter().zip(texts).map(|(path, (_, text))| (path, text)).find(|pair| is_other(*pair))
    {
        return Err(ConfigError::new(format!("{} exists and is another text", path.display()))
            .help("name another folder: linc init NAME FOLDER"));
    }
    let refused = |path: &Path, error: &io::Error| {
        ConfigError::new(format!("cannot write {}: {}", path.display(), reason(error)))
            .help(help_to_write(error))
    };
    for (path, (_, text)) in targets.iter().zip(texts) {
        write_new(path, text).map_err(|error| refused(path, &error))?;
    }
    let schema_path = folder.join(SCHEMA_FILE);
    if fs::read(&schema_path).ok().as_deref() != Some(schema.as_bytes()) {
        fs::write(&schema_path, schema).map_err(|error| refused(&schema_path, &error))?;
    }
    targets.push(schema_path);
    let config = folder.join(&config_path);
    Ok(Written { files: targets, config })
}

/// Writes a file that is not there yet; one that is there has the same text.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The model file that a shipped config trains.
fn model_of(shipped: &Shipped, config: &ShippedFile) -> Option<&'static ShippedFile> {
    let model = Model::of_config(&ConfigFiles::of_shipped(config, shipped).ok()?);
    find(shipped.models, Path::new(&crate::model_files::model_file_name(&model)))
}

/// A config for a model that none is shipped for.
fn config_for(model: &ShippedFile) -> String {
    let (name, flavor) = model.name().split_once('_').unwrap_or((model.name(), ""));
    format!(
        "# Trains {}. All settings with their defaults: linc train --list-settings\n\
         [job]\ndump_folder = \"./outputs/{}\"\n\n\
         [model]\nname = \"{name}\"\nflavor = \"{flavor}\"\n# Share of the layers that use linear attention.\n\
         linear_attn_ratio = 0.5\n\n\
         [training]\ndataset = \"stories\"\nbatch_size = 1\nseq_len = 2048\nsteps = 1000\n",
        model.name(),
        model.name(),
    )
}

fn no_such_name(shipped: &Shipped, name: &str) -> ConfigError {
    let mut known: Vec<&str> = shipped.configs.iter().chain(shipped.models).map(ShippedFile::name).collect();
    known.sort_unstable();
    known.dedup();
    let help = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {near}? `linc models` lists all"),
        None => format!("there are {}", known.join(", ")),
    };
    ConfigError::new(format!("no config or model is called \"{name}\"")).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_name_and_by_no_other_path() {
        const MODELS: &[ShippedFile] = &[ShippedFile { path: "models/llama3_1b.toml", text: "" }];
        for path in ["llama3_1b", "llama3_1b.toml", "models/llama3_1b.toml", "./models/llama3_1b.toml"] {
            assert_eq!(
                find(MODELS, Path::new(path)).map(|file| file.path),
                Some("models/llama3_1b.toml"),
                "{path}"
            );
        }
        for path in ["", "llama3", "other/llama3_1b.toml", "models/llama3_1b", "/models/llama3_1b.toml"] {
            assert_eq!(find(MODELS, Path::new(path)), None, "{path}");
        }
    }
}
