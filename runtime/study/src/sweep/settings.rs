//! What a sweep is told: the section `[sweep]` of a config.

use linc_config::check;
use linc_config::schema::Json;
use linc_config::{DeValue, Setting, choice, mismatch, quote, section};
use linc_driver::MemoryLimit;

/// Section with the settings that are varied, whose keys are those of a config.
pub const PARAMETERS: &str = "sweep.parameters";

choice! {
    /// How the points of a sweep are chosen.
    Method {
        /// Every combination of the values.
        Grid = "grid",
        /// The runs that are listed.
        List = "list",
        /// Combinations drawn at random, from lists and ranges.
        Random = "random",
        /// As random, or every combination where there are no ranges; the worst end early, again and again.
        Halving = "halving",
    }
}

choice! {
    /// What runs are compared by.
    Metric {
        /// Loss on validation data, in nats per token; less is better.
        ValidationLoss = "validation_loss",
        /// Share of recall queries answered right; more is better.
        ValidationAccuracy = "validation_accuracy",
        /// Mean training loss of the last tenth of the steps, in nats per token; less is better.
        TrainingLoss = "training_loss",
    }
}

section! {
    /// Which settings a sweep varies, and how its runs are carried out.
    SweepSettings "sweep" {
        /// Folder of the sweep, with all its runs; outputs/NAME of NAME.toml if unset.
        dump_folder: Option<String> = None, check check::not_empty().if_set();
        /// How the points are chosen.
        method: Method = Method::Grid;
        /// The runs of a list, each a table of settings.
        runs: Vec<Point> = Vec::new();
        /// How many points are drawn at random.
        num_runs: usize = 16, check check::positive();
        /// Seed of the points that are drawn; the runs' own is training.seed.
        seed: u64 = 0;
        /// What runs are compared by.
        metric: Metric = Metric::ValidationLoss;
        /// Runs at once; the threads of a CPU are shared out among them.
        runs_at_once: usize = 1, check check::positive();
        /// Memory of the runs at once, by their plans: a share of the device's, or an amount such as "8GiB".
        memory_limit: MemoryLimit = MemoryLimit::Share(0.8);
        /// Numbers of the GPUs on which runs are carried out, one at a time on each.
        gpus: Vec<usize> = Vec::new();
        /// Of halving: one in so many runs goes on.
        halving_factor: usize = 3, check check::at_least(2);
        /// Of halving: steps after which the first runs end.
        halving_steps: usize = 100, check check::positive();
    }
}

/// What a setting is to be, as it would stand behind `--section.key` on the command line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given(pub String);

impl Setting for Given {
    fn expected() -> String {
        "a value of that setting".to_owned()
    }

    fn schema() -> Json {
        Json::Bool(true)
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            // A word stands alone on the command line, and in quotes within a list.
            DeValue::String(text) => Some(text.to_string()),
            value => spelled(value),
        }
        .map(Given)
        .ok_or_else(|| mismatch::<Self>(value))
    }

    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.0))
    }
}

/// A value in TOML spelling; nothing of one that no setting has.
fn spelled(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| spelled(item.get_ref())).collect();
            format!("[{}]", items?.join(", "))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

/// One run of a list: settings by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Point(pub Vec<(String, Given)>);

impl Setting for Point {
    fn expected() -> String {
        "a table of settings, such as { model.linear_attn_ratio = 0.5, training.seed = 1 }".to_owned()
    }

    fn schema() -> Json {
        linc_config::schema::json_of_text(r#"{ "type": "object" }"#).unwrap_or(Json::Bool(true))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let DeValue::Table(_) = value else { return Err(mismatch::<Self>(value)) };
        let mut settings = vec![];
        flatten("", value, &mut settings)?;
        Ok(Point(settings))
    }

    fn to_toml(&self) -> Option<String> {
        let settings: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some(format!("{name} = {}", value.to_toml()?)))
            .collect();
        Some(format!("{{ {} }}", settings.join(", ")))
    }
}

/// Settings by name of tables within tables.
fn flatten(prefix: &str, value: &DeValue<'_>, settings: &mut Vec<(String, Given)>) -> Result<(), String> {
    match value {
        DeValue::Table(table) => table.iter().try_for_each(|(key, value)| {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            flatten(&name, value.get_ref(), settings)
        }),
        value => {
            settings.push((prefix.to_owned(), Given::from_toml(value)?));
            Ok(())
        }
    }
}
