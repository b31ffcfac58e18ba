//! Data as a config asks for it.

use std::path::PathBuf;

use linc_config::{ConfigFiles, Model, Override, Section as _, Settings, section, sections};

use super::*;

section! {
    /// What [`Reading`] takes of a run's settings.
    Shape "training" {
        /// Sequences of a batch.
        batch_size: usize = 8;
        /// Tokens of a sequence.
        seq_len: usize = 2048;
        /// Seed of the order.
        seed: u64 = 0;
    }
}

section! {
    /// Whether anything is validated.
    Validates "validation" {
        /// Validate after some of the steps.
        enable: bool = false;
    }
}

sections! {
    /// The settings that data depend on.
    Config {
        /// `[model]`
        model: Model,
        /// `[training]`, but for the data.
        shape: Shape,
        /// `[validation]`, but for the data.
        validation: Validates,
        /// Sources of training and validation.
        data: DataSettings,
    }
}

fn config(text: &str, args: &[&str]) -> Config {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let mut keys = Vec::new();
    Config::describe(&mut keys);
    let overrides = Override::parse_all(&args, &keys).expect("flags");
    let files = ConfigFiles::of_text("run.toml", text);
    let mut settings = Settings::new(&files, &overrides, keys, &[]);
    let mut config = Config::read(&mut settings);
    config.data.complete(&mut settings);
    config.data.check_together(config.shape.seq_len, config.validation.enable, &mut settings);
    settings.finish().unwrap_or_else(|error| panic!("{error}"));
    config
}

fn open(config: &Config, vocab_size: usize, loading: &mut Loading<'_>) -> Result<Data, DataError> {
    let Shape { batch_size, seq_len, seed } = config.shape;
    let validates = config.validation.enable;
    let tokenizer_path = config.model.tokenizer_path.as_deref();
    Data::open(
        &config.data,
        Reading { batch_size, seq_len, seed, validates, tokenizer_path, vocab_size, part: Part::WHOLE },
        loading,
    )
}

fn open_data(config: &Config, vocab_size: usize) -> Result<Data, DataError> {
    loading::quiet(|loading| open(config, vocab_size, loading))
}

fn temporary(name: &str, bytes: &[u8]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("write");
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn stories_need_nothing() {
    let config = config("[training]\nseq_len = 64\nbatch_size = 2\n[validation]\nenable = true\n", &[]);
    let mut data = open_data(&config, 256).expect("built in");
    let batch = data.training.next_batch().expect("in memory");
    assert_eq!((batch.tokens.len(), batch.target_count()), (128, 128));
    assert_eq!(batch.tokens[1..64], batch.targets[..63]);
    assert!(batch.tokens.iter().all(|token| (0..256).contains(token)));
    let validation = data.validation.expect("held out");
    assert!(validation.batches() > 1);
    assert_eq!(validation.batches_of(1), 1);
    assert_eq!(validation.batches_of(-1), validation.batches());
    let mut bytes = 0;
    let mut targets = 0;
    for index in 0..validation.batches() {
        let batch = validation.batch(index).expect("in memory");
        bytes += batch.target_bytes.expect("counted") as usize;
        targets += batch.target_count();
    }
    // One byte a token, but for the tokens between documents.
    assert!(bytes <= targets && bytes + 250 > targets, "{bytes} {targets}");
    assert!(data.summary.contains("stories"));
}

#[test]
fn a_file_is_split_into_training_and_validation() {
    let text: String = (0..5000).map(|i| format!("{i}\n")).collect();
    let (_folder, path) = temporary("numbers.txt", text.as_bytes());
    let config = config(
        "[training]\nseq_len = 32\nbatch_size = 4\n[validation]\nenable = true\nfraction = 0.1\n",
        &["--training.dataset_path", &path],
    );
    assert_eq!(config.data.training.dataset, DatasetKind::Text);
    let mut data = open_data(&config, 256).expect("readable");
    let decode = |tokens: &[i32]| -> String { tokens.iter().map(|token| *token as u8 as char).collect() };
    let mut seen = String::new();
    while data.training.state().epoch == 0 {
        seen += &decode(&data.training.next_batch().expect("in memory").tokens);
    }
    assert!(seen.contains("1234\n") && !seen.contains("4990\n"));
    let validation = data.validation.expect("held out");
    let held: String =
        (0..validation.batches()).map(|i| decode(&validation.batch(i).expect("in memory").tokens)).collect();
    assert!(held.contains("4990\n") && !held.contains("\n1234\n"));
}

#[test]
fn validation_data_can_be_other_files() {
    let (_a, train) = temporary("a.txt", &b"training text ".repeat(30));
    let (_b, valid) = temporary("b.txt", &b"validation ".repeat(30));
    let args =
        ["--training.dataset_path", &train, "--validation.dataset_path", &valid, "--training.seq_len=16"];
    let unused = open_data(&config("", &args), 256).expect("readable");
    assert!(unused.validation.is_none(), "nothing validates");
    let args = [&args[..], &["--validation.enable"]].concat();
    let data = open_data(&config("", &args), 256).expect("readable");
    let validation = data.validation.expect("given");
    let batch = validation.batch(0).expect("in memory");
    assert_eq!(&batch.tokens[..3], [0, i32::from(b'v'), i32::from(b'a')]);
    let TrainingData::Text(training) = &data.training else { panic!("text") };
    assert_eq!(training.about().tokens, 14 * 30 + 1);
}

#[test]
fn recall_is_generated() {
    let text =
        "[training]\ndataset = \"mqar\"\nseq_len = 64\nbatch_size = 4\n[training.mqar]\nvocab_size = 128\n";
    let mut data = open_data(&config(text, &[]), 128).expect("generated");
    let batch = data.training.next_batch().expect("in memory");
    assert_eq!(batch.target_count(), 4 * 8);
    assert!(data.tokenizer.is_none());
    let error = open_data(&config(text, &[]), 127).expect_err("too small").to_string();
    assert!(error.contains("128 tokens") && error.contains("vocab_size is 127"), "{error}");
}

#[test]
fn what_cannot_be_used_is_refused() {
    let (_folder, short) = temporary("short.txt", b"abc");
    let open = |args: &[&str]| open_data(&config("", args), 256).expect_err("refused").to_string();
    let error = open(&["--training.dataset_path", &short]);
    assert!(error.contains("fewer than one sequence of 2049"), "{error}");
    assert!(open(&["--training.dataset_path", "nowhere.txt"]).contains("no such file"));
    assert!(open(&["--model.tokenizer_path", "nowhere.json"]).contains("no such file"));
    let error = open(&[
        "--training.dataset_path",
        &short,
        "--training.seq_len=2",
        "--validation.enable",
        "--validation.fraction=0.1",
    ]);
    assert!(error.contains("nothing is left to validate on"), "{error}");
    let error = open_data(&config("", &[]), 255).expect_err("refused").to_string();
    assert!(error.contains("the byte tokenizer has 256 tokens"), "{error}");
}

fn shared(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: no ../shared/data");
    }
    path.exists().then_some(path)
}

