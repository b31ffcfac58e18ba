//! `linc import` and `linc export`: Hugging Face's folders as checkpoints, and checkpoints as such.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use linc_checkpoint::CheckpointError;
use linc_checkpoint::hugging_face::{self, Evaluated, ExportOptions, MODEL_TOML, usual_folder};
use linc_device::signals;
use linc_device::words::{bytes, count, thousands};
use linc_driver::Source;
use linc_eval::Subject;

use crate::args::{ExportArgs, ImportArgs};
use crate::log;
use crate::out;
use crate::progress::Progress;
use crate::shipped::SHIPPED;

/// What requests to end are answered with.
const NOTICES: signals::Notices = signals::Notices {
    first: "\nInterrupted: nothing is written (press Ctrl-C again to quit at once)\n",
    second: "\nEnded at once: a folder of the name with .partial behind it may be left\n",
};

/// The architecture of Llama models.
const LLAMA: &str = "models/llama3.linc";

/// Opens the model that a command asks, from Hugging Face's folder by way of `imported`, and says what is to be known of it;
/// the exit code where somebody ended that.
pub(crate) fn subject(path: &Path, imported: &Path, bar: &Progress) -> Result<Result<Subject, ExitCode>> {
    let opened = Subject::open(path, imported, &llama()?, &mut tell(bar, "import"));
    bar.clear();
    let subject = match (opened, signals::exit_code()) {
        (Err(_), Some(code)) => return Ok(Err(ExitCode::from(code))),
        (opened, _) => opened?,
    };
    subject.notes.iter().for_each(log::note);
    Ok(Ok(subject))
}

pub(crate) fn import(args: &ImportArgs) -> Result<ExitCode> {
    let folder = args.out.clone().unwrap_or_else(|| usual_folder(&args.folder));
    let bar = Progress::new();
    let mut tell = tell(&bar, "import");
    let imported = match hugging_face::import(&args.folder, &folder, &llama()?, &mut tell) {
        Ok(imported) => imported,
        Err(error) => return ended(error),
    };
    bar.clear();
    imported.notes.iter().for_each(log::note);
    let model = &imported.model;
    out::line(format_args!(
        "Imported {}: {}, {} parameters from {}, layers {}",
        args.folder.display(),
        model.title(),
        thousands(model.sizes.params),
        imported.formats,
        model.layer_map()
    ))?;
    out::line(format_args!("Wrote {}\n", folder.display()))?;
    let folder = as_word(&folder);
    if imported.reads_text {
        out::line(format_args!("linc generate --checkpoint {folder} --prompt \"..\""))?;
    }
    let tokenizer = match imported.has_tokenizer {
        true => format!(" --model.tokenizer_path {folder}"),
        false => String::new(),
    };
    let train =
        format!("--model.path {folder}/{MODEL_TOML}{tokenizer} --checkpoint.initial_load_path {folder}");
    out::line(format_args!("linc train CONFIG.toml {train}"))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn export(args: &ExportArgs) -> Result<ExitCode> {
    let options =
        ExportOptions { element: args.dtype, shard_bytes: args.max_shard_size.0, architecture: llama()? };
    let bar = Progress::new();
    let mut tell = tell(&bar, "write and read again");
    let exported = match hugging_face::export(&args.checkpoint, &args.out, &options, &mut tell) {
        Ok(exported) => exported,
        Err(error) => return ended(error),
    };
    bar.clear();
    exported.notes.iter().for_each(log::note);
    let model = &exported.model;
    out::line(format_args!(
        "Exported {}: {}, {} parameters as {}, {} in {}, layers {}",
        args.checkpoint.display(),
        model.title(),
        thousands(model.sizes.params),
        args.dtype.name(),
        bytes(exported.bytes),
        count(exported.shards, "file"),
        model.layer_map()
    ))?;
    out::line(match exported.logits {
        Evaluated::Same { rounding: 0.0 } => "Imported it again: every weight and the logits of a short text have the same bits".to_owned(),
        Evaluated::Same { rounding } => format!(
            "Imported it again: every weight and the logits of a short text have the same bits; rounding to {} moved logits by up to {rounding:.2e}",
            args.dtype.name()
        ),
        Evaluated::TooLarge => "Imported it again: every weight has the same bits; the model does not fit this machine's memory, so its logits were not compared".to_owned(),
    })?;
    let folder = args.out.display();
    let trust = if exported.own_class { ", trust_remote_code=True" } else { "" };
    out::line(format_args!(
        "Wrote {folder}\n\nAutoModelForCausalLM.from_pretrained({:?}{trust})",
        folder.to_string()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows how far it is, until somebody asks to end it.
pub(crate) fn tell<'a>(bar: &'a Progress, what: &'a str) -> impl FnMut(u64, u64) -> bool + 'a {
    let stop = log::catch(NOTICES);
    move |done, total| {
        bar.show(what, &format!("{what} {} of {}", bytes(done), bytes(total)), done, total);
        !stop.load(Ordering::Relaxed)
    }
}

/// A path as a word of a shell's command.
pub(crate) fn as_word(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| {
        c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ',' | '=' | ':' | '@' | '%')
    };
    match path.chars().all(is_plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}

/// What it was asked to end for is no error.
fn ended(error: CheckpointError) -> Result<ExitCode> {
    signals::exit_code().map_or_else(|| Err(error.into()), |code| Ok(ExitCode::from(code)))
}

pub(crate) fn llama() -> Result<Source> {
    match SHIPPED.architectures.iter().find(|file| file.path == LLAMA) {
        Some(file) => Ok(Source { path: file.path.to_owned(), text: file.text.to_owned() }),
        None => bail!("{LLAMA} is no part of this program"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        assert_eq!(as_word(Path::new("outputs/llama-3.2_1b")), "outputs/llama-3.2_1b");
        assert_eq!(as_word(Path::new("my models/it's $HOME")), "'my models/it'\\''s $HOME'");
    }
}
