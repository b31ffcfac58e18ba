//! What people's marks come to: by model, by pair of models, and how far people agree.

use std::path::{Path, PathBuf};

use linc_device::write_entry;
use serde::Serialize;

pub use super::agreement::Agreement;
use super::agreement::agreement;
use super::ratings::{Ratings, in_folder, read_all};
use super::{CRITERIA, Comparison, Writer};
use crate::error::{StudyError, file};
use crate::results::row;
use crate::statistics::Mean;

/// A model's marks: means over the prompts, of each prompt over the people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelMarks {
    /// Who wrote.
    #[serde(flatten)]
    pub writer: Writer,
    /// By each criterion, in their order.
    pub by_criterion: Vec<Option<Mean>>,
    /// By all of them together.
    pub overall: Option<Mean>,
}

/// Two models beside each other, prompt by prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The first, by its number.
    pub first: usize,
    /// The one that it is compared with.
    pub second: usize,
    /// How much better the first is marked, over the prompts of which somebody marked both texts by the same criterion.
    pub difference: Option<Mean>,
    /// Prompts at which the first is better.
    pub wins: usize,
    /// Prompts at which neither is.
    pub ties: usize,
    /// Prompts at which the second is better.
    pub losses: usize,
}

/// What marks come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tally {
    /// Which comparison.
    pub study: String,
    /// People, with how many marks each gave.
    pub raters: Vec<(String, usize)>,
    /// Marks that somebody who gave all would have given.
    pub marks_of_all: usize,
    /// By model, in their order.
    pub models: Vec<ModelMarks>,
    /// By pair of models.
    pub pairs: Vec<Pair>,
    /// By criterion, where several people marked a text.
    pub agreement: Vec<Option<Agreement>>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// All numbers.
    pub json: PathBuf,
    /// A row for each model.
    pub csv: PathBuf,
}

/// Counts the marks on the comparison in a folder: those in some files, or else in all of the folder's whose names begin with
/// `ratings`.
///
/// # Errors
/// No comparison, no marks, or files that say what cannot be.
pub fn tally(folder: &Path, files: &[PathBuf]) -> Result<Tally, StudyError> {
    let comparison = Comparison::read(folder)?;
    let paths = if files.is_empty() { in_folder(folder)? } else { files.to_vec() };
    let ratings = read_all(&comparison, &paths)?;
    if ratings.iter().all(|ratings| ratings.marks.is_empty()) {
        return Err(StudyError::Nothing {
            message: format!("{} has no marks yet", folder.display()),
            help: "open compare.html, judge the texts, save the marks, and put the file ratings-NAME.json beside it".to_owned(),
        });
    }
    Ok(count(&comparison, &ratings))
}

fn count(comparison: &Comparison, ratings: &[Ratings]) -> Tally {
    let (writers, prompts) = (comparison.writers.len(), comparison.prompts.len());
    // Marks of each text by each criterion: [writer][prompt][criterion].
    let mut marks = vec![vec![vec![vec![]; CRITERIA.len()]; prompts]; writers];
    for ratings in ratings {
        for ((prompt, place, criterion), mark) in &ratings.marks {
            let writer = comparison.order[*prompt][*place];
            marks[writer][*prompt][*criterion].push(f64::from(*mark));
        }
    }
    let mean = |values: &[f64]| Mean::of(values).map(|mean| mean.mean);
    // What a text is worth: the mean of its criteria, each of which is the mean of people.
    let overall = |writer: usize, prompt: usize| {
        let by_criterion: Vec<f64> = marks[writer][prompt].iter().filter_map(|marks| mean(marks)).collect();
        mean(&by_criterion)
    };
    let over_prompts =
        |of: &dyn Fn(usize) -> Option<f64>| Mean::of(&(0..prompts).filter_map(of).collect::<Vec<_>>());
    let models = (0..writers).map(|writer| ModelMarks {
        writer: comparison.writers[writer].clone(),
        by_criterion: (0..CRITERIA.len())
            .map(|criterion| over_prompts(&|prompt| mean(&marks[writer][prompt][criterion])))
            .collect(),
        overall: over_prompts(&|prompt| overall(writer, prompt)),
    });
    // Each person's marks by place, as the texts of the writers: a strict person who marked one text alone says nothing of a pair.
    let mark = |ratings: &Ratings, writer: usize, prompt: usize, criterion: usize| {
        let place = comparison.order[prompt].iter().position(|shown| *shown == writer)?;
        ratings.marks.get(&(prompt, place, criterion)).map(|mark| f64::from(*mark))
    };
    let pair = |first: usize, second: usize| {
        // The mean over people of what each says by the criteria that this person marked both texts by.
        let difference = |prompt: usize| {
            let of_person = |ratings: &Ratings| {
                let of = |criterion| {
                    Some(mark(ratings, first, prompt, criterion)? - mark(ratings, second, prompt, criterion)?)
                };
                mean(&(0..CRITERIA.len()).filter_map(of).collect::<Vec<f64>>())
            };
            mean(&ratings.iter().filter_map(of_person).collect::<Vec<f64>>())
        };
        let differences: Vec<f64> = (0..prompts).filter_map(difference).collect();
        let of = |is: fn(f64) -> bool| differences.iter().filter(|difference| is(**difference)).count();
        Pair {
            first,
            second,
            difference: Mean::of(&differences),
            wins: of(|d| d > 1e-9),
            ties: of(|d| d.abs() <= 1e-9),
            losses: of(|d| d < -1e-9),
        }
    };
    let pairs = (0..writers).flat_map(|first| (first + 1..writers).map(move |second| (first, second)));
    let by_criterion = |criterion: usize| {
        let texts = marks.iter().flatten().map(|text| text[criterion].clone());
        agreement(&texts.collect::<Vec<_>>())
    };
    Tally {
        study: comparison.study.clone(),
        raters: ratings.iter().map(|ratings| (ratings.rater.clone(), ratings.marks.len())).collect(),
        marks_of_all: writers * prompts * CRITERIA.len(),
        models: models.collect(),
        pairs: pairs.map(|(first, second)| pair(first, second)).collect(),
        agreement: (0..CRITERIA.len()).map(by_criterion).collect(),
    }
}

