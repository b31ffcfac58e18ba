//! The JSON schema of configs: what linc accepts conforms to it, and usual mistakes do not.

use linc_config::schema::{Json, json_of_text};

use super::*;

/// Whether a config's text conforms.
pub(super) fn check(text: &str) -> Result<(), String> {
    let value = json_of_text(text).ok_or("not TOML")?;
    conforms(&JobConfig::schema(), &value, "")
}

/// Checks a value by the words of draft 7 that the schema uses; but for `pattern`, which takes regular expressions.
fn conforms(schema: &Json, value: &Json, at: &str) -> Result<(), String> {
    let rules = schema.as_object().expect("a schema is an object");
    for (word, rule) in rules {
        let number = || rule.as_f64().expect("a number");
        let holds = match word.as_str() {
            "type" => match rule {
                Json::Array(types) => types.iter().any(|ty| is_of(ty, value)),
                ty => is_of(ty, value),
            },
            "enum" => rule.as_array().expect("a list").contains(value),
            "const" => rule == value,
            "minimum" => value.as_f64().is_none_or(|value| value >= number()),
            "maximum" => value.as_f64().is_none_or(|value| value <= number()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|value| value > number()),
            "exclusiveMaximum" => value.as_f64().is_none_or(|value| value < number()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= number()),
            "not" => conforms(rule, value, at).is_err(),
            "anyOf" => {
                let forms = rule.as_array().expect("a list");
                forms.iter().any(|form| conforms(form, value, at).is_ok())
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.enumerate().try_for_each(|(i, item)| conforms(rule, item, &format!("{at}[{i}]")))?;
                true
            }
            "properties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if let Some(inner) = rule.get(key) {
                        conforms(inner, value, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Json::as_object);
                for (key, value) in value.as_object().into_iter().flatten() {
                    match rule {
                        _ if known.is_some_and(|known| known.contains_key(key)) => {}
                        Json::Bool(false) => return Err(format!("{at}.{key} is not known")),
                        values => conforms(values, value, &format!("{at}.{key}"))?,
                    }
                }
                true
            }
            "$schema" | "title" | "description" | "default" | "deprecated" | "pattern" | "x-taplo" => true,
            other => panic!("the schema uses {other}, which this check does not know"),
        };
        if !holds {
            return Err(format!("{at} is {value}, against {word} {rule}"));
        }
    }
    Ok(())
}

fn is_of(ty: &Json, value: &Json) -> bool {
    match ty.as_str().expect("a word") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("no type {other}"),
    }
}

#[test]
fn mistakes_do_not_conform() {
    for text in [
        "steps = 5",
        "base = 7",
        "[trainin]\nsteps = 5",
        "[training]\nstep = 5",
        "[training]\nsteps = 0",
        "[training]\nsteps = \"5\"",
        "[training]\nsteps = 1.5",
        "[training]\nlocal_batch_size = 0",
        "[training]\nglobal_batch_size = 0",
        "[training]\nmax_norm = 0",
        "[training]\nseed = -1",
        "[training]\nmixed_precision_param = \"bf16\"",
        "[training]\ndevice = 0",
        "[training.mqar]\nnum_kv_pairs = []",
        "[training.mqar]\nnum_kv_pairs = [8, \"x\"]",
        "[model]\nlinear_attn_ratio = 1.5",
        "[model]\nlinear_attn_placement = \"sideways\"",
        "[model]\nlinear_attn_placement = [-1]",
        "[model.overrides]\ndim = \"large\"",
        "[optimizer]\nbeta1 = 1",
        "[optimizer]\nname = \"Lion\"",
        "[lr_scheduler]\nmin_lr_factor = 2",
        "[lr_scheduler]\ndecay_type = \"step\"",
        "[[lr_scheduler.segments]]\nlength = 5",
        "[validation]\nfraction = 0.95",
        "[parallelism]\ntensor_parallel_degree = 2",
        "[experimental]\ntensor_parallel_degree = 2",
        "[compile]\ndisable_passes = [\"inline\"]",
        "[checkpoint]\nenable = 1",
    ] {
        assert!(check(text).is_err(), "{text}");
        assert!(JobConfig::load(text, "run.toml", &[]).is_err(), "{text}");
    }
}

#[test]
fn what_is_accepted_from_titans_configs_conforms() {
    for text in [
        "base = \"llama3_1b.toml\"",
        "[experimental]\ncustom_import = \"x\"\ntensor_parallel_degree = 1",
        "[float8]\nfilter_fqns = [\"output\"]",
        "[quantize.linear.float8]\nx = 1",
        "[optimizer]\nimplementation = \"fused\"",
        "[model]\nconverters = [\"float8\"]",
        "[compile]\ndisable_passes = \"cse\"",
        "[model.overrides]\nrope.factor = 8.0",
    ] {
        check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

/// Each setting in each of its spellings, with what an editor shows of it.
#[test]
fn every_spelling_of_every_setting_is_there() {
    let schema = JobConfig::schema();
    let property = |name: &str| {
        let path: String = name.split('.').map(|part| format!("/properties/{part}")).collect();
        schema.pointer(&path).unwrap_or_else(|| panic!("{name} is not there"))
    };
    for key in JobConfig::keys() {
        let found = property(&key.name);
        let description = found["description"].as_str().expect("a text");
        assert!(description.starts_with(&key.help) && description.contains(&key.expected), "{}", key.name);
        assert!(found.get("deprecated").is_none(), "{}", key.name);
        assert_eq!(found.get("default").is_some(), key.default.is_some(), "{}", key.name);
        if let Some(default) = found.get("default") {
            conforms(found, default, &key.name).unwrap_or_else(|error| panic!("{error}"));
        }
        for alias in &key.aliases {
            let found = property(alias);
            assert_eq!(found["deprecated"], true, "{alias}");
            assert!(found["description"].as_str().is_some_and(|text| text.contains(&key.name)), "{alias}");
        }
    }
    assert_eq!(property("optimizer.implementation")["deprecated"], true);
    assert_eq!(property("training")["description"], "Batches, steps and data.");
}
