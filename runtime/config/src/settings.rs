//! The settings as given: the texts of a config and of those that it starts from, overlaid with command line flags, each
//! remembering where it came from, so that every complaint about it can point there.

mod unknown;

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::advice::advice;
use crate::check::Check;
use crate::error::{ConfigError, FilePlace, Place, Problem};
use crate::files::{BASE, ConfigFiles, ConfigText};
use crate::legacy;
use crate::overrides::Override;
use crate::section::KeyInfo;
use crate::syntax;
use crate::value::{NEAREST, Setting, describe, describe_text};

enum Value<'a> {
    Toml(DeValue<'a>),
    Text(String),
    Switch,
}

impl Value<'_> {
    /// What was written, and the quotes that words have there.
    fn words(&self) -> Option<(&str, &'static str)> {
        match self {
            Value::Toml(DeValue::String(text)) => Some((text.trim(), "\"")),
            Value::Toml(DeValue::Float(number)) => Some((number.as_str(), "")),
            Value::Text(text) => Some((text.trim(), "")),
            Value::Toml(_) | Value::Switch => None,
        }
    }
}

enum Origin {
    /// Number of the text, and the places in it.
    File {
        text: usize,
        key: Range<usize>,
        value: Range<usize>,
    },
    Given(Place),
}

struct Entry<'a> {
    value: Value<'a>,
    origin: Origin,
    /// The name as the user spelled it.
    spelled: String,
}

/// Where a problem stands among others: the number of the text, and the line in it.
type Rank = (usize, usize);

/// All given settings by canonical `section.key`, and what was found wrong with them.
pub struct Settings<'a> {
    /// The config first, each other the base of the one before.
    texts: &'a [ConfigText],
    keys: Vec<KeyInfo>,
    /// Sections whose keys are not fixed.
    open_sections: &'a [&'a str],
    given: BTreeMap<String, Entry<'a>>,
    places: BTreeMap<String, Place>,
    problems: Vec<(Rank, Problem)>,
    /// By the setting that they are about, where that is one without effect.
    warnings: Vec<(Option<String>, String)>,
}

