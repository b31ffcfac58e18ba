//! The settings of data, and what ties them together.

use linc_config::check::{self, Check};
use linc_config::{Settings, choice, section, sections, table};
use linc_device::words::count;
use serde_json::json;

use crate::recall::{RECALL_TASKS, RecallTask};

/// Field or column that has the text where nobody names another.
pub(super) const TEXT_FIELD: &str = "text";

choice! {
    /// Where the training text comes from.
    DatasetKind {
        /// Short tales of a small grammar, built into the program.
        Stories = "stories",
        /// Multi-query associative recall, generated.
        Mqar = "mqar",
        /// Pairs that are replaced by later ones, generated as linc eval generates them, like all that follow but text.
        MqarForgetting = "mqar_forgetting",
        /// Tokens, and the same tokens again.
        Copy = "copy",
        /// Tokens among blanks, and the same without the blanks.
        SelectiveCopy = "selective_copy",
        /// What followed a token when it was there before.
        Induction = "induction",
        /// MAD's recall of pairs.
        MadInContextRecall = "mad_in_context_recall",
        /// The same among noise.
        MadNoisyRecall = "mad_noisy_recall",
        /// Keys and values of several tokens.
        MadFuzzyRecall = "mad_fuzzy_recall",
        /// MAD's selective copying.
        MadSelectiveCopying = "mad_selective_copying",
        /// Tokens by the numbers of their places.
        MadCompression = "mad_compression",
        /// Values that only training tells.
        MadMemorization = "mad_memorization",
        /// Whether the number of ones so far is odd.
        Parity = "parity",
        /// Products of permutations of five things.
        S5 = "s5",
        /// Text files named by `dataset_path`.
        Text = "text",
    }
}

table! {
    /// One dataset of a mixture.
    MixedDataset {
        /// Files as for dataset_path, or a folder of shards.
        path: String = String::new(), check check::not_empty();
        /// Its share of the sequences, beside the weights of the others.
        weight: f64 = 1.0, check check::above_zero();
        /// Field or column with the text, where it is another one than training.text_field.
        text_field: Option<String> = None, check check::not_empty().if_set();
    }
}

section! {
    /// Where the tokens of training come from.
    TrainingSource "training" {
        /// Data: built in, or "text" for the files of dataset_path.
        dataset: DatasetKind = DatasetKind::Stories;
        /// A .txt, .text, .raw, .jsonl, .ndjson or .json file, packed as .gz or .zst or not, or .parquet, a folder of them, a glob, or a folder of shards (linc tokenize).
        dataset_path: Option<String> = None, check check::not_empty().if_set();
        /// Field of a JSON object, or column of a Parquet file, that holds the text.
        text_field: String = TEXT_FIELD.to_owned(), check check::not_empty();
        /// What stands between the documents of a plain text file, such as "<|endoftext|>"; without it a file is one document.
        document_separator: Option<String> = None, check check::not_empty().if_set();
        /// Datasets to mix by weight, [[training.datasets]], in place of dataset_path.
        datasets: Vec<MixedDataset> = Vec::new();
        /// Visit the data in an order drawn from the seed; in file order if false.
        shuffle: bool = true;
        /// Documents that are packed into one sequence see nothing of each other: attention, states of linear layers and positions
        /// begin anew with each, in training and validation.
        reset_at_document: bool = false;
    }
}

section! {
    /// The generated recall task of dataset "mqar".
    MqarConfig "training.mqar" {
        /// Tokens: keys are drawn from the lower half, values from the upper.
        vocab_size: usize = 512, check check::at_least(4);
        /// Key-value pairs of a sequence; sequences take the numbers of a list in turn.
        num_kv_pairs: Vec<usize> = vec![8], check check::positive_list();
        /// Exponent of the distance between a pair and its query; 1 is uniform, near 0 mostly short.
        power_a: f64 = 0.01, check check::above_zero();
        /// How often the pairs are shown before the queries.
        num_passes: usize = 1, check check::positive();
        /// Fill the other positions with random tokens instead of 0.
        random_non_queries: bool = true;
        /// Different training sequences before they repeat; 0 to never repeat.
        num_examples: usize = 100_000, check check::fits_u32();
        /// Validation sequences.
        num_validation_examples: usize = 1_000, check check::positive();
    }
}

section! {
    /// The other generated recall tasks, such as dataset "copy".
    RecallConfig "training.recall" {
        /// Tokens that sequences are drawn from; the model's, if not given.
        vocab_size: Option<usize> = None, check check::at_least(2).if_set();
        /// Different training sequences before they repeat; 0 to never repeat.
        num_examples: usize = 0, check check::fits_u32();
        /// Validation sequences.
        num_validation_examples: usize = 1_000, check check::positive();
    }
}