/// A table with its headings.
pub type Shown = (Vec<&'static str>, Vec<Vec<String>>);

fn interval(mean: Option<Mean>) -> String {
    match mean {
        None => "-".to_owned(),
        Some(Mean { mean, half_width: Some(half), .. }) => format!("{mean:.2} ± {half:.2}"),
        Some(Mean { mean, .. }) => format!("{mean:.2}"),
    }
}

impl Tally {
    /// Marks of each model.
    pub fn models(&self) -> Shown {
        let criteria = CRITERIA.map(|(name, _)| name);
        let header = [&["model", "layers"][..], &criteria[..], &["overall", "prompts"][..]].concat();
        let row = |model: &ModelMarks| {
            let fixed = [model.writer.path.clone(), model.writer.layers.clone()];
            let marks = model.by_criterion.iter().map(|mean| interval(*mean));
            let rest = [interval(model.overall), model.overall.map_or(0, |mean| mean.count).to_string()];
            fixed.into_iter().chain(marks).chain(rest).collect()
        };
        (header, self.models.iter().map(row).collect())
    }

    /// Models beside each other.
    pub fn pairs(&self) -> Shown {
        let name = |number: usize| self.models[number].writer.path.clone();
        let row = |pair: &Pair| {
            vec![
                name(pair.first),
                name(pair.second),
                interval(pair.difference),
                pair.wins.to_string(),
                pair.ties.to_string(),
                pair.losses.to_string(),
            ]
        };
        let header = vec!["model", "beside", "better by", "wins", "ties", "losses"];
        (header, self.pairs.iter().map(row).collect())
    }

    /// How far people agree.
    pub fn agreements(&self) -> Shown {
        let row = |(agreement, (name, _)): (&Option<Agreement>, (&'static str, &str))| {
            let found = agreement.as_ref()?;
            let number = |value: f64| format!("{value:.2}");
            Some(vec![
                name.to_owned(),
                found.alpha.map_or_else(|| "-".to_owned(), number),
                found.interval.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.2} .. {high:.2}")),
                format!("{:.0} %", 100.0 * found.equal),
                format!("{:.0} %", 100.0 * found.near),
                found.texts.to_string(),
            ])
        };
        let header = vec!["criterion", "alpha", "95 %", "equal", "within one", "texts"];
        (header, self.agreement.iter().zip(CRITERIA).filter_map(row).collect())
    }

    /// What the marks show, and no more.
    pub fn sentences(&self) -> Vec<String> {
        let mut said = vec![];
        let people: Vec<String> = self
            .raters
            .iter()
            .map(|(name, marks)| format!("{name} ({marks} of {} marks)", self.marks_of_all))
            .collect();
        said.push(format!("Marks of {}.", people.join(", ")));
        for pair in &self.pairs {
            let Some(Mean { mean, half_width: Some(half), count }) = pair.difference else { continue };
            let [first, second] = [pair.first, pair.second].map(|number| &self.models[number].writer.path);
            said.push(match mean.abs() > half {
                true => {
                    let (better, worse) = if mean > 0.0 { (first, second) } else { (second, first) };
                    format!(
                        "{better} is marked {:.2} ± {half:.2} better than {worse}, over {count} prompts.",
                        mean.abs()
                    )
                }
                false => format!("The marks show no difference between {first} and {second}."),
            });
        }
        if self.raters.len() < 2 {
            said.push("One person's marks do not say whether others would agree.".to_owned());
        }
        said
    }

    /// Writes all numbers into a folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Written, StudyError> {
        let (json, csv) = (folder.join("tally.json"), folder.join("tally.csv"));
        let store =
            |path: &Path, text: String| write_entry(path, &[text.as_bytes()]).map_err(file("write", path));
        store(&json, serde_json::to_string_pretty(self).unwrap_or_default() + "\n")?;
        let columns = CRITERIA.iter().map(|(name, _)| *name).chain(["overall"]);
        let columns = columns.flat_map(|name| [name.to_owned(), format!("{name}_half_width")]);
        let mut text = row(["model", "layers"].map(str::to_owned).into_iter().chain(columns));
        for model in &self.models {
            let fixed = [model.writer.path.clone(), model.writer.layers.clone()];
            let numbers = model.by_criterion.iter().copied().chain([model.overall]).flat_map(|mean| {
                let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
                [number(mean.map(|mean| mean.mean)), number(mean.and_then(|mean| mean.half_width))]
            });
            text.push_str(&row(fixed.into_iter().chain(numbers)));
        }
        store(&csv, text)?;
        Ok(Written { json, csv })
    }
}
