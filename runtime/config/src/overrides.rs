//! Settings that replace those of a config: of the command line, or of a sweep.

use crate::error::{ConfigError, Place};
use crate::files::BASE_HELP;
use crate::section::KeyInfo;

/// A `--section.key value` argument, or what stands for one.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// `section.key`.
    pub name: String,
    /// The value; `None` for a bare flag, which means `true`.
    pub value: Option<String>,
    /// Where it was given, if that is not the command line.
    pub place: Option<Place>,
}

impl Override {
    /// Reads arguments of the form `--section.key value`, `--section.key=value` and, for switches, `--section.key`
    /// and `--section.no_key`.
    /// `keys` are those that may be meant by a key without its section.
    ///
    /// # Errors
    /// An argument that is none of these.
    pub fn parse_all(args: &[String], keys: &[KeyInfo]) -> Result<Vec<Self>, ConfigError> {
        let mut overrides = Vec::new();
        let mut rest = args.iter().peekable();
        while let Some(arg) = rest.next() {
            if arg == "--base" || arg.starts_with("--base=") {
                return Err(ConfigError::new(format!("unexpected argument `{arg}`")).help(BASE_HELP));
            }
            let Some(flag) = arg.strip_prefix("--").filter(|flag| flag.contains('.')) else {
                let example = sectioned(arg, keys).map_or_else(
                    || ", for example `--training.steps 100`".to_owned(),
                    |name| format!(": did you mean `--{name}`?"),
                );
                return Err(ConfigError::new(format!("unexpected argument `{arg}`"))
                    .help(format!("a setting is changed with `--section.key value`{example}")));
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, rest.next_if(|next| !next.starts_with("--")).cloned()),
            };
            // Dashes for underscores, as many command line tools spell them.
            let name = name.replace('-', "_");
            overrides.push(match switched_off(&name, keys).filter(|_| value.is_none()) {
                Some(name) => Self { name, value: Some("false".to_owned()), place: None },
                None => Self { name, value, place: None },
            });
        }
        Ok(overrides)
    }

    /// Where it was given: on the command line, as typed.
    pub(crate) fn place(&self) -> Place {
        let typed = || match &self.value {
            Some(value) => format!("--{} {value}", self.name),
            None => format!("--{}", self.name),
        };
        self.place.clone().unwrap_or_else(|| Place::CommandLine(typed()))
    }
}

/// The switch that `section.no_key` turns off, as TorchTitan has it.
fn switched_off(name: &str, keys: &[KeyInfo]) -> Option<String> {
    let (section, key) = name.rsplit_once('.')?;
    let name = format!("{section}.{}", key.strip_prefix("no_")?);
    let is_switch = |key: &KeyInfo| key.schema["type"] == "boolean";
    keys.iter().any(|key| is_switch(key) && (key.name == name || key.aliases.contains(&name))).then_some(name)
}

/// The setting of which an argument is the key without its section.
fn sectioned(arg: &str, keys: &[KeyInfo]) -> Option<String> {
    let key = arg.strip_prefix("--")?.split('=').next()?.replace('-', "_");
    let mut names = keys.iter().map(|known| &known.name);
    names.find(|name| name.rsplit('.').next() == Some(key.as_str())).cloned()
}
