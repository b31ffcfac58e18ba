//! Files and folders of another kind than a command takes, known by what is in them, so that the right command can be
//! named.

use std::fs;
use std::path::Path;

use toml::de::DeTable;

use crate::error::ConfigError;
use crate::files::ConfigFiles;
use crate::model::Model;
use crate::model_files::model_path;
use crate::shipped::{Shipped, find};

/// Sections that every config of a run has one of, and no model file.
const SECTIONS: &[&str] = &["job", "model", "training", "optimizer", "checkpoint"];

/// Files larger than this are none that a person wrote.
const MOST_BYTES: u64 = 1 << 20;

/// What a path names.
enum Kind {
    Config(String),
    Model,
    Architecture,
    Run,
    Checkpoint,
}

/// The kind of what is at a path, or is built in under that name; `None` if it cannot be told.
fn kind(path: &Path, shipped: &Shipped) -> Option<Kind> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).is_file();
        return match (has("state.json"), has("config.toml")) {
            (true, _) => Some(Kind::Checkpoint),
            (false, true) => Some(Kind::Run),
            (false, false) => None,
        };
    }
    if !path.exists() {
        let is = |files| find(files, path);
        let config = || is(shipped.configs).map(|file| Kind::Config(file.text.to_owned()));
        let model = || is(shipped.models).map(|_| Kind::Model);
        return config().or_else(model).or_else(|| is(shipped.architectures).map(|_| Kind::Architecture));
    }
    if path.extension().is_some_and(|suffix| suffix == "linc") {
        return Some(Kind::Architecture);
    }
    if !fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() <= MOST_BYTES) {
        return None;
    }
    let text = fs::read_to_string(path).ok()?;
    let document = DeTable::parse(&text).ok()?;
    let tables =
        || document.get_ref().iter().filter_map(|(key, value)| Some((key, value.get_ref().as_table()?)));
    let names_one = document.get_ref().contains_key("architecture");
    if names_one || tables().any(|(_, table)| table.contains_key("architecture")) {
        return Some(Kind::Model);
    }
    let has_section = tables().any(|(key, _)| SECTIONS.contains(&&**key.get_ref()));
    drop(document);
    has_section.then_some(Kind::Config(text))
}

/// What is at a path, in words, if it is known not to be a config.
pub(crate) fn not_a_config(path: &Path, shipped: &Shipped) -> Option<&'static str> {
    match kind(path, shipped)? {
        Kind::Config(_) => None,
        Kind::Model => Some("a model file"),
        Kind::Architecture => Some("an architecture"),
        Kind::Run => Some("the folder of a run"),
        Kind::Checkpoint => Some("a checkpoint"),
    }
}

/// Refuses what is known not to be the config of a run.
///
/// # Errors
/// What it is, and the command for that.
pub fn check_config(path: &Path, shipped: &Shipped) -> Result<(), ConfigError> {
    // A config and a model may be built in under one name.
    if !path.exists() && find(shipped.configs, path).is_some() {
        return Ok(());
    }
    let shown = path.display();
    let (is, help) = match kind(path, shipped) {
        None | Some(Kind::Config(_)) => return Ok(()),
        Some(Kind::Model) => (
            "a model file",
            format!(
                "linc compile {shown} shows what it comes to; to train it, name it beside a config: linc train \
                 configs/quickstart.toml --model.path {shown}"
            ),
        ),
        Some(Kind::Architecture) => (
            "an architecture",
            "a config names a model file, which names the architecture: linc init quickstart writes all three".to_owned(),
        ),
        Some(Kind::Run) => {
            let config = path.join("config.toml");
            let config = config.display();
            ("the folder of a run", format!("its config is in it: linc train {config} --job.dump_folder {shown}"))
        }
        Some(Kind::Checkpoint) => (
            "a checkpoint",
            format!(
                "linc generate --checkpoint {shown} asks the model; a run goes on with the config that it was started with"
            ),
        ),
    };
    Err(refused(path, is, "the config of a run").help(help))
}

