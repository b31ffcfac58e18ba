//! Text as the settings ask for it: of files or shards, alone or mixed, with what is held out or named to validate on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use linc_device::words::count;

use super::corpus::Corpus;
use super::error::DataError;
use super::files::{self, Names, Wanted};
use super::loading::Loading;
use super::settings::{DataSettings, DatasetKind, TEXT_FIELD, TrainingSource, ValidationSource};
use super::shards::{Part, Shards, are_same, folder_of};
use super::text::{Apart, Packing, TextBatches, TextSource, TextValidation};
use super::tokenizer::{Tokenizer, losses};
use super::tokens::Tokens;
use super::{Data, Reading, TrainingData, ValidationData, check_vocabulary, split, stories};

/// A text that settings name.
struct Named<'a> {
    kind: DatasetKind,
    path: Option<&'a str>,
    field: &'a str,
    /// What `field` is called where it was set, for what is said of it.
    field_setting: &'static str,
    separator: Option<&'a str>,
    weight: f64,
    /// The setting with the path.
    setting: &'static str,
}

/// What a text is before it is tokens.
enum Source {
    Documents(Vec<String>),
    Shards(PathBuf),
}

/// How a part of documents is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    /// Of what there is, as much as was asked for.
    Alone,
    /// By the text of each, so that datasets agree.
    Mixed,
    /// As shards do, which hold documents out whole.
    BesideShards,
}