#[test]
fn real_text_with_a_real_tokenizer() {
    let (Some(text), Some(tokenizer)) =
        (shared("tinyshakespeare/input.txt"), shared("tokenizers/gpt2_hf/tokenizer.json"))
    else {
        return;
    };
    let (text, tokenizer) = (text.display().to_string(), tokenizer.display().to_string());
    let args =
        ["--training.dataset_path", &text, "--model.tokenizer_path", &tokenizer, "--validation.fraction=0"];
    let data = open_data(&config("", &args), 50257).expect("readable");
    let TrainingData::Text(training) = &data.training else { panic!("text") };
    // The well-known number of GPT-2 tokens, and the end of the document.
    assert_eq!(training.about().tokens, 338_025 + 1);
    let args = [
        "--training.dataset_path",
        &text,
        "--model.tokenizer_path",
        &tokenizer,
        "--training.batch_size=1",
        "--validation.enable",
    ];
    let validation = open_data(&config("", &args), 50257).expect("readable").validation.expect("held out");
    let bytes: u64 =
        (0..validation.batches()).filter_map(|i| validation.batch(i).expect("in memory").target_bytes).sum();
    let targets: usize =
        (0..validation.batches()).map(|i| validation.batch(i).expect("in memory").target_count()).sum();
    let bytes_per_token = bytes as f64 / targets as f64;
    assert!((2.5..4.5).contains(&bytes_per_token), "{bytes_per_token}");
}

#[test]
fn real_files_of_each_kind() {
    let (Some(latin), Some(gzipped), Some(books)) = (
        shared("books/gutenberg/3300_wealth_of_nations_latin1.txt"),
        shared("c4/olmo_c4-sample.01.json.gz"),
        shared("books/english_novels"),
    ) else {
        return;
    };
    let open = |path: &PathBuf| {
        let path = path.display().to_string();
        open_data(&config("", &["--training.dataset_path", &path, "--training.seq_len=128"]), 256)
    };
    let error = open(&latin).expect_err("Latin-1").to_string();
    assert!(error.contains("not UTF-8") && error.contains("LATIN1"), "{error}");
    let TrainingData::Text(c4) = open(&gzipped).expect("JSON lines").training else { panic!("text") };
    assert!((5..=10).contains(&c4.about().documents), "{}", c4.about().documents);
    let novels = open(&books).expect("novels");
    assert!(novels.summary.contains("documents"), "{}", novels.summary);
}