impl<'a> Settings<'a> {
    /// Reads the texts, those of bases first, so that each lies over its base, and the overrides over all.
    pub fn new(
        files: &'a ConfigFiles,
        overrides: &[Override],
        keys: Vec<KeyInfo>,
        open_sections: &'a [&'a str],
    ) -> Self {
        let mut settings = Self {
            texts: files.texts(),
            keys,
            open_sections,
            given: BTreeMap::new(),
            places: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        for number in (0..settings.texts.len()).rev() {
            settings.read_text(number);
        }
        let flags = overrides.iter().map(|given| {
            let value = given.value.clone().map_or(Value::Switch, Value::Text);
            let origin = Origin::Given(given.place());
            (given.name.clone(), Entry { value, origin, spelled: given.name.clone() })
        });
        settings.insert_layer(flags.collect());
        settings
    }

    /// Lays what a text says over what there is.
    fn read_text(&mut self, number: usize) {
        let text = &self.texts[number].text;
        match DeTable::parse(text) {
            Ok(document) => {
                let mut entries = Vec::new();
                let mut table = document.into_inner();
                // It was followed where the files were read, if they were.
                if let Some((key, _)) = table.remove_entry(BASE)
                    && number + 1 == self.texts.len()
                {
                    let origin = Origin::File { text: number, key: key.span(), value: key.span() };
                    let message = format!("`{BASE}` is followed in the config that is trained, and not here");
                    let help = format!("`linc config` prints a config with all settings of its {BASE}");
                    self.problem(message, self.key_place(&origin), Some(help));
                }
                self.walk(number, table, "", &mut entries);
                self.insert_layer(entries);
            }
            Err(error) => {
                let span = error.span().unwrap_or(text.len()..text.len());
                let help = Some(syntax::help(text, span.start));
                let message = format!("not valid TOML: {}", error.message());
                let origin = Origin::File { text: number, key: span.clone(), value: span };
                self.problem(message, self.key_place(&origin), help);
            }
        }
    }

    /// Collects `section.key` entries; reports what is not inside a known section.
    fn walk(
        &mut self,
        number: usize,
        table: DeTable<'a>,
        section: &str,
        entries: &mut Vec<(String, Entry<'a>)>,
    ) {
        for (key, value) in table {
            let name = if section.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{section}.{}", key.get_ref())
            };
            let origin = Origin::File { text: number, key: key.span(), value: value.span() };
            match value.into_inner() {
                DeValue::Table(inner) if self.is_section(&name) => self.walk(number, inner, &name, entries),
                DeValue::Table(inner) if legacy::is_foreign_section(&name) => {
                    self.walk(number, inner, &name, entries);
                }
                // One table, where a list of them may be wanted.
                value @ DeValue::Table(_) if self.keys.iter().any(|key| key.name == name) => {
                    let origin = Origin::File { text: number, key: key.span(), value: key.span() };
                    entries.push((name.clone(), Entry { value: Value::Toml(value), origin, spelled: name }))
                }
                DeValue::Table(_) => {
                    let place = self.key_place(&origin);
                    self.unknown(&name, place);
                }
                value if section.is_empty() => {
                    let place = self.key_place(&origin);
                    let message = if self.is_section(&name) {
                        format!("`{name}` is a section, found {}", describe(&value))
                    } else {
                        format!("key `{name}` stands outside any section")
                    };
                    let help =
                        self.section_of(&name).map(|section| format!("`{name}` belongs to [{section}]"));
                    self.problem(message, place, help);
                }
                value => {
                    entries.push((name.clone(), Entry { value: Value::Toml(value), origin, spelled: name }))
                }
            }
        }
    }

    fn is_section(&self, name: &str) -> bool {
        let inside = format!("{name}.");
        self.keys.iter().any(|key| key.name.starts_with(&inside))
            || self.open_sections.iter().any(|open| *open == name || open.starts_with(&inside))
            || self.is_open(name)
    }

    /// Whether a name lies inside a section with free keys.
    fn is_open(&self, name: &str) -> bool {
        self.open_sections
            .iter()
            .any(|open| name.strip_prefix(open).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')))
    }

    /// The section that has a key of this bare name.
    fn section_of(&self, key: &str) -> Option<&str> {
        self.keys.iter().find_map(|info| {
            let (section, name) = info.name.rsplit_once('.')?;
            (name == key).then_some(section)
        })
    }

    /// Adds the file's or the command line's entries; the later layer wins.
    fn insert_layer(&mut self, entries: Vec<(String, Entry<'a>)>) {
        let mut layer: BTreeMap<String, Entry<'a>> = BTreeMap::new();
        for (name, entry) in entries {
            let canonical = self
                .keys
                .iter()
                .find(|key| key.name == name || key.aliases.contains(&name))
                .map(|key| key.name.clone());
            let canonical = match canonical {
                Some(canonical) => canonical,
                None if self.is_open(&name) => name,
                None => {
                    let place = self.key_place(&entry.origin);
                    match legacy::ignored(&name) {
                        Some(reason) => {
                            let warning = format!("{}: `{name}` has no effect: {reason}", at(&place));
                            // Said once, at the place that counts.
                            self.warnings.retain(|(of, _)| of.as_ref() != Some(&name));
                            self.warnings.push((Some(name), warning));
                        }
                        None => self.unknown(&name, place),
                    }
                    continue;
                }
            };
            // The same flag twice is common in scripts, the last counts; two spellings are a mistake.
            if let Some(first) = layer.get(&canonical).filter(|first| first.spelled != entry.spelled) {
                let message = format!("`{}` and `{}` are the same setting", first.spelled, entry.spelled);
                let place = self.key_place(&entry.origin);
                self.problem(message, place, Some(format!("keep one of them; linc calls it `{canonical}`")));
                continue;
            }
            layer.insert(canonical, entry);
        }
        self.given.append(&mut layer);
    }

    fn key_place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::File { text, key, .. } => self.place_in(*text, key.clone()),
            Origin::Given(place) => place.clone(),
        }
    }

    fn place_in(&self, number: usize, span: Range<usize>) -> Place {
        let ConfigText { name, text, .. } = &self.texts[number];
        Place::File(FilePlace::locate(name, text, span))
    }

    fn value_place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::File { text, value, .. } => self.place_in(*text, value.clone()),
            Origin::Given(place) => place.clone(),
        }
    }

    /// Takes a setting out; its default if it is not given or is wrong, which is then reported.
    pub fn take<T: Setting + 'static>(&mut self, name: &str, default: T, check: Option<&Check<T>>) -> T {
        let Some(entry) = self.given.remove(name) else { return default };
        let read = match &entry.value {
            Value::Toml(value) => T::from_toml(value),
            Value::Text(text) => T::from_text(text),
            Value::Switch => T::from_toml(&DeValue::Boolean(true)),
        };
        let checked = match (read, check) {
            (Ok(value), Some(check)) => check.apply(&value).map(|()| value),
            (Ok(value), None) => Ok(value),
            (Err(message), check) => {
                let allowed = check.map_or_else(T::expected, |check| check.allowed.clone());
                Err(match (&entry.value, check) {
                    (Value::Switch, _) => format!("needs a value: expected {allowed}"),
                    (Value::Toml(value), Some(_)) => format!("expected {allowed}, found {}", describe(value)),
                    (Value::Text(text), Some(_)) => {
                        format!("expected {allowed}, found {}", describe_text(text))
                    }
                    (Value::Toml(_) | Value::Text(_), None) => message,
                })
            }
        };
        let place = self.value_place(&entry.origin);
        self.places.insert(name.to_owned(), place.clone());
        match checked {
            Ok(value) => value,
            Err(message) => {
                let part = match (&entry.value, &entry.origin) {
                    (Value::Toml(value), Origin::File { text, .. }) => T::fault(value)
                        .filter(|fault| !fault.span.is_empty())
                        .map(|fault| (*text, fault.span)),
                    (Value::Toml(_) | Value::Text(_) | Value::Switch, _) => None,
                };
                let place = part.map_or(place, |(text, span)| self.place_in(text, span));
                let advice = || {
                    let (text, quotes) = entry.value.words()?;
                    advice::<T>(text, quotes).filter(|_| !message.contains(NEAREST))
                };
                let help = advice().or_else(|| legacy::help(name).map(str::to_owned));
                self.problem(format!("`{}`: {message}", entry.spelled), place, help);
                default
            }
        }
    }

    /// Takes every setting of a section with free keys.
    pub fn take_open<T: Setting + Clone + 'static>(
        &mut self,
        section: &str,
        unset: &T,
    ) -> BTreeMap<String, T> {
        let prefix = format!("{section}.");
        let names: Vec<String> =
            self.given.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        names
            .into_iter()
            .map(|name| {
                let value = self.take(&name, unset.clone(), None);
                (name[prefix.len()..].to_owned(), value)
            })
            .collect()
    }

    /// Whether a setting was given and has been taken.
    pub fn was_given(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Places of the settings that were given and have been taken.
    pub fn places(&self) -> &BTreeMap<String, Place> {
        &self.places
    }

    /// Reports a conflict between settings that were taken, at the place of the one to look at: one of the command line,
    /// which was typed last, then one of the config before one of its base; of several, the first of `names`.
    pub fn conflict(&mut self, names: &[&str], message: String, help: &str) {
        let place = self.latest(names).cloned();
        let rank = self.rank(place.as_ref());
        self.problems.push((rank, Problem { message, place, help: Some(help.to_owned()) }));
    }

    /// Adds a remark about some settings that does not stop the run, at a place as for [`Settings::conflict`].
    pub fn warn(&mut self, names: &[&str], message: &str) {
        let place = self.latest(names).map_or_else(|| self.texts[0].name.clone(), at);
        self.warnings.push((None, format!("{place}: {message}")));
    }

    /// The place of the setting that was given last.
    fn latest(&self, names: &[&str]) -> Option<&Place> {
        let last = names.iter().map(|name| self.layer(name)).max()?;
        names.iter().find(|name| self.layer(name) == last).and_then(|name| self.places.get(*name))
    }

    fn problem(&mut self, message: String, place: Place, help: Option<String>) {
        let rank = self.rank(Some(&place));
        self.problems.push((rank, Problem { message, place: Some(place), help }));
    }

    /// Sorts problems by text and line, then those of the command line, then those without a place.
    fn rank(&self, place: Option<&Place>) -> Rank {
        match place {
            Some(Place::File(place)) => {
                let text = self.texts.iter().position(|text| text.name == place.file);
                (text.unwrap_or(self.texts.len()), place.line)
            }
            Some(Place::CommandLine(_)) => (usize::MAX - 1, 0),
            None => (usize::MAX, 0),
        }
    }

    /// Which of several says a setting: the command line before a config, a config before its base, and these before the
    /// default. More is later.
    pub fn layer(&self, name: &str) -> usize {
        match self.places.get(name) {
            None => 0,
            Some(place @ Place::File(_)) => 1 + self.texts.len() - self.rank(Some(place)).0,
            Some(Place::CommandLine(_)) => 2 + self.texts.len(),
        }
    }

    /// Notes that a setting has the value that another asks for, so that it is found at the other's place.
    pub fn follow(&mut self, name: &str, other: &str) {
        if let Some(place) = self.places.get(other).cloned() {
            self.places.insert(name.to_owned(), place);
        }
    }

    /// The warnings, or everything that is wrong.
    pub fn finish(mut self) -> Result<Vec<String>, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.warnings.into_iter().map(|(_, warning)| warning).collect());
        }
        self.problems.sort_by_key(|(rank, _)| *rank);
        Err(ConfigError { problems: self.problems.into_iter().map(|(_, problem)| problem).collect() })
    }
}

/// Where to look for what is wrong between some settings: on the command line if one of them is there, else where the
/// first of them is that was given.
pub fn place_among<'p>(places: &'p BTreeMap<String, Place>, names: &[&str]) -> Option<&'p Place> {
    let given = || names.iter().filter_map(|name| places.get(*name));
    given().find(|place| matches!(place, Place::CommandLine(_))).or_else(|| given().next())
}

fn at(place: &Place) -> String {
    match place {
        Place::File(_) => place.to_string(),
        Place::CommandLine(_) => format!("command line: {place}"),
    }
}
