//! HumanEval: functions in Python by their signatures and descriptions, each with a test.

use std::collections::BTreeMap;

use linc_infer::{InferError, Prompt, Sampling};
use serde_json::{Value, json};

use super::files::{find, json_lines, string};
use crate::code::{PASSED, Verdict};
use crate::error::EvalError;
use crate::record::Record;
use crate::sample::{Ask, Grade, Metric, Sample};
use crate::task::{Chance, Made, Setting, Task};

pub(crate) const TASKS: &[Task] = &[Task {
    name: "humaneval",
    version: 1,
    about: "functions in Python, run with their tests by --run-code: humaneval/HumanEval.jsonl.gz or HumanEval.jsonl",
    shots: None,
    options: &[],
    metric: "pass@1",
    chance: Chance::None,
    make,
}];

/// Tokens of a function at most; fewer where the context has no room for them.
const TOKENS: usize = 1024;
/// What begins behind a function that has ended.
const STOP: [&str; 5] = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"];
/// Where several completions are drawn: as of the paper's pass@1.
const TEMPERATURE: f64 = 0.2;
const TOP_P: f64 = 0.95;
/// Draws that one is passed in: measured for as many as there are completions.
const KS: [usize; 9] = [1, 2, 4, 8, 10, 16, 32, 64, 100];

fn make(_: &Task, setting: &Setting<'_>) -> Result<Made, EvalError> {
    let tokenizer = setting.tokenizer()?;
    let path = find(
        setting,
        &[
            "humaneval/HumanEval.jsonl.gz",
            "humaneval/HumanEval.jsonl",
            "HumanEval.jsonl.gz",
            "HumanEval.jsonl",
        ],
    )?;
    let lines = json_lines(&path)?;
    let wanted = setting.up_to(lines.len());
    let temperature = match (setting.temperature, setting.completions) {
        (Some(temperature), _) => temperature,
        (None, 1) => 0.0,
        (None, _) => TEMPERATURE,
    };
    let first = setting.bos.token(tokenizer, false);
    let sample = |(index, (line, object)): (usize, (usize, Value))| {
        let field = |name: &str| string(&path, line, &object, name);
        let (id, prompt) = (field("/task_id")?.to_owned(), field("/prompt")?.to_owned());
        let after = format!("\n{}\ncheck({})\n", field("/test")?, field("/entry_point")?);
        let read =
            Prompt::behind(first, tokenizer, &prompt, Some(1), setting.context).map_err(
                |error| match error {
                    InferError::Request { message, .. } => {
                        EvalError::line(&path, line, format!("{id}: {message}"), "give a larger --context")
                    }
                    other => other.into(),
                },
            )?;
        let read = read.ids.len();
        let tokens = TOKENS.min(setting.context - read);
        let draw = |number: usize| Sampling {
            temperature,
            top_p: if temperature > 0.0 { TOP_P } else { 1.0 },
            seed: setting.seed.wrapping_add(((index as u64) << 32) | number as u64),
            ..Sampling::default()
        };
        let draws = (0..setting.completions).map(draw).collect();
        Ok(Sample {
            id,
            group: String::new(),
            doc: json!({
                "prompt": prompt,
                "test": after,
                "canonical_solution": object["canonical_solution"],
                "completions": setting.completions,
                "temperature": temperature,
            }),
            ask: Ask::Write { prompt: prompt.clone(), tokens, stop: STOP.map(str::to_owned).to_vec(), draws },
            grade: Grade::Program { before: prompt, after },
        })
    };
    lines.into_iter().enumerate().take(wanted).map(sample).collect()
}

/// What is recorded of completions, and of what became of their programs where they were run.
pub(crate) fn recorded(completions: &[String], verdicts: Option<&[Verdict]>) -> Value {
    match verdicts {
        None => json!({ "completions": completions }),
        Some(verdicts) => {
            let words: Vec<&str> = verdicts.iter().map(Verdict::words).collect();
            json!({ "completions": completions, "results": words })
        }
    }
}

/// The completions of a record whose programs were not run yet.
pub(crate) fn not_run(record: &Record) -> Option<Vec<String>> {
    if !record.answer["results"].is_null() {
        return None;
    }
    let completions = record.answer["completions"].as_array()?;
    completions.iter().map(|text| Some(text.as_str()?.to_owned())).collect()
}

/// Of so many completions so many passed: how likely one of `k` passes, for each `k` up to their number.
pub(crate) fn graded(verdicts: &[Verdict]) -> Vec<Metric> {
    let passed = verdicts.iter().filter(|verdict| **verdict == Verdict::Passed).count();
    let share = |k: &usize| Metric {
        name: format!("pass@{k}"),
        sum: pass_at(verdicts.len(), passed, *k),
        weight: 1.0,
    };
    KS.iter().filter(|k| **k <= verdicts.len()).map(share).collect()
}

/// The unbiased estimator of the paper (2107.03374): one minus the share of the choices of `k` of `n` that have none of
/// the `c` that passed.
fn pass_at(n: usize, c: usize, k: usize) -> f64 {
    if n - c < k {
        return 1.0;
    }
    1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>()
}

/// Lines of completions as the published evaluation reads them, with what it adds where they were run.
pub(crate) fn official(records: &BTreeMap<String, Record>, samples: &[Sample]) -> String {
    let mut lines = String::new();
    for record in samples.iter().filter_map(|sample| records.get(&sample.id)) {
        let completions = record.answer["completions"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, completion) in completions.iter().enumerate() {
            let mut line = json!({ "task_id": record.id, "completion": completion });
            if let Some(result) = record.answer["results"][index].as_str() {
                line["passed"] = json!(result == PASSED);
                line["result"] = json!(result);
            }
            lines.push_str(&format!("{line}\n"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_mean_over_all_choices() {
        for n in 1..=7 {
            for c in 0..=n {
                for k in 1..=n {
                    // The first `c` passed.
                    let choices = (0u32..1 << n).filter(|choice| choice.count_ones() as usize == k);
                    let (all, some) = choices.fold((0, 0), |(all, some), choice| {
                        (all + 1, some + usize::from(choice & ((1 << c) - 1) != 0))
                    });
                    let expected = some as f64 / f64::from(all);
                    assert!((pass_at(n, c, k) - expected).abs() < 1e-12, "{n} {c} {k}");
                }
            }
        }
        let verdicts = [vec![Verdict::Passed], vec![Verdict::Failed("no".into()); 9]].concat();
        let names: Vec<String> = graded(&verdicts).into_iter().map(|metric| metric.name).collect();
        assert_eq!(names, ["pass@1", "pass@2", "pass@4", "pass@8", "pass@10"]);
        assert!((graded(&verdicts)[0].sum - 0.1).abs() < 1e-12);
    }
}
