//! The JSON schema of configs, for editors that complete and check them: what `section!` declares, and nothing else.

use serde_json::{Map, Value, json};
use toml::de::{DeTable, DeValue};

use crate::check::Check;
use crate::files::BASE;
use crate::legacy;
use crate::section::KeyInfo;
use crate::value::Setting;

#[doc(hidden)]
pub use serde_json::Value as Json;

/// Draft 7 is what editors of TOML know; they ignore the later word `deprecated` or show it.
const DRAFT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of a value: that of its type, and the limits of its check.
#[doc(hidden)]
pub fn of_value<T: Setting + 'static>(check: Option<&Check<T>>) -> Value {
    let mut schema = T::schema();
    if let (Some(schema), Some(check)) = (schema.as_object_mut(), check) {
        schema.extend(check.limits().clone());
    }
    schema
}

/// One of a few words, each with what it means.
#[doc(hidden)]
pub fn of_words(words: &[(&str, String)]) -> Value {
    let docs: Vec<&String> = words.iter().map(|(_, doc)| doc).collect();
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    json!({ "enum": words, "x-taplo": { "docs": { "enumValues": docs } } })
}

/// The words that a schema names.
pub(crate) fn words(schema: &Value) -> Vec<&str> {
    let own = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    own.chain(schema["anyOf"].as_array().into_iter().flatten().flat_map(words)).collect()
}

/// A table: its keys, with what they do and their values.
#[doc(hidden)]
pub fn of_table(keys: Vec<(&str, String, Value)>) -> Value {
    let mut properties = Map::new();
    for (key, help, mut value) in keys {
        describe(&mut value, help);
        properties.insert(key.to_owned(), value);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// A TOML value as JSON. Numbers that JSON does not have, `inf` and `nan`, and dates are strings.
fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => json!(number),
            Err(_) => json!(number.as_str()),
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => json!(number),
            Ok(_) | Err(_) => json!(number.as_str()),
        },
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Datetime(date) => json!(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries =
                table.iter().map(|(key, value)| (key.get_ref().to_string(), to_json(value.get_ref())));
            Value::Object(entries.collect())
        }
    }
}

/// A value in TOML spelling as JSON.
pub fn json_of(toml: &str) -> Value {
    DeValue::parse(toml).map_or(Value::Null, |value| to_json(value.get_ref()))
}

/// A config's text as JSON, if it is TOML.
pub fn json_of_text(text: &str) -> Option<Value> {
    let document = DeTable::parse(text).ok()?;
    Some(to_json(&DeValue::Table(document.into_inner())))
}

/// The schema of a config with these settings, and with sections of free keys (name, schema
/// of a value, what it is about). An unknown section or key does not conform,
/// as it is an error to linc; other spellings, and what has no effect, are marked as deprecated.
pub fn schema(keys: &[KeyInfo], open_sections: &[(&str, Value, &str)]) -> Value {
    let mut root =
        section("A run of linc: `linc train CONFIG`. `linc config CONFIG` prints it with all defaults.");
    root["$schema"] = json!(DRAFT);
    root["title"] = json!("linc config");
    let base = "A config to start from: a file beside this one, or the name of a config that is built in. What this one \
                does not say is as there.";
    root["properties"][BASE] = json!({ "type": "string", "pattern": "\\S", "description": base });
    for key in keys {
        let mut value = key.schema.clone();
        describe(&mut value, format!("{}\n\nExpected: {}.", key.help, key.expected));
        if let Some(default) = &key.default {
            value["default"] = json_of(default);
        }
        insert(&mut root, &key.name, value, &key.about);
        for alias in &key.aliases {
            let mut value = key.schema.clone();
            describe(&mut value, format!("Another spelling of `{}`. {}", key.name, key.help));
            value["deprecated"] = json!(true);
            insert(&mut root, alias, value, "");
        }
    }
    for (name, values, about) in open_sections {
        let mut open = json!({ "type": "object", "additionalProperties": values });
        describe(&mut open, (*about).to_owned());
        insert(&mut root, name, open, "");
    }
    for (name, reason) in legacy::ignored_keys() {
        insert(&mut root, name, no_effect(reason), "");
    }
    for (name, reason) in legacy::foreign_sections() {
        // Some of their keys are other spellings of settings; the others are free.
        let mut foreign = no_effect(reason);
        foreign["type"] = json!("object");
        if let Some(known) = root["properties"].get(*name).and_then(|section| section.get("properties")) {
            foreign["properties"] = known.clone();
        }
        root["properties"][*name] = foreign;
    }
    root
}

fn section(about: &str) -> Value {
    let mut section = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    describe(&mut section, about.to_owned());
    section
}

fn no_effect(reason: &str) -> Value {
    json!({ "deprecated": true, "description": format!("Of TorchTitan; it has no effect: {reason}.") })
}

fn describe(schema: &mut Value, text: String) {
    if !text.is_empty() {
        schema["description"] = json!(text);
    }
}

/// Puts the schema of a setting below its sections, which are made where they are not there yet.
fn insert(root: &mut Value, name: &str, value: Value, about: &str) {
    let mut parts: Vec<&str> = name.split('.').collect();
    let Some(key) = parts.pop() else { return };
    let mut at = root;
    for part in parts {
        let inside = &mut at["properties"][part];
        if inside.is_null() {
            *inside = section(about);
        } else if inside.get("description").is_none() {
            describe(inside, about.to_owned());
        }
        at = inside;
    }
    at["properties"][key] = value;
}
