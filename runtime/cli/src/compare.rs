//! `linc compare`: texts of several models side by side, and what people say of them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_device::signals;
use linc_device::words::count;
use linc_eval::Subject;
use linc_infer::Sampling;
use linc_study::compare::{self, Asked, Comparison, MOST_MODELS, Writer, tally::tally};

use crate::args::CompareArgs;
use crate::compile::pass_setting;
use crate::device::device;
use crate::hugging_face::subject;
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::table::table;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: nothing is written (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once: nothing is written\n",
};

pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    if args.tally {
        return count_marks(args);
    }
    if args.paths.len() < 2 || args.paths.len() > MOST_MODELS {
        bail!(
            "{} named; expected 2 to {MOST_MODELS}\n  help: linc compare outputs/ONE outputs/OTHER",
            count(args.paths.len(), "model")
        );
    }
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
        ..Sampling::default()
    };
    sampling.check()?;
    let prompts = Asked::prompts(args.prompts.as_deref())?;
    let precision = pass_setting(&args.running.precision)?;
    let stop = log::catch(NOTICES);
    let bar = Progress::new();
    let mut subjects = vec![];
    for (number, path) in args.paths.iter().enumerate() {
        let imported = args.out.join(format!("imported-{number}"));
        match subject(path, &imported, &bar)? {
            Ok(subject) => subjects.push(subject),
            Err(code) => return Ok(code),
        }
    }
    let asked = Asked {
        prompts,
        source: args.prompts.clone(),
        tokens: args.tokens,
        sampling,
        context: args.running.context.unwrap_or_else(|| compare::shared_context(&subjects)),
        precision,
    };
    let (mut writers, mut texts) = (vec![], vec![]);
    for (path, subject) in args.paths.iter().zip(&subjects) {
        let what = path.display().to_string();
        let shown = bar.clone();
        let mut told = |done: usize, total: usize| {
            shown.show(&what, &format!("{what} {done}/{total} texts"), done as u64, total as u64);
        };
        let device = device(&args.running.device, args.running.threads, &bar)?;
        let written = compare::texts(subject, &asked, device, stop, &mut told);
        bar.clear();
        let written = match (written, signals::exit_code()) {
            (Ok(None) | Err(_), Some(code)) => return Ok(ExitCode::from(code)),
            (written, _) => written?,
        };
        let Some(written) = written else { bail!("the work ended before its end") };
        if written.cut_short > 0 {
            log::note(format_args!(
                "{what}: {} cut short by the context of {}, before {}",
                count(written.cut_short, "text"),
                asked.context,
                count(asked.tokens, "token")
            ));
        }
        writers.push(writer(path, subject));
        texts.push(written.texts);
    }
    let comparison = Comparison::new(writers, asked.prompts, texts, sampling);
    let written = comparison.write(&args.out)?;
    let row = |writer: &Writer| {
        vec![writer.path.clone(), writer.model.clone(), writer.layers.clone(), writer.step.to_string()]
    };
    let rows: Vec<Vec<String>> = comparison.writers.iter().map(row).collect();
    out::line(table(&["model", "size", "layers", "step"], &rows))?;
    out::prose(format_args!(
        "\n{} of each, {}. The page says nothing of the models; {} does, and is not for those who judge.",
        count(comparison.prompts.len(), "text"),
        comparison.sampling,
        written.key.display()
    ))?;
    out::line(format_args!("Wrote {} and {}", written.page.display(), written.key.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn writer(path: &Path, subject: &Subject) -> Writer {
    Writer {
        path: path.display().to_string(),
        model: subject.model.title(),
        layers: subject.model.layer_map(),
        step: subject.state.step,
    }
}

/// What the marks on a comparison come to.
fn count_marks(args: &CompareArgs) -> Result<ExitCode> {
    let Some((folder, files)) = args.paths.split_first() else {
        bail!("no comparison is named\n  help: linc compare --tally outputs/compare")
    };
    let found = tally(folder, files)?;
    for (header, rows) in [found.models(), found.pairs(), found.agreements()] {
        if !rows.is_empty() {
            out::line(format_args!("{}\n", table(&header, &rows)))?;
        }
    }
    for sentence in found.sentences() {
        out::prose(sentence)?;
    }
    let written = found.write(folder)?;
    out::line(format_args!("\nWrote {} and {}", written.json.display(), written.csv.display()))?;
    Ok(ExitCode::SUCCESS)
}