/// Refuses what is known not to be a model file.
///
/// # Errors
/// As [`check_config`].
pub(crate) fn check_model(path: &Path, shipped: &Shipped) -> Result<(), ConfigError> {
    if !path.exists() && find(shipped.models, path).is_some() {
        return Ok(());
    }
    let shown = path.display();
    let (is, help) = match kind(path, shipped) {
        None | Some(Kind::Model) => return Ok(()),
        Some(Kind::Config(text)) => {
            let files = match ConfigFiles::read(path, shipped) {
                Ok(files) => files,
                Err(_) => ConfigFiles::of_text("", &text),
            };
            let model = Model::of_config(&files);
            let mut help = format!("linc train {shown} trains it");
            if let Ok(file) = model_path(&model, &[path.to_path_buf()], shipped) {
                help.push_str(&format!("; its model: linc compile {}", file.display()));
                let ratio = model.linear_attn_ratio.iter();
                ratio.for_each(|ratio| help.push_str(&format!(" --ratio {ratio}")));
            }
            ("the config of a run", help)
        }
        Some(Kind::Architecture) => {
            let name = path.file_name().unwrap_or_default().display();
            (
                "an architecture",
                format!("name a model file, which gives its numbers and says architecture = \"{name}\""),
            )
        }
        Some(Kind::Run) => (
            "the folder of a run",
            format!("its checkpoints are below it: linc inspect {shown}/checkpoint/step-N"),
        ),
        Some(Kind::Checkpoint) => ("a checkpoint", format!("linc inspect {shown} shows its model")),
    };
    Err(refused(path, is, "a model file").help(help))
}

fn refused(path: &Path, is: &str, wanted: &str) -> ConfigError {
    ConfigError::new(format!("{}: this is {is}, not {wanted}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped::ShippedFile;

    const SHIPPED: Shipped = Shipped {
        configs: &[
            ShippedFile {
                path: "configs/quick.toml",
                text: "[model]\nname = \"llama3\"\nflavor = \"nano\"\nlinear_attn_ratio = 0.5\n",
            },
            ShippedFile { path: "configs/llama3_1b.toml", text: "[training]\nsteps = 1\n" },
        ],
        models: &[
            ShippedFile { path: "models/llama3_nano.toml", text: "architecture = \"llama3.linc\"\n" },
            ShippedFile { path: "models/llama3_1b.toml", text: "architecture = \"llama3.linc\"\n" },
        ],
        architectures: &[ShippedFile { path: "models/llama3.linc", text: "model llama3 {}\n" }],
    };

    #[test]
    fn each_kind_is_told_the_command_that_takes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(&path, text).expect("a file");
            path
        };
        let config = write("run.toml", SHIPPED.configs[0].text);
        let model = write("own.toml", "[model]\narchitecture = \"own.linc\"\n");
        let architecture = write("own.linc", "model own {}\n");
        let run = write("out/config.toml", "").parent().expect("a folder").to_owned();
        let step = write("out/checkpoint/step-3/state.json", "{}").parent().expect("a folder").to_owned();
        let said = |error: Result<(), ConfigError>| error.expect_err("another kind").to_string();
        let is =
            |said: String, words: [&str; 2]| assert!(words.iter().all(|word| said.contains(word)), "{said}");
        is(said(check_config(&model, &SHIPPED)), ["a model file, not the config of a run", "--model.path"]);
        is(said(check_config(&architecture, &SHIPPED)), ["an architecture", "linc init"]);
        is(said(check_config(&run, &SHIPPED)), ["the folder of a run", "--job.dump_folder"]);
        is(said(check_config(&step, &SHIPPED)), ["a checkpoint", "linc generate --checkpoint"]);
        is(
            said(check_config(Path::new("llama3_nano"), &SHIPPED)),
            ["a model file", "linc compile llama3_nano"],
        );
        let compile = "its model: linc compile models/llama3_nano.toml --ratio 0.5";
        is(said(check_model(&config, &SHIPPED)), ["the config of a run, not a model file", compile]);
        is(said(check_model(Path::new("quick"), &SHIPPED)), ["linc train quick trains it", compile]);
        is(said(check_model(&architecture, &SHIPPED)), ["an architecture", "architecture = \"own.linc\""]);
        is(said(check_model(&step, &SHIPPED)), ["a checkpoint", "linc inspect"]);
        for path in [&config, Path::new("llama3_1b"), Path::new("nowhere"), folder.path()] {
            assert_eq!(check_config(path, &SHIPPED), Ok(()), "{}", path.display());
        }
        for path in [&model, Path::new("llama3_1b"), Path::new("nowhere")] {
            assert_eq!(check_model(path, &SHIPPED), Ok(()), "{}", path.display());
        }
        // A config that names itself as its model is refused once, not for ever.
        let own = write("circle.toml", "");
        fs::write(&own, format!("[model]\npath = {:?}\n", own.display().to_string())).expect("a file");
        is(said(check_model(&own, &SHIPPED)), ["the config of a run", "trains it"]);
    }
}