/// Everything that reads a text needs.
struct Reader<'a, 'l> {
    tokenizer: &'a Tokenizer,
    how: Split,
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
    let Reading { batch_size, seq_len, seed, validates, tokenizer_path, vocab_size, part } = reading;
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
    let shards: Vec<PathBuf> = named.iter().filter_map(|named| folder_of(named.path?)).collect();
    let how = match (named.len(), shards.len()) {
        (1, _) => Split::Alone,
        (_, 0) => Split::Mixed,
        _ => Split::BesideShards,
    };
    let mut reader = Reader { tokenizer: &tokenizer, how, loading };
    let own = match settings.validation.dataset.filter(|_| validates) {
        Some(kind) => {
            let validation = &settings.validation;
            let path = validation.dataset_path.as_deref();
            let (weight, setting) = (1.0, "validation.dataset_path");
            Some(Named { kind, path, weight, setting, ..Named::of(&settings.training) })
        }
        None => None,
    };
    let own_source = own.as_ref().map(|own| reader.source(own)).transpose()?;
    let share = settings.held_out_share(validates);
    if how == Split::BesideShards && shards.len() < named.len() && share > 0.0 {
        reader.loading.note(&format!(
            "{name}: shards do not tell their documents, so what is held out of another dataset and is in shards too may be trained on, unless they were made with --held-out {share} or more"
        ));
    }
    let are_all_shards = shards.len() == named.len();
    if are_all_shards && share > 0.0 && share != ValidationSource::default().fraction {
        reader.loading.note(&format!(
            "{name}: validation.fraction has no effect: of shards that part is validated on which was held out when they were made (linc tokenize --held-out)"
        ));
    }
    let (mut sources, mut parts, mut not_compared) = (Vec::new(), Vec::new(), Vec::new());
    let mut own_is_trained = false;
    for dataset in &named {
        let source = reader.source(dataset)?;
        match (&own_source, &source) {
            (None, _) | (Some(Source::Documents(_)), Source::Documents(_)) => {}
            (Some(Source::Shards(own)), Source::Shards(folder)) if are_same(own, folder)? => {
                own_is_trained = true;
            }
            (Some(Source::Documents(_) | Source::Shards(_)), _) => not_compared.push(dataset.name()),
        }
        let (training, held_out) = match source {
            Source::Documents(documents) => {
                if let (Some(own), Some(Source::Documents(others))) = (&own, &own_source)
                    && let Some(warning) = seen_in_training(&documents, others, reader.loading)?
                {
                    reader.loading.warn(&format!("{}: {warning}", own.name()));
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
    if let (Some(own), false) = (&own, not_compared.is_empty()) {
        reader.loading.note(&format!(
            "{}: not compared with {}, since shards do not tell their documents: whether it is trained on too is not known",
            own.name(),
            not_compared.join(", ")
        ));
    }
    let held_out_name = own.as_ref().map_or_else(|| name.clone(), Named::name);
    match own_source {
        Some(Source::Documents(documents)) => {
            let corpus = Corpus::new(documents, &tokenizer, true, reader.loading)?;
            parts.push(Tokens::Memory(corpus));
        }
        Some(Source::Shards(folder)) => parts.push(reader.own_shards(&folder, own_is_trained)?),
        None => {}
    }
    let borders = tokenizer.borders();
    let TrainingSource { shuffle, reset_at_document: apart, .. } = settings.training;
    let packing = Packing { batch_size, seq_len, seed, shuffle, held_out: share, borders, apart };
    let batches = TextBatches::new(sources, packing)?.of(part);
    if apart && batches.about().documents == 1 {
        reader.loading.note(&format!(
            "{name}: its text is one document, so that training.reset_at_document changes nothing; of plain text, training.document_separator says what stands between documents"
        ));
    }
    let held_out = TextValidation::new(parts, batch_size, seq_len, apart.then(|| Apart::new(borders)));
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
        return vec![Named::of(training)];
    }
    let entries = training.datasets.iter().map(|dataset| {
        let own = dataset.text_field.as_deref();
        let of_all = Named::of(training);
        Named {
            kind: DatasetKind::Text,
            path: Some(&dataset.path),
            field: own.unwrap_or(of_all.field),
            field_setting: own.map_or(of_all.field_setting, |_| "text_field of training.datasets"),
            weight: dataset.weight,
            setting: "training.datasets",
            ..of_all
        }
    });
    entries.collect()
}

impl<'a> Named<'a> {
    /// The only dataset that is trained on.
    fn of(training: &'a TrainingSource) -> Self {
        Named {
            kind: training.dataset,
            path: training.dataset_path.as_deref(),
            field: &training.text_field,
            field_setting: "training.text_field",
            separator: training.document_separator.as_deref(),
            weight: 1.0,
            setting: "training.dataset_path",
        }
    }

    fn name(&self) -> String {
        self.path.unwrap_or(self.kind.word()).to_owned()
    }
}

impl Reader<'_, '_> {
    fn source(&mut self, named: &Named<'_>) -> Result<Source, DataError> {
        let Named { field, field_setting, separator, .. } = *named;
        let wanted = Wanted { field, allows_nul: !self.tokenizer.reserves_nul(), separator };
        match (named.kind, named.path) {
            (DatasetKind::Text, Some(path)) => match folder_of(path) {
                Some(folder) => {
                    if separator.is_some() {
                        self.loading.note(&format!(
                            "{path}: training.document_separator does nothing to shards, whose documents are those that they were made with (linc tokenize --document-separator)"
                        ));
                    }
                    if field != TEXT_FIELD {
                        self.loading.note(&format!(
                            "{path}: {field_setting} does nothing to shards, whose text is that which they were made of (linc tokenize --text-field)"
                        ));
                    }
                    Ok(Source::Shards(folder))
                }
                None => {
                    let read = files::read_documents(path, wanted, self.loading);
                    let (documents, kinds) = read.map_err(|error| error.of(named.setting))?;
                    let names = Names { field: field_setting, separator: "training.document_separator" };
                    files::say(&kinds.unread(path, wanted, names), self.loading);
                    Ok(Source::Documents(documents))
                }
            },
            (DatasetKind::Stories, _) => Ok(Source::Documents(stories::documents())),
            // The config has refused a missing path and text beside recall.
            (_, _) => Err(DataError::Missing { path: "dataset_path".into() }),
        }
    }

    /// Shards to validate on: all of them, whose maker has made them for that, but of shards that are trained on the part
    /// that is not.
    fn own_shards(&mut self, folder: &Path, is_trained: bool) -> Result<Tokens, DataError> {
        let part = if is_trained { Part::Validation } else { Part::Training };
        let shards = Shards::open(folder, part, self.tokenizer);
        let shards = shards.map_err(|error| error.of("validation.dataset_path"))?;
        if part == Part::Validation {
            if shards.len() == 0 {
                return Err(DataError::Shards {
                    folder: folder.to_path_buf(),
                    reason: "it is trained on, and has no part to validate on".to_owned(),
                    help: "make shards with --held-out 0.01 into another folder, or name other data with validation.dataset_path"
                        .to_owned(),
                });
            }
            let folder = folder.display();
            self.loading.note(&format!(
                "{folder}: its shards are trained on; validated on is the part of it that is held out"
            ));
        }
        Ok(Tokens::Shards(shards))
    }

    /// Documents as tokens, a share of them held out.
    fn tokens(&mut self, documents: Vec<String>, share: f64) -> Result<(Tokens, Option<Tokens>), DataError> {
        let parts = match self.how {
            Split::Alone => split::split(documents, share),
            Split::Mixed => split::split_by_text(documents, share, true),
            Split::BesideShards => split::split_by_text(documents, share, false),
        };
        if let Some(warning) = losses::check(self.tokenizer, &parts.training)? {
            self.loading.warn(&warning);
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