#[test]
fn loading_ends_when_it_is_asked_to() {
    use std::sync::atomic::AtomicBool;
    let stop = AtomicBool::new(true);
    let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
    let error = open(&config("", &[]), 256, &mut loading).expect_err("stopped");
    assert_eq!(error, DataError::Interrupted);
}

/// What is said while data are opened.
fn notes(args: &[&str]) -> Vec<String> {
    let mut notes = Vec::new();
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) | Event::Warning(text) => notes.push(text.to_owned()),
        Event::Progress { .. } => {}
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    open(&config("", args), 256, &mut loading).expect("readable");
    notes
}

#[test]
fn validation_on_text_that_is_trained_on_is_said() {
    let (_a, train) = temporary("a.txt", &b"training text ".repeat(30));
    let (_b, other) = temporary("b.txt", &b"other text ".repeat(30));
    let (folder, copy) = temporary("c.txt", &b"training text ".repeat(30));
    let base = ["--training.dataset_path", &train, "--training.seq_len=16", "--validation.enable"];
    let with = |path: &str| notes(&[&base[..], &["--validation.dataset_path", path]].concat());
    assert!(with(&other).is_empty());
    assert!(notes(&base).is_empty(), "a part that is held out is not trained on");
    // By content: the file itself, a copy, and a folder with one.
    for path in [&train, &copy, &folder.path().display().to_string()] {
        let said = with(path).concat();
        assert!(said.contains("of its 1 document, 1 is trained on too"), "{said}");
    }
}

#[test]
fn text_is_held_out_only_where_something_validates() {
    let text: String = (0..5000).map(|i| format!("{i}\n")).collect();
    let (_folder, path) = temporary("numbers.txt", text.as_bytes());
    let open = |more: &[&str]| {
        let args = [&["--training.dataset_path", &path, "--training.seq_len=32"][..], more].concat();
        open_data(&config("", &args), 256).expect("readable")
    };
    let (mut all, part) = (open(&[]), open(&["--validation.enable"]));
    let (whole, training) = (all.training.state(), part.training.state());
    assert_eq!(whole.size, text.len() as u64 + 1);
    assert!(training.size < whole.size && part.validation.is_some() && all.validation.is_none());
    // A checkpoint cannot go on with the other part, and its message says which setting that is.
    let error = all.training.restore(&training).expect_err("other data").to_string();
    assert!(error.contains("was 0.05 and is now 0") && error.contains("validation.enable"), "{error}");
    // One from before goes on where the same is held out, and is told how.
    let old = DataState { held_out: None, ..training };
    let error = all.training.restore(&old).expect_err("other data").to_string();
    assert!(error.contains("--validation.enable true"), "{error}");
    let mut part = open(&["--validation.enable"]);
    part.training.restore(&old).expect("the same text");
    let json = serde_json::to_value(&old).expect("serialises");
    let mut json = json.as_object().expect("an object").clone();
    json.remove("held_out");
    assert_eq!(serde_json::from_value::<DataState>(json.into()).expect("an old state"), old);
}

#[test]
fn ids_are_found_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokenizer = folder.path().join("tokenizer.json");
    let json = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"}}"#;
    std::fs::write(&tokenizer, json).expect("write");
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "a b c ".repeat(300_000)).expect("write");
    let (tokenizer, text) = (tokenizer.display().to_string(), text.display().to_string());
    let args = ["--training.dataset_path", &text, "--model.tokenizer_path", &tokenizer];
    let config = config("", &args);
    let cache = TokenCache::at(folder.path().join("cache"));
    let open = || {
        let mut found = false;
        let mut tell = |event: Event<'_>| {
            found |= matches!(event, Event::Note(note) if note.contains("need not be tokenized again"));
        };
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut loading = Loading { stop: &stop, tell: &mut tell, cache: cache.clone() };
        let mut data = open(&config, 3, &mut loading).expect("readable").training;
        (found, data.state(), data.next_batch().expect("in memory"))
    };
    let first = open();
    assert!(!first.0);
    let second = open();
    assert_eq!((second.0, &second.1, &second.2), (true, &first.1, &first.2));
    // A damaged entry is made again.
    let entry = std::fs::read_dir(folder.path().join("cache")).expect("a folder").next().expect("an entry");
    let entry = entry.expect("an entry").path();
    let mut bytes = std::fs::read(&entry).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&entry, bytes).expect("write");
    assert_eq!(open(), first);
    assert!(open().0);
    // Another tokenizer, or another text, has other ids.
    std::fs::write(&tokenizer, json.replace("\"b\": 1", "\"c\": 1")).expect("write");
    let other = open();
    assert!(!other.0 && other.1.checksum != first.1.checksum);
}