section! {
    /// What is validated on.
    ValidationSource "validation" {
        /// Data to validate on, if not the held-out part of the training data.
        dataset: Option<DatasetKind> = None;
        /// Files of that data.
        dataset_path: Option<String> = None, check check::not_empty().if_set();
        /// Share of the training text that is held out, if this is enabled and has no other data.
        fraction: f64 = 0.05, check held_out_share();
    }
}

sections! {
    /// Everything that decides which tokens a run sees, but for the shape of its batches and its seed.
    DataSettings {
        /// `[training]`
        training: TrainingSource,
        /// `[training.mqar]`
        mqar: MqarConfig,
        /// `[training.recall]`
        recall: RecallConfig,
        /// `[validation]`
        validation: ValidationSource,
    }
}

impl DatasetKind {
    /// The recall task that it is, but for MQAR, which has settings of its own.
    pub fn task(self) -> Option<RecallTask> {
        RECALL_TASKS.iter().find(|task| task.name == self.word()).copied()
    }

    /// Whether it is sequences of tokens that are no text, with sequences of their own to validate on.
    pub fn is_recall(self) -> bool {
        self == DatasetKind::Mqar || self.task().is_some()
    }
}

/// Of a path and a kind of data, the one that was said later counts: a path that is typed behind a config with other data
/// means text, and other data that a config asks for replaces the files of its base.
fn agree(
    kind: &mut Option<DatasetKind>,
    path: &mut Option<String>,
    section: &str,
    settings: &mut Settings<'_>,
) {
    let (kind_name, path_name) = (format!("{section}.dataset"), format!("{section}.dataset_path"));
    let (of_kind, of_path) = (settings.layer(&kind_name), settings.layer(&path_name));
    if path.is_none() {
        return;
    }
    if of_path > of_kind {
        *kind = Some(DatasetKind::Text);
        settings.follow(&kind_name, &path_name);
    } else if of_kind > of_path && kind.is_some_and(|kind| kind != DatasetKind::Text) {
        *path = None;
    }
}

fn held_out_share() -> Check<f64> {
    Check::new("a number from 0 to 0.9", |value| (0.0..=0.9).contains(value))
        .in_schema(json!({ "minimum": 0, "maximum": 0.9 }))
}

impl DataSettings {
    /// Fills in what other settings imply.
    pub fn complete(&mut self, settings: &mut Settings<'_>) {
        let Self { training, validation, .. } = self;
        let mut kind = Some(training.dataset);
        agree(&mut kind, &mut training.dataset_path, "training", settings);
        // As of a path: of a list and of one dataset, what was said later counts.
        let layer = |name: &str| settings.layer(name);
        let (of_list, of_kind) = (layer("training.datasets"), layer("training.dataset"));
        let of_path = layer("training.dataset_path");
        let is_built_in = kind.is_some_and(|kind| kind != DatasetKind::Text);
        // That text is meant says nothing of which.
        if !training.datasets.is_empty() && of_list > of_path && (of_list > of_kind || !is_built_in) {
            training.dataset_path = None;
            if of_list > of_kind {
                kind = Some(DatasetKind::Text);
                settings.follow("training.dataset", "training.datasets");
            }
        } else if of_path > of_list || of_kind > of_list && is_built_in {
            training.datasets = Vec::new();
        }
        training.dataset = kind.unwrap_or(training.dataset);
        agree(&mut validation.dataset, &mut validation.dataset_path, "validation", settings);
    }

    /// Share of the training data that is held out for validation, by a run that validates or does not.
    pub fn held_out_share(&self, validates: bool) -> f64 {
        let own = self.validation.dataset.is_none() && !self.training.dataset.is_recall();
        if validates && own { self.validation.fraction } else { 0.0 }
    }

    /// Limits that tie several settings together, for sequences of `seq_len` tokens.
    pub fn check_together(&self, seq_len: usize, validates: bool, settings: &mut Settings<'_>) {
        let training = &self.training;
        // A path that is refused is given all the same.
        let has_list = !training.datasets.is_empty();
        if has_list && training.dataset_path.is_some() {
            settings.conflict(
                &["training.datasets", "training.dataset_path"],
                "both name the data".to_owned(),
                "say dataset_path for one dataset, [[training.datasets]] for a mixture",
            );
        }
        if training.datasets.iter().any(|dataset| dataset.path.is_empty()) {
            let message = "a dataset has no path".to_owned();
            settings.conflict(
                &["training.datasets"],
                message,
                "say path = \"..\" in each [[training.datasets]]",
            );
        }
        if has_list && training.dataset != DatasetKind::Text {
            let message = format!("dataset \"{}\" is built in and cannot be mixed", training.dataset.word());
            settings.conflict(
                &["training.datasets", "training.dataset"],
                message,
                "leave out [[training.datasets]], or say dataset = \"text\"",
            );
        }
        if training.dataset == DatasetKind::Text && !has_list && !settings.was_given("training.dataset_path")
        {
            let message = "dataset \"text\" needs dataset_path".to_owned();
            settings.conflict(
                &["training.dataset"],
                message,
                "name a .txt, .text, .raw, .jsonl, .ndjson or .json file, packed as .gz or .zst or not, or .parquet, a folder of them, or a glob",
            );
        }
        if training.dataset != DatasetKind::Text && training.dataset_path.is_some() {
            let message = format!("dataset \"{}\" is built in and reads no files", training.dataset.word());
            settings.conflict(
                &["training.dataset_path", "training.dataset"],
                message,
                "leave out dataset_path, or say dataset = \"text\"",
            );
        }
        self.check_validation(validates, settings);
        if training.reset_at_document && training.dataset.is_recall() {
            settings.conflict(
                &["training.reset_at_document", "training.dataset"],
                "recall sequences have no documents to keep apart".to_owned(),
                "leave out reset_at_document, or train on text",
            );
        }
        if training.dataset == DatasetKind::Mqar {
            self.check_mqar(seq_len, settings);
        }
    }

