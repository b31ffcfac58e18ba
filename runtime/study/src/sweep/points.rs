//! The points of a sweep: which settings each run has that others do not.

use std::collections::{BTreeMap, BTreeSet};

use linc_config::{ConfigError, Place, Problem};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::settings::{Given, Method, PARAMETERS, Point, SweepSettings};

/// The most runs of one sweep.
const MOST_RUNS: usize = 10_000;
/// Draws, at most, for a point that is not there yet.
const DRAWS: usize = 1000;

/// A setting that is varied.
#[derive(Clone, Debug, PartialEq)]
struct Parameter {
    /// `section.key`.
    name: String,
    values: Values,
    place: Option<Place>,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    /// One of these.
    Listed(Vec<Given>),
    /// From the first to the second number.
    Range { min: f64, max: f64, distribution: Distribution },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Distribution {
    Uniform,
    /// Uniform in the logarithm.
    LogUniform,
    /// A whole number.
    Integer,
}

/// What `distribution` may be.
const DISTRIBUTIONS: [(&str, Distribution); 3] = [
    ("uniform", Distribution::Uniform),
    ("log_uniform", Distribution::LogUniform),
    ("int_uniform", Distribution::Integer),
];

/// Keys of a range, behind the name of a setting.
const KEYS: [&str; 5] = ["min", "max", "distribution", "values", "value"];

/// The points that a sweep asks for, each once, in an order that depends on the settings only. `given` is what
/// `[sweep.parameters]` says, with where it says so.
///
/// # Errors
/// No points, points that are the same, or a range that is none.
pub(super) fn points(
    settings: &SweepSettings,
    given: &BTreeMap<String, Vec<Given>>,
    places: &BTreeMap<String, Place>,
) -> Result<Vec<Point>, ConfigError> {
    let parameters = parameters(given, places)?;
    let is_listed = settings.method == Method::List;
    if is_listed != parameters.is_empty() || is_listed == settings.runs.is_empty() {
        let (message, help) = match (settings.method, parameters.is_empty()) {
            (Method::List, false) => (
                "a list has no [sweep.parameters]".to_owned(),
                "write each run as [[sweep.runs]], or leave out method = \"list\" for every combination",
            ),
            (Method::List, true) => (
                "the list has no runs".to_owned(),
                "write each run as [[sweep.runs]] with its settings: model.linear_attn_ratio = 0.5",
            ),
            (method, _) if !settings.runs.is_empty() => (
                format!("[[sweep.runs]] are not read by method \"{}\"", method.word()),
                "say method = \"list\", or leave them out",
            ),
            (method, _) => (
                format!("method \"{}\" varies nothing", method.word()),
                "say what is varied: [sweep.parameters] model.linear_attn_ratio = [0.0, 0.5, 1.0]",
            ),
        };
        return Err(at(places, "sweep.method", message, help));
    }
    let points = match settings.method {
        Method::List => settings.runs.clone(),
        Method::Grid => grid(&parameters)?,
        Method::Random => random(&parameters, settings, places)?,
        Method::Halving if parameters.iter().any(|p| matches!(p.values, Values::Range { .. })) => {
            random(&parameters, settings, places)?
        }
        Method::Halving => grid(&parameters)?,
    };
    let mut seen = BTreeSet::new();
    for point in &points {
        if !seen.insert(&point.0) {
            let shown: Vec<String> =
                point.0.iter().map(|(name, value)| format!("{name} = {}", value.0)).collect();
            let message = format!("two runs are the same: {}", shown.join(", "));
            let place = if is_listed { "sweep.runs".to_owned() } else { parameters[0].place_name() };
            return Err(at(places, &place, message, "leave out one of them"));
        }
    }
    Ok(points)
}

/// A problem at the place of a setting, if it was given.
fn at(places: &BTreeMap<String, Place>, name: &str, message: String, help: &str) -> ConfigError {
    Problem { message, place: places.get(name).cloned(), help: Some(help.to_owned()) }.into()
}

impl Parameter {
    /// The name of its setting in the sweep's file.
    fn place_name(&self) -> String {
        format!("{PARAMETERS}.{}", self.name)
    }

