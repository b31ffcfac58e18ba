//! Text as the settings ask for it: of files or shards, alone or mixed, with what is held out or named to validate on.

use std::collections::HashSet;

use linc_device::words::count;

use super::corpus::Corpus;
use super::error::DataError;
use super::files::{self, Wanted};
use super::loading::Loading;
use super::settings::{DataSettings, DatasetKind};
use super::shards::{Part, Shards, folder_of};
use super::text::{Packing, TextBatches, TextSource, TextValidation};
use super::tokenizer::{Tokenizer, losses};
use super::tokens::Tokens;
use super::{Data, Reading, TrainingData, ValidationData, check_vocabulary, split, stories};

/// A text that settings name.
struct Named<'a> {
    kind: DatasetKind,
    path: Option<&'a str>,
    field: &'a str,
    weight: f64,
    /// The setting with the path.
    setting: &'static str,
}

/// What a text is before it is tokens.
enum Source {
    Documents(Vec<String>),
    Shards(std::path::PathBuf),
}

/// Everything that reads a text needs.
struct Reader<'a, 'l> {
    tokenizer: &'a Tokenizer,
    loading: &'a mut Loading<'l>,
}

/// The texts to train on, with what they are validated on.
///
/// # Errors
/// As [`Data::open`].
pub(super) fn text(
    settings: &DataSettings,
    reading: Reading<'_>,
    loading: &mut Loading<'_>,
) -> Result<Data, DataError> {
    let Reading { batch_size, seq_len, seed, validates, tokenizer_path, vocab_size } = reading;
    let tokenizer = Tokenizer::from_setting(tokenizer_path)?;
    check_vocabulary(&tokenizer.name(), tokenizer.vocab_size(), vocab_size)?;
    for note in tokenizer.notes() {
        loading.note(note);
    }
    let named = named(settings);
    let name = match &named[..] {
        [only] => only.name(),
        several => format!("a mixture of {}", count(several.len(), "dataset")),
    };
    let mut reader = Reader { tokenizer: &tokenizer, loading };
    let own = match settings.validation.dataset.filter(|_| validates) {
        Some(kind) => {
            let validation = &settings.validation;
            let path = validation.dataset_path.as_deref();
            let field = &settings.training.text_field;
            Some(Named { kind, path, field, weight: 1.0, setting: "validation.dataset_path" })
        }
        None => None,
    };
    let own_source = own.as_ref().map(|own| reader.source(own)).transpose()?;
    let share = settings.held_out_share(validates);
    let (mut sources, mut parts) = (Vec::new(), Vec::new());
    for dataset in &named {
        let (training, held_out) = match reader.source(dataset)? {
            Source::Documents(documents) => {
                if let (Some(own), Some(Source::Documents(others))) = (&own, &own_source)
                    && let Some(warning) = seen_in_training(&documents, others, reader.loading)?
                {
                    reader.loading.note(&format!("{}: {warning}", own.name()));
                }
                reader.tokens(documents, share)?
            }
            Source::Shards(folder) => {
                let open = |part| Shards::open(&folder, part, &tokenizer).map(Tokens::Shards);
                let open = |part| open(part).map_err(|error| error.of(dataset.setting));
                let held_out = if share > 0.0 { Some(open(Part::Validation)?) } else { None };
                (open(Part::Training)?, held_out)
            }
        };
        sources.push(TextSource { name: dataset.name(), tokens: training, weight: dataset.weight });
        parts.extend(held_out);
    }
    let held_out_name = own.as_ref().map_or_else(|| name.clone(), Named::name);
    match own_source {
        Some(Source::Documents(documents)) => {
            let corpus = Corpus::new(documents, &tokenizer, true, reader.loading)?;
            parts.push(Tokens::Memory(corpus));
        }
        // Whoever names shards to validate on has made them for that.
        Some(Source::Shards(folder)) => {
            let shards = Shards::open(&folder, Part::Training, &tokenizer);
            parts.push(Tokens::Shards(shards.map_err(|error| error.of("validation.dataset_path"))?));
        }
        None => {}
    }
    let borders = tokenizer.borders();
    let packing =
        Packing { batch_size, seq_len, seed, shuffle: settings.training.shuffle, held_out: share, borders };
    let batches = TextBatches::new(sources, packing)?;
    let held_out = TextValidation::new(parts, batch_size, seq_len);
    if validates && held_out.is_none() {
        return Err(DataError::NothingHeldOut { source_name: held_out_name });
    }
    let summary = summary(&name, &batches, held_out.as_ref(), &tokenizer);
    Ok(Data {
        training: TrainingData::Text(batches),
        validation: held_out.map(ValidationData::Text),
        tokenizer: Some(tokenizer),
        summary,
    })
}

