//! `linc eval`: how good a model is.

use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_device::signals;
use linc_device::words::thousands;
use linc_driver::{PassSetting, Precision};
use linc_eval::code::Sandbox;
use linc_eval::task::{self, Chance, Setting, Task};
use linc_eval::tokens::Bos;
use linc_eval::{EvalError, Folder, ModelScorer, Observer, Prepared, Running, TaskResult, evaluate, prepare};
use linc_infer::Sampling;
use serde_json::json;

use crate::args::EvalArgs;
use crate::compile::{one_of, pass_setting};
use crate::device::device;
use crate::hugging_face::subject;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::table::table;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: the same command goes on where this ends (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once: the same command goes on behind the last samples that were kept\n",
};

pub(crate) fn run(args: &EvalArgs) -> Result<ExitCode> {
    let (Some(path), Some(folder), false) = (&args.model, &args.out, args.list_tasks) else {
        return list();
    };
    let tasks = tasks(args)?;
    let sandbox = sandbox(args, &tasks)?;
    let bos = bos(&args.bos)?;
    let precision: Precision = pass_setting(&args.precision)?;
    let stop = log::catch(NOTICES);
    let bar = Progress::new();
    let subject = match subject(path, &folder.join("imported"), &bar)? {
        Ok(subject) => subject,
        Err(code) => return Ok(code),
    };
    let threads = (args.threads > 0).then_some(args.threads);
    let described = device(&args.device, args.threads, &bar)?.describe();
    let vocab = vocab(args, &tasks, subject.model.sizes.vocab_size)?;
    let context = args.context.unwrap_or(subject.state.model.seq_len);
    let setting = Setting {
        data: args.data.clone(),
        text: args.text.clone(),
        text_field: args.text_field.clone(),
        requests: args.requests.clone(),
        tokenizer: subject.tokenizer.as_ref(),
        bos,
        context,
        vocab,
        stride: args.stride,
        shots: args.shots,
        limit: args.limit,
        lengths: args.lengths.clone(),
        completions: args.completions,
        temperature: args.temperature,
        sandbox: sandbox.as_ref(),
        seed: args.seed,
        stop,
    };
    let policy = subject.tokenizer.as_ref().map(|tokenizer| bos.describe(tokenizer));
    let mut asked = json!({
        "context": context,
        "precision": precision.name(),
        "bos": policy,
        "stride": args.stride,
        "shots": args.shots,
        "limit": args.limit,
        "lengths": args.lengths,
        "seed": args.seed,
    });
    // Results of before there was a choice are of all tokens of the model.
    if let Some(vocab) = args.vocab {
        asked["vocab"] = json!(vocab);
    }
    let mut observer = Shown { bar: bar.clone() };
    // What files lack, and what has no room, is said before a model is asked for minutes.
    let prepared: Result<Vec<Prepared<'_>>, EvalError> =
        tasks.iter().map(|task| prepare(task, &setting, &mut observer)).collect();
    let interrupted = || signals::exit_code().map(ExitCode::from);
    let prepared = match (prepared, interrupted()) {
        (Err(_), Some(code)) => return Ok(code),
        (prepared, _) => prepared?,
    };
    let mut results = Folder::open(folder, &subject.identity(), &asked)?;
    let watched = bar.clone();
    let watch = move |device: &mut dyn linc_device::Device| device.watch(watched.of_kernels());
    let running =
        Running { context, precision, bos, device: args.device, threads, stop, watch: Box::new(watch) };
    let (model, checkpoint) = (subject.model.clone(), subject.checkpoint.clone());
    let mut scorer = ModelScorer::new(model, checkpoint, subject.tokenizer.clone(), running);
    let mut found: Vec<TaskResult> = vec![];
    for task in &prepared {
        let result = evaluate(&mut scorer, task, &setting, &mut results, &mut observer);
        let Some(result) = (match (result, interrupted()) {
            (Err(_), Some(_)) => None,
            (result, _) => result?,
        }) else {
            bar.clear();
            return Ok(interrupted().unwrap_or(ExitCode::from(130)));
        };
        found.push(result);
        let about = json!({
            "linc": env!("CARGO_PKG_VERSION"),
            "model": subject.identity(),
            "path": path.display().to_string(),
            "device": described,
            "setting": asked,
        });
        results.save(about, &found)?;
    }
    bar.clear();
    let policy = policy.map_or_else(String::new, |policy| format!("; {policy}"));
    out::line(format_args!("{}, layers {}", subject.model.title(), subject.model.layer_map()))?;
    out::line(format_args!("context {context}, {}{policy}\n", precision.name()))?;
    out::line(summary(&found))?;
    for result in found.iter().filter(|result| result.cut > 0) {
        let [cut, all] = [result.cut, result.samples].map(|count| thousands(count as u64));
        let name = result.task.name;
        out::line(format_args!(
            "{name}: {cut} of {all} samples are longer than the context, and lost their beginning"
        ))?;
    }
    for result in found.iter().filter(|result| result.left_out > 0) {
        let all = thousands((result.samples + result.left_out) as u64);
        let (left_out, name) = (thousands(result.left_out as u64), result.task.name);
        out::line(format_args!(
            "{name}: {left_out} of {all} samples are longer than the context, and were left out"
        ))?;
    }
    out::line(format_args!("\nWrote {}", folder.join("results.json").display()))?;
    for result in found.iter().filter(|result| result.task.writes_programs()) {
        let name = format!("{}_completions.jsonl", result.task.name);
        let run = match sandbox {
            Some(_) => "with what became of them",
            None => "which were not run: the same command with --run-code does that, in a sandbox",
        };
        out::line(format_args!("Wrote {}: programs, {run}", folder.join(name).display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The tasks that are asked for, and those that a file asks for.
fn tasks(args: &EvalArgs) -> Result<Vec<Task>> {
    let mut names = args.tasks.clone();
    for (name, given) in [("text", args.text.is_some()), ("requests", args.requests.is_some())] {
        if given && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        bail!("no task is asked for\n  help: --tasks NAMES; linc eval --list-tasks lists them");
    }
    let tasks = task::chosen(&names)?;
    for (option, given) in [("stride", args.stride.is_some()), ("lengths", !args.lengths.is_empty())] {
        if given && !tasks.iter().any(|task| task.options.contains(&option)) {
            let all = task::all();
            let reads: Vec<&str> =
                all.iter().filter(|task| task.options.contains(&option)).map(|task| task.name).collect();
            bail!(
                "--{option} is read by none of the tasks that are asked for\n  help: leave it out; it is for {}",
                reads.join(", ")
            );
        }
    }
    Ok(tasks)
}

/// Where programs run that the model writes, if they are to be run; what is asked of them is checked.
fn sandbox(args: &EvalArgs, tasks: &[Task]) -> Result<Option<Sandbox>> {
    let given = [
        ("--run-code", args.run_code),
        ("--completions", args.completions > 1),
        ("--temperature", args.temperature.is_some()),
    ];
    let writes = tasks.iter().any(Task::writes_programs);
    if let Some((option, _)) = given.iter().find(|(_, given)| *given && !writes) {
        bail!("{option} is for programs, and no task has any written\n  help: --tasks humaneval");
    }
    Sampling { temperature: args.temperature.unwrap_or(0.0), ..Sampling::default() }.check()?;
    Ok(args.run_code.then(Sandbox::open).transpose()?)
}

/// The tokens that tasks on tokens draw from, which the model has to have.
fn vocab(args: &EvalArgs, tasks: &[Task], of_model: usize) -> Result<usize> {
    match args.vocab {
        Some(_) if !tasks.iter().any(|task| task.chance == Chance::Vocab) => {
            bail!("--vocab is for tasks on tokens, and no such task is asked for\n  help: leave it out")
        }
        Some(vocab) if vocab > of_model => {
            bail!("--vocab is {vocab}, and the model has {of_model} tokens\n  help: give at most as many")
        }
        given => Ok(given.unwrap_or(of_model)),
    }
}

fn bos(word: &str) -> Result<Bos> {
    match Bos::ALL.iter().find(|(name, _)| *name == word) {
        Some((_, bos)) => Ok(*bos),
        None => bail!("--bos is \"{word}\"; expected {}", one_of(word, &Bos::ALL.map(|(name, _)| name))),
    }
}

fn list() -> Result<ExitCode> {
    let row = |task: &Task| format!("{:<22} {}", task.name, task.about);
    let rows: Vec<String> = task::all().iter().map(row).collect();
    out::line(rows.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Measures for people: those of each task, and of its parts where they are few.
fn summary(found: &[TaskResult]) -> String {
    const MOST_GROUPS: usize = 12;
    let number = |value: f64| match value.abs() {
        ..1e6 => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    };
    let mut rows = vec![];
    for result in found {
        let first = |name: &&String| (*name != result.task.metric, !name.contains("perplexity"));
        let mut names: Vec<&String> =
            result.metrics.keys().filter(|name| !name.contains("_after_")).collect();
        names.sort_by_key(first);
        for (at, name) in names.into_iter().enumerate() {
            let estimate = &result.metrics[name];
            let task = if at == 0 {
                format!("{} v{}", result.task.name, result.task.version)
            } else {
                String::new()
            };
            let interval = estimate
                .ci95
                .map_or_else(String::new, |[low, high]| format!("{} .. {}", number(low), number(high)));
            let chance = result.chance.filter(|_| name.starts_with("acc"));
            rows.push(vec![
                task,
                name.clone(),
                number(estimate.value),
                estimate.stderr.map_or_else(String::new, number),
                interval,
                chance.map_or_else(String::new, number),
                thousands(estimate.samples as u64),
            ]);
        }
        for (group, metrics) in result.groups.iter().filter(|_| result.groups.len() <= MOST_GROUPS) {
            if let Some(estimate) = metrics.get(result.task.metric) {
                let mut row = vec![String::new(); 7];
                row[1] = group.clone();
                row[2] = number(estimate.value);
                row[6] = thousands(estimate.samples as u64);
                rows.push(row);
            }
        }
    }
    table(&["task", "measure", "value", "stderr", "95 %", "chance", "samples"], &rows)
}

/// Says how far it is.
struct Shown {
    bar: Progress,
}

impl Observer for Shown {
    fn preparing(&mut self, _: &str) {}

    fn progress(&mut self, task: &str, done: usize, total: usize, before: usize) {
        let words = format!("{task} {}/{}", thousands(done as u64), thousands(total as u64));
        if done == before && before > 0 {
            log::say(format_args!(
                "{task}: {} of {} samples are there already",
                thousands(before as u64),
                thousands(total as u64)
            ));
        }
        self.bar.show(task, &words, done as u64, total as u64);
    }
}
