//! `linc place`: which layers of a softmax model become linear.

mod finetune;

use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_device::signals;
use linc_driver::{Placement, Ratio, layer_kinds, layer_map};
use linc_eval::Subject;
use linc_eval::sample::Sample;
use linc_eval::stats::Estimate;
use linc_eval::task::{self, Setting};
use linc_eval::tokens::Bos;
use linc_study::StudyError;
use linc_study::place::{PlaceSettings, Placed, Placing, Sequences, Target, Watcher, shown};

use crate::args::{Format, PlaceArgs};
use crate::device::device;
use crate::hugging_face::subject;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::table::table;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: what was found so far is written (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once: what was found is not written\n",
};

/// Tokens of a sequence at most, if nobody says how many.
const CONTEXT: usize = 512;
/// Tokens that are read at once, about.
const TOKENS: usize = 2048;

pub(crate) fn run(args: &PlaceArgs) -> Result<ExitCode> {
    let ratio: Ratio = args.ratio.parse()?;
    if !(args.align_lr.is_finite() && args.align_lr >= 0.0) {
        bail!("--align-lr is {}; expected a number of at least 0", args.align_lr);
    }
    let target = Target::new(&args.out)?;
    target.check()?;
    let folder = &target.folder;
    let config = finetune::config(args, ratio, folder)?;
    let stop = log::catch(NOTICES);
    let bar = Progress::new();
    let subject = match subject(&args.checkpoint, &folder.join("imported"), &bar)? {
        Ok(subject) => subject,
        Err(code) => return Ok(code),
    };
    let trained = subject.state.model.seq_len;
    let usual = if subject.model.reads_seq { trained } else { trained.min(CONTEXT) };
    let context = args.context.unwrap_or(usual);
    if context > trained {
        bail!(
            "--context is {context}, and the model was trained on sequences of {trained} tokens\n  help: {trained} at most"
        );
    }
    let batch = args.batch_size.unwrap_or((TOKENS / context).clamp(1, 16));
    let seed = args.seed.unwrap_or_default();
    let samples = match (samples(args, &subject, context), signals::exit_code()) {
        (Err(_), Some(code)) => return Ok(ExitCode::from(code)),
        (samples, _) => samples?,
    };
    let sequences = Sequences::draw(&samples, context, args.sequences, batch, seed)?;
    let settings = PlaceSettings {
        ratio,
        batch,
        align_steps: args.align_steps,
        align_rate: args.align_lr,
        points: args.points,
        gate_steps: args.gate_steps,
        random: args.random,
        swaps: args.swaps,
        seed,
    };
    let device = device(&args.device, args.threads, &bar)?;
    let mut watcher = Shown { bar: bar.clone() };
    watcher.message(&format!(
        "{}, {} layers: {} sequences of {context} tokens to score and search on, as many to compare on, {batch} at once",
        subject.model.title(),
        subject.model.sizes.n_layers,
        sequences.search.len()
    ));
    let placing = Placing::new(&subject.model, &subject.checkpoint, sequences, settings, device, stop);
    let mut placing = match placing {
        Err(StudyError::Interrupted) => return Ok(ExitCode::from(signals::exit_code().unwrap_or(130))),
        placing => placing?,
    };
    // A file that cannot be written is known before the work is done.
    let incomplete = target.incomplete();
    placing.placed.write(&incomplete)?;
    let done = placing.run(&mut watcher);
    bar.clear();
    let file = if done.is_ok() { &target.file } else { &incomplete };
    let scores = placing.placed.write(file)?;
    match done {
        Err(StudyError::Interrupted) => {
            log::ended(format_args!("Wrote {}, which is not complete", file.display()));
            return Ok(ExitCode::from(signals::exit_code().unwrap_or(130)));
        }
        done => done?,
    }
    let hybrid = placing.write_hybrid(&subject, folder)?;
    placing.placed.write(file)?;
    target.remove_incomplete();
    // Training may take long, and needs nothing of these, least of all their memory.
    drop(subject);
    let placed = placing.into_placed();
    match args.format {
        Format::Json => out::line(serde_json::to_string(&placed)?)?,
        Format::Text => {
            out::line(text(&placed))?;
            let (file, scores, hybrid) = (file.display(), scores.display(), hybrid.display());
            out::line(format_args!("\nWrote {file}, {scores} and the hybrid, {hybrid}"))?;
        }
    }
    match config {
        Some(config) => finetune::run(args, &placed, &config, &hybrid, folder),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The samples that layers are weighed on.
fn samples(args: &PlaceArgs, subject: &Subject, context: usize) -> Result<Vec<Sample>> {
    let mut names = args.tasks.clone();
    if args.text.is_some() && !names.iter().any(|name| name == "text") {
        names.push("text".into());
    }
    if names.is_empty() {
        names.push("mqar".into());
        if subject.tokenizer.is_some() {
            log::note(
                "without --text, layers are weighed on pairs of tokens that are drawn (--tasks mqar), which may be far from what the model was trained on",
            );
        }
    }
    let setting = Setting {
        data: args.data.clone(),
        text: args.text.clone(),
        text_field: args.text_field.clone(),
        requests: None,
        tokenizer: subject.tokenizer.as_ref(),
        bos: Bos::Auto,
        context,
        vocab: subject.model.sizes.vocab_size,
        stride: None,
        shots: None,
        completions: 1,
        temperature: None,
        sandbox: None,
        limit: None,
        lengths: vec![],
        seed: args.seed.unwrap_or_default(),
        stop: log::catch(NOTICES),
    };
    let mut samples = vec![];
    for task in task::chosen(&names)? {
        samples.extend((task.make)(&task, &setting)?.samples);
    }
    Ok(samples)
}

/// Scores of the layers, and placements beside each other.
fn text(placed: &Placed) -> String {
    let map = |linear: &[usize]| {
        let kinds = layer_kinds(placed.layers, None, &Placement::Layers(linear.to_vec()));
        layer_map(&kinds.unwrap_or_default())
    };
    let number = |value: f64| format!("{value:.4}");
    let method = |name: &str| placed.methods.iter().find(|method| method.name == name);
    let rows = (0..placed.layers).map(|layer| {
        let score = |name: &str| {
            let scores = method(name).and_then(|method| method.scores.as_ref());
            scores.map_or_else(|| "-".to_owned(), |scores| number(scores[layer]))
        };
        let one = placed.one_layer.as_ref();
        let mean = |scores: Option<&linc_study::place::Scores>| {
            scores.map_or_else(|| "-".to_owned(), |scores| shown(&scores.layers[layer]))
        };
        vec![
            layer.to_string(),
            if placed.linear.contains(&layer) { "linear" } else { "softmax" }.to_owned(),
            mean(placed.path.as_ref().map(|path| &path.scores)),
            score("slice"),
            mean(one.map(|one| &one.removal)),
            mean(one.map(|one| &one.addition)),
            score("halo"),
            score("trained gates"),
        ]
    });
    let header =
        ["layer", "becomes", "path ± 95 %", "slice", "removal ± 95 %", "addition ± 95 %", "halo", "gate"];
    let mut text = table(&header, &rows.collect::<Vec<_>>());
    if let Some(alignment) = &placed.alignment {
        let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        text = format!(
            "Linear branches differed from softmax branches by {:.3} of their squares, and by {:.3} after {} steps\n\n{text}",
            mean(&alignment.before),
            mean(&alignment.after),
            alignment.steps
        );
    }
    if let Some(path) = &placed.path {
        text.push_str(&format!(
            "\n\nScores of the path add up to {:.4}; all layers linear are {} from the softmax model",
            path.sum,
            shown(&path.divergence)
        ));
    }
    if let Some(search) = &placed.search {
        let swaps: Vec<String> =
            search.swaps.iter().map(|swap| format!("{} for {}", swap.to_linear, swap.to_softmax)).collect();
        let swaps = if swaps.is_empty() { "none was better".to_owned() } else { swaps.join(", ") };
        text.push_str(&format!(
            "\nSearch from {}, of {} swaps: {swaps}; {:.0} % of their steps were run",
            search.from,
            search.tried,
            100.0 * search.steps_done
        ));
    }
    let interval = |estimate: &Estimate| {
        estimate.ci95.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:+.4} .. {high:+.4}"))
    };
    let rows = placed.compared.iter().map(|row| {
        vec![
            row.name.clone(),
            map(&row.linear),
            number(row.divergence.value),
            format!("{:+.4}", row.difference.value),
            interval(&row.difference),
            format!("{:.1}%", 100.0 * row.recall.value),
            number(row.loss.value),
        ]
    });
    let header = ["placement", "layers", "KL", "to search", "95 %", "recall", "loss"];
    text.push_str(&format!("\n\n{}\n\n{}", table(&header, &rows.collect::<Vec<_>>()), placed.setting()));
    text
}

/// How far it is.
struct Shown {
    bar: Progress,
}

impl Watcher for Shown {
    fn message(&mut self, text: &str) {
        self.bar.suspend(|| log::say(text));
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        self.bar.show(what, &format!("{what} {done}/{total}"), done, total);
    }
}