    fn check_validation(&self, validates: bool, settings: &mut Settings<'_>) {
        let validation = &self.validation;
        match (validation.dataset, &validation.dataset_path) {
            (Some(DatasetKind::Text), None) if settings.was_given("validation.dataset_path") => {}
            (Some(DatasetKind::Text), None) => settings.conflict(
                &["validation.dataset"],
                "dataset \"text\" needs dataset_path".to_owned(),
                "name the files, or leave out dataset to validate on a held-out part of the training data",
            ),
            (Some(kind), Some(_)) if kind != DatasetKind::Text => settings.conflict(
                &["validation.dataset_path", "validation.dataset"],
                format!("dataset \"{}\" is built in and reads no files", kind.word()),
                "leave out dataset_path, or say dataset = \"text\"",
            ),
            (Some(kind), _)
                if (kind.is_recall() || self.training.dataset.is_recall())
                    && kind != self.training.dataset =>
            {
                settings.conflict(
                    &["validation.dataset", "training.dataset"],
                    format!(
                        "cannot validate on \"{}\" after training on \"{}\"",
                        kind.word(),
                        self.training.dataset.word()
                    ),
                    "sequences of a recall task are validated on by others of the same: leave out dataset",
                );
            }
            (Some(DatasetKind::Stories), None) if self.training.dataset == DatasetKind::Stories => settings
                .conflict(
                    &["validation.dataset", "training.dataset"],
                    "would validate on the very text that is trained on".to_owned(),
                    "leave out dataset to validate on a held-out part",
                ),
            (None | Some(_), _) => {}
        }
        let from_training = validation.dataset.is_none() && !self.training.dataset.is_recall();
        if validates && from_training && validation.fraction == 0.0 {
            settings.conflict(
                &["validation.fraction", "validation.enable"],
                "validation is on, but no data is held out".to_owned(),
                "say fraction = 0.05, or name other data with dataset and dataset_path",
            );
        }
    }

    /// The recall task needs room for the pairs and for one query each.
    fn check_mqar(&self, seq_len: usize, settings: &mut Settings<'_>) {
        let mqar = &self.mqar;
        if !seq_len.is_multiple_of(2) {
            let message = format!("seq_len {seq_len} is odd; recall sequences are made of pairs");
            settings.conflict(&["training.seq_len"], message, "use an even seq_len");
        }
        let pairs = mqar.num_kv_pairs.iter().copied().max().unwrap_or(1);
        let needed =
            mqar.num_passes.checked_add(1).and_then(|n| n.checked_mul(2)).and_then(|n| n.checked_mul(pairs));
        if needed.is_none_or(|needed| needed > seq_len) {
            let message = format!(
                "{} shown {} and asked once: more than seq_len {seq_len} holds",
                count(pairs, "pair"),
                count(mqar.num_passes, "time")
            );
            settings.conflict(
                &["training.mqar.num_kv_pairs", "training.mqar.num_passes", "training.seq_len"],
                message,
                "2 * num_kv_pairs * (num_passes + 1) must be at most seq_len",
            );
        }
        // Keys come from 1 to vocab_size / 2 - 1, values from vocab_size / 2 on.
        if pairs > mqar.vocab_size / 2 - 1 {
            let message = format!(
                "{} to be told apart, but vocab_size {} has {}",
                count(pairs, "key"),
                mqar.vocab_size,
                count(mqar.vocab_size / 2 - 1, "key")
            );
            settings.conflict(
                &["training.mqar.num_kv_pairs", "training.mqar.vocab_size"],
                message,
                "use a larger training.mqar.vocab_size",
            );
        }
        if i32::try_from(mqar.vocab_size).is_err() {
            let message = format!("vocab_size {} is more than 2147483647", mqar.vocab_size);
            settings.conflict(&["training.mqar.vocab_size"], message, "tokens are 32-bit integers");
        }
    }
}