    fn wrong(&self, message: String, help: &str) -> ConfigError {
        Problem { message, place: self.place.clone(), help: Some(help.to_owned()) }.into()
    }
}

/// Reads what is varied: `name = [..]`, or `name = { min = .., max = .. }`, whose keys come as names of their own.
fn parameters(
    given: &BTreeMap<String, Vec<Given>>,
    places: &BTreeMap<String, Place>,
) -> Result<Vec<Parameter>, ConfigError> {
    let mut named: BTreeMap<&str, BTreeMap<&str, &Vec<Given>>> = BTreeMap::new();
    for (name, values) in given {
        let (of, key) = match name.rsplit_once('.') {
            Some((of, key)) if KEYS.contains(&key) && of.contains('.') => (of, key),
            _ => (name.as_str(), "values"),
        };
        named.entry(of).or_default().insert(key, values);
    }
    let mut parameters = vec![];
    for (name, keys) in named {
        let place = |key: &str| places.get(&format!("{PARAMETERS}.{name}.{key}"));
        let place = places
            .get(&format!("{PARAMETERS}.{name}"))
            .or_else(|| keys.keys().find_map(|key| place(key)))
            .cloned();
        let mut parameter = Parameter { name: name.to_owned(), values: Values::Listed(vec![]), place };
        parameter.values = values(&parameter, &keys)?;
        parameters.push(parameter);
    }
    Ok(parameters)
}

fn values(parameter: &Parameter, keys: &BTreeMap<&str, &Vec<Given>>) -> Result<Values, ConfigError> {
    let name = &parameter.name;
    if let Some(listed) = keys.get("values").or(keys.get("value")) {
        if keys.len() > 1 {
            let message = format!("`{name}` has a list of values and other keys beside it");
            return Err(parameter.wrong(message, "keep either the list, or min and max"));
        }
        if listed.is_empty() {
            let message = format!("`{name}` has no values");
            return Err(parameter.wrong(message, "list at least one, or leave the setting out"));
        }
        return Ok(Values::Listed((*listed).clone()));
    }
    let number = |key: &str| match keys.get(key).map(|values| values.as_slice()) {
        Some([value]) => value.0.parse::<f64>().ok().filter(|value| value.is_finite()),
        _ => None,
    };
    let (Some(min), Some(max)) = (number("min"), number("max")) else {
        let message = format!("`{name}` needs the numbers min and max");
        return Err(
            parameter.wrong(message, "write { min = 1e-4, max = 1e-2, distribution = \"log_uniform\" }")
        );
    };
    let distribution = match keys.get("distribution").map(|values| values.as_slice()) {
        None => Distribution::Uniform,
        Some(words) => {
            let word = words.first().map_or("", |word| word.0.as_str());
            let known = DISTRIBUTIONS.iter().find(|(known, _)| *known == word);
            known.map(|(_, distribution)| *distribution).ok_or_else(|| {
                let words = DISTRIBUTIONS.map(|(word, _)| format!("\"{word}\""));
                parameter.wrong(
                    format!("`{name}` has the distribution {word:?}"),
                    &format!("there are {}", words.join(", ")),
                )
            })?
        }
    };
    if distribution == Distribution::Integer && min.ceil() > max.floor() {
        let message = format!("there is no whole number from {min} to {max}, of which `{name}` is drawn");
        return Err(parameter.wrong(message, "widen the range, or say another distribution"));
    }
    if min >= max || (distribution == Distribution::LogUniform && min <= 0.0) {
        let message = format!("`{name}` is no range: from {min} to {max}");
        return Err(parameter.wrong(message, "min is less than max; both are above 0 for log_uniform"));
    }
    Ok(Values::Range { min, max, distribution })
}

/// Every combination; the last setting varies fastest.
fn grid(parameters: &[Parameter]) -> Result<Vec<Point>, ConfigError> {
    let mut points = vec![Point::default()];
    for parameter in parameters {
        let Values::Listed(values) = &parameter.values else {
            let message = format!("`{}` is a range, of which a grid has no combinations", parameter.name);
            return Err(parameter.wrong(message, "list its values, or say method = \"random\" in [sweep]"));
        };
        if points.len().saturating_mul(values.len()) > MOST_RUNS {
            let message = format!("the grid has more than {MOST_RUNS} runs");
            return Err(parameter.wrong(message, "list fewer values, or say method = \"random\" in [sweep]"));
        }
        let longer = |point: &Point, value: &Given| {
            let mut point = point.clone();
            point.0.push((parameter.name.clone(), value.clone()));
            point
        };
        points = points
            .iter()
            .flat_map(|point| values.iter().map(|value| longer(point, value)).collect::<Vec<_>>())
            .collect();
    }
    Ok(points)
}

/// As many different points as are asked for; fewer where there are no more.
fn random(
    parameters: &[Parameter],
    settings: &SweepSettings,
    places: &BTreeMap<String, Place>,
) -> Result<Vec<Point>, ConfigError> {
    if settings.num_runs > MOST_RUNS {
        let message = format!("num_runs is more than {MOST_RUNS}");
        return Err(at(places, "sweep.num_runs", message, "draw fewer"));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut points: Vec<Point> = vec![];
    for _ in 0..settings.num_runs {
        let fresh = (0..DRAWS).find_map(|_| {
            let draw = |parameter: &Parameter| (parameter.name.clone(), draw(&parameter.values, &mut rng));
            let point = Point(parameters.iter().map(draw).collect());
            (!points.contains(&point)).then_some(point)
        });
        points.extend(fresh);
    }
    Ok(points)
}

fn draw(values: &Values, rng: &mut ChaCha8Rng) -> Given {
    // 53 bits, as a double holds: from 0 to 1, without 1.
    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    match values {
        Values::Listed(values) => values[(unit * values.len() as f64) as usize].clone(),
        Values::Range { min, max, distribution } => Given(match distribution {
            Distribution::Uniform => spell(min + unit * (max - min), *min, *max),
            Distribution::LogUniform => spell((min.ln() + unit * (max.ln() - min.ln())).exp(), *min, *max),
            Distribution::Integer => {
                let (min, max) = (min.ceil(), max.floor());
                format!("{}", (min + unit * (max - min + 1.0)).floor().min(max) as i64)
            }
        }),
    }
}

/// Six digits within the range: a number that a person can copy.
fn spell(value: f64, min: f64, max: f64) -> String {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    format!("{:?}", rounded.clamp(min, max))
}

#[cfg(test)]
mod tests;
