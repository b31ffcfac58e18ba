//! `linc look`: what each head of a model does with a text.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use linc_checkpoint::hugging_face::usual_folder;
use linc_device::signals;
use linc_study::look::{self, Look, Text, Without};

use crate::args::LookArgs;
use crate::compile::one_of;
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

/// What the loss can be measured without, in words.
const WITHOUT: [(&str, Without); 3] =
    [("nothing", Without::Nothing), ("attentions", Without::Attentions), ("heads", Without::Heads)];

pub(crate) fn run(args: &LookArgs) -> Result<ExitCode> {
    let Some((_, without)) = WITHOUT.into_iter().find(|(word, _)| *word == args.without) else {
        bail!(
            "--without is \"{}\"; expected {}",
            args.without,
            one_of(&args.without, &WITHOUT.map(|(word, _)| word))
        )
    };
    let text = match (&args.text, &args.ids) {
        (Some(path), _) => Text::File(path.clone()),
        (None, Some(path)) => Text::Ids(path.clone()),
        (None, None) => bail!("no text is named\n  help: linc look MODEL --text FILE"),
    };
    let folder = args.out.clone().unwrap_or_else(|| usual(&args.model));
    let stop = log::catch(NOTICES);
    let bar = Progress::new();
    let subject = match subject(&args.model, &folder.join("imported"), &bar)? {
        Ok(subject) => subject,
        Err(code) => return Ok(code),
    };
    let device = device(&args.device, args.threads, &bar)?;
    let asked = Look {
        text,
        context: args.context.unwrap_or(subject.state.model.seq_len),
        sequences: args.sequences,
        beyond: args.beyond,
        cells: args.cells,
        without,
        seed: args.seed,
        threads: device.threads(),
    };
    let shown = bar.clone();
    let mut tell = move |what: &str, done: usize, total: usize| {
        shown.show("look", &format!("{what} {done}/{total}"), done as u64, total as u64);
    };
    let looked = look::look(&subject, &asked, device, stop, &mut tell);
    bar.clear();
    let looked = match (looked, signals::exit_code()) {
        (Ok(None) | Err(_), Some(code)) => return Ok(ExitCode::from(code)),
        (looked, _) => looked?,
    };
    let Some(looked) = looked else { bail!("the work ended before its end") };
    let written = looked.write(&folder)?;
    let (header, rows) = looked.table();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    out::line(table(&header, &rows))?;
    out::line("")?;
    for sentence in looked.sentences() {
        out::prose(sentence)?;
    }
    out::line(format_args!(
        "\nWrote {}, {}, {} and {}",
        written.page.display(),
        written.json.display(),
        written.csv.display(),
        written.maps.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `look` in the folder of the run that a model is of, or in the one that an import of it would have.
fn usual(model: &Path) -> PathBuf {
    if model.join("config.json").is_file() {
        return usual_folder(model).join("look");
    }
    let is_step = model.parent().is_some_and(|parent| parent.ends_with("checkpoint"));
    let run = if is_step { model.parent().and_then(Path::parent) } else { None };
    run.unwrap_or(model).join("look")
}
