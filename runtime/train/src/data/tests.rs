//! Data as a config asks for it.

use super::*;
use crate::config::Override;
use std::path::PathBuf;

fn config(text: &str, args: &[&str]) -> JobConfig {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let overrides = Override::parse_all(&args).expect("flags");
    JobConfig::load(text, "run.toml", &overrides).unwrap_or_else(|error| panic!("{error}")).config
}

fn open_data(config: &JobConfig, vocab_size: usize) -> Result<Data, DataError> {
    loading::quiet(|loading| Data::open(config, vocab_size, loading))
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
    let batch = data.training.next_batch();
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
        let batch = validation.batch(index);
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
    assert_eq!(config.training.dataset, DatasetKind::Text);
    let mut data = open_data(&config, 256).expect("readable");
    let decode = |tokens: &[i32]| -> String { tokens.iter().map(|token| *token as u8 as char).collect() };
    let mut seen = String::new();
    while data.training.state().epoch == 0 {
        seen += &decode(&data.training.next_batch().tokens);
    }
    assert!(seen.contains("1234\n") && !seen.contains("4990\n"));
    let validation = data.validation.expect("held out");
    let held: String = (0..validation.batches()).map(|i| decode(&validation.batch(i).tokens)).collect();
    assert!(held.contains("4990\n") && !held.contains("\n1234\n"));
}

#[test]
fn validation_data_can_be_other_files() {
    let (_a, train) = temporary("a.txt", &b"training text ".repeat(30));
    let (_b, valid) = temporary("b.txt", &b"validation ".repeat(30));
    let args =
        ["--training.dataset_path", &train, "--validation.dataset_path", &valid, "--training.seq_len=16"];
    let data = open_data(&config("", &args), 256).expect("readable");
    let validation = data.validation.expect("given");
    let batch = validation.batch(0);
    assert_eq!(&batch.tokens[..3], [0, i32::from(b'v'), i32::from(b'a')]);
    let TrainingData::Text(training) = &data.training else { panic!("text") };
    assert_eq!(training.corpus().len(), 14 * 30 + 1);
}

#[test]
fn recall_is_generated() {
    let text =
        "[training]\ndataset = \"mqar\"\nseq_len = 64\nbatch_size = 4\n[training.mqar]\nvocab_size = 128\n";
    let mut data = open_data(&config(text, &[]), 128).expect("generated");
    let batch = data.training.next_batch();
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
    assert_eq!(training.corpus().len(), 338_025 + 1);
    let args =
        ["--training.dataset_path", &text, "--model.tokenizer_path", &tokenizer, "--training.batch_size=1"];
    let validation = open_data(&config("", &args), 50257).expect("readable").validation.expect("held out");
    let bytes: u64 = (0..validation.batches()).filter_map(|i| validation.batch(i).target_bytes).sum();
    let targets: usize = (0..validation.batches()).map(|i| validation.batch(i).target_count()).sum();
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
    assert!((5..=10).contains(&c4.corpus().documents()), "{}", c4.corpus().documents());
    let novels = open(&books).expect("novels");
    assert!(novels.summary.contains("documents"), "{}", novels.summary);
}

#[test]
fn loading_ends_when_it_is_asked_to() {
    use std::sync::atomic::AtomicBool;
    let stop = AtomicBool::new(true);
    let mut loading = Loading { stop: &stop, tell: &mut |_| {} };
    let error = Data::open(&config("", &[]), 256, &mut loading).expect_err("stopped");
    assert_eq!(error, DataError::Interrupted);
}