/// The texts to train on.
fn named(settings: &DataSettings) -> Vec<Named<'_>> {
    let training = &settings.training;
    if training.datasets.is_empty() {
        return vec![Named {
            kind: training.dataset,
            path: training.dataset_path.as_deref(),
            field: &training.text_field,
            weight: 1.0,
            setting: "training.dataset_path",
        }];
    }
    let entries = training.datasets.iter().map(|dataset| Named {
        kind: DatasetKind::Text,
        path: Some(&dataset.path),
        field: dataset.text_field.as_deref().unwrap_or(&training.text_field),
        weight: dataset.weight,
        setting: "training.datasets",
    });
    entries.collect()
}

impl Named<'_> {
    fn name(&self) -> String {
        self.path.unwrap_or(self.kind.word()).to_owned()
    }
}

impl Reader<'_, '_> {
    fn source(&mut self, named: &Named<'_>) -> Result<Source, DataError> {
        let wanted = Wanted { field: named.field, allows_nul: !self.tokenizer.reserves_nul() };
        match (named.kind, named.path) {
            (DatasetKind::Text, Some(path)) => match folder_of(path) {
                Some(folder) => Ok(Source::Shards(folder)),
                None => {
                    let documents = files::read_documents(path, wanted, self.loading);
                    Ok(Source::Documents(documents.map_err(|error| error.of(named.setting))?))
                }
            },
            // The config has refused a missing path and text beside recall.
            (DatasetKind::Text | DatasetKind::Mqar, _) => {
                Err(DataError::Missing { path: "dataset_path".into() })
            }
            (DatasetKind::Stories, _) => Ok(Source::Documents(stories::documents())),
        }
    }

    /// Documents as tokens, a share of them held out.
    fn tokens(&mut self, documents: Vec<String>, share: f64) -> Result<(Tokens, Option<Tokens>), DataError> {
        let parts = split::split(documents, share);
        if let Some(warning) = losses::check(self.tokenizer, &parts.training)? {
            self.loading.note(&warning);
        }
        let held_out = match share > 0.0 {
            true => Some(Corpus::new(parts.held_out, self.tokenizer, true, self.loading)?),
            false => None,
        };
        let training = Corpus::new(parts.training, self.tokenizer, false, self.loading)?;
        Ok((Tokens::Memory(training), held_out.map(Tokens::Memory)))
    }
}

/// What to say of documents to validate on that are trained on too; nothing if there are none.
pub(super) fn seen_in_training(
    training: &[String],
    validation: &[String],
    loading: &mut Loading<'_>,
) -> Result<Option<String>, DataError> {
    let total = training.iter().map(|document| document.len() as u64).sum();
    let seen = loading.watched("Comparing", total, |watch| {
        let lengths: HashSet<usize> = validation.iter().map(String::len).collect();
        let mut trained = HashSet::new();
        for document in training {
            // Of most documents, the length says enough.
            if lengths.contains(&document.len()) {
                trained.insert(document.as_str());
            }
            watch.advance(document.len())?;
        }
        Ok(validation.iter().filter(|document| trained.contains(document.as_str())).count())
    })?;
    Ok((seen > 0).then(|| {
        format!(
            "of its {}, {seen} {} trained on too, so the validation loss says little of other text",
            count(validation.len(), "document"),
            if seen == 1 { "is" } else { "are" }
        )
    }))
}

fn summary(
    name: &str,
    training: &TextBatches,
    held_out: Option<&TextValidation>,
    tokenizer: &Tokenizer,
) -> String {
    let about = training.about();
    let bytes_per_token = about.text_bytes as f64 / about.tokens as f64;
    let held_out = held_out.map_or_else(
        || "nothing held out".to_owned(),
        |data| format!("{} to validate on", count(data.tokens() as usize, "token")),
    );
    format!(
        "{name}: {}, {} with {} ({bytes_per_token:.2} bytes per token), {}, {held_out}",
        count(about.documents as usize, "document"),
        count(about.tokens as usize, "token"),
        tokenizer.name(),
        tokenizer.borders_in_words()
    )
}