#[test]
fn comparing_with_what_is_trained_on_can_be_stopped() {
    let text = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<String>>();
    let (training, validation) = (text(&["ab", "cd", "efg"]), text(&["ab", "xy", "efgh"]));
    let compare = |stops: bool| {
        let stop = std::sync::atomic::AtomicBool::new(stops);
        let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
        open::seen_in_training(&training, &validation, &mut loading)
    };
    let said = compare(false).expect("compared").expect("one is seen");
    assert!(said.starts_with("of its 3 documents, 1 is trained on too"), "{said}");
    assert_eq!(compare(true), Err(DataError::Interrupted));
}

#[test]
fn datasets_are_mixed_by_weight() {
    let (folder, _) = temporary("a.jsonl", b"");
    let lines: String = (0..40).map(|i| format!("{{\"body\": \"aaaa {i} aaaa\"}}\n")).collect();
    std::fs::write(folder.path().join("a.jsonl"), lines).expect("written");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("b.txt"), "b".repeat(500)).expect("written");
    let (text, out) = (path("b.txt"), path("shards"));
    let shards = TokenizeSettings {
        path: &text,
        text_field: "text",
        document_separator: None,
        tokenizer_path: None,
        out: out.as_ref(),
        held_out: 0.0,
        shard_tokens: 1000,
    };
    quiet(|loading| tokenize(shards, loading)).expect("shards");
    let sources = format!(
        "[[training.datasets]]\npath = {:?}\ntext_field = \"body\"\nweight = 3\n[[training.datasets]]\npath = {out:?}\n",
        path("a.jsonl")
    );
    let base = ["--training.seq_len=10", "--training.batch_size=4"];
    let mut data = open_data(&config(&sources, &base), 256).expect("readable");
    assert!(data.summary.starts_with("a mixture of 2 datasets: 41 documents"), "{}", data.summary);
    for _ in 0..40 {
        let tokens = data.training.next_batch().expect("read").tokens;
        let of_b = tokens.chunks(10).filter(|row| row.contains(&98)).count();
        assert_eq!(of_b, 1);
    }
    let names: Vec<String> = data.training.state().sources.into_iter().map(|source| source.name).collect();
    assert_eq!(names, [path("a.jsonl"), out.clone()]);
    // What is held out is of the documents; the shards have nothing to hold out.
    let validating = config(&sources, &[&base[..], &["--validation.enable"]].concat());
    let validation = open_data(&validating, 256).expect("readable").validation.expect("a part");
    assert!(validation.batch(0).expect("read").tokens.iter().all(|token| *token != 98));
    let none = config(
        &format!("[[training.datasets]]\npath = {out:?}\n"),
        &["--training.seq_len=10", "--validation.enable"],
    );
    let error = open_data(&none, 256).expect_err("nothing held out").to_string();
    assert!(error.contains("nothing is left to validate on") && error.contains("--held-out"), "{error}");
}

#[test]
fn of_a_mixture_and_one_dataset_the_later_counts() {
    let list = "[[training.datasets]]\npath = \"a\"\n";
    let sources = |text: &str, args: &[&str]| {
        let training = config(text, args).data.training;
        (training.dataset, training.dataset_path, training.datasets.len())
    };
    assert_eq!(sources(list, &[]), (DatasetKind::Text, None, 1));
    let path = sources(list, &["--training.dataset_path", "b"]);
    assert_eq!(path, (DatasetKind::Text, Some("b".to_owned()), 0));
    assert_eq!(sources(list, &["--training.dataset", "stories"]), (DatasetKind::Stories, None, 0));
    assert_eq!(sources(list, &["--training.dataset", "text"]), (DatasetKind::Text, None, 1));
    let typed = ["--training.datasets", "[{ path = \"c\", weight = 2 }, { path = \"d\" }]"];
    assert_eq!(sources("[training]\ndataset_path = \"b\"\n", &typed), (DatasetKind::Text, None, 2));
    // That it is text, said with the list or behind it, is no word for another text.
    for text in
        ["[training]\ndataset_path = \"b\"\n", "[training]\ndataset = \"text\"\ndataset_path = \"b\"\n"]
    {
        let args = [&typed[..], &["--training.dataset", "text"]].concat();
        assert_eq!(sources(text, &args), (DatasetKind::Text, None, 2));
    }
}

mod ranks;
mod sources;
mod unread;
