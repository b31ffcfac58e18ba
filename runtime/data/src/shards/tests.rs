//! Shards of small corpora that the tests write.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::TokenCache;
use crate::loading::{Event, Loading, quiet};
use crate::text::{Packing, TextBatches, TextSource};
use crate::tokens::Tokens;

/// A folder with a corpus of several files and formats, and with a tokenizer of words.
struct Corpora(tempfile::TempDir);

impl Corpora {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("written");
        };
        let words = |from: usize, count: usize| {
            (from..from + count).map(|i| ["a ", "b ", "c d "][i * i % 7 % 3]).collect::<String>()
        };
        let line = |i: usize| format!("{{\"text\": \"{i} {}\"}}\n", words(i, 5 + i % 30));
        write("corpus/a.jsonl", (0..200).map(line).collect());
        write("corpus/b.txt", words(3, 700));
        write("corpus/c.jsonl", (200..300).map(line).collect::<String>() + "{\"text\": \"\"}\n");
        write("tokenizer.json", words_from(0, &["</s>"]));
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::open(&self.0.path().join("tokenizer.json")).expect("a tokenizer")
    }

    fn run(&self, out: &str, held_out: f64, loading: &mut Loading<'_>) -> Result<Tokenized, DataError> {
        self.run_with(out, held_out, 1000, loading)
    }

    fn run_with(
        &self,
        out: &str,
        held_out: f64,
        shard_tokens: u64,
        loading: &mut Loading<'_>,
    ) -> Result<Tokenized, DataError> {
        let (path, tokenizer, out) = (self.path("corpus"), self.path("tokenizer.json"), self.path(out));
        let settings = TokenizeSettings {
            path: &path,
            text_field: "text",
            document_separator: None,
            tokenizer_path: Some(&tokenizer),
            out: Path::new(&out),
            held_out,
            shard_tokens,
        };
        tokenize(settings, loading)
    }

    fn made(&self, out: &str, held_out: f64) -> Tokenized {
        quiet(|loading| self.run(out, held_out, loading)).expect("shards")
    }

    fn shards(&self, out: &str, part: Part) -> Result<Shards, DataError> {
        Shards::open(Path::new(&self.path(out)), part, &self.tokenizer())
    }
}

/// A tokenizer of five words, the ids of which begin at a number, and of special tokens behind them.
fn words_from(first: usize, special: &[&str]) -> String {
    let names = ["a", "b", "c", "d", "?"].iter().chain(special);
    let vocab: Vec<String> =
        names.enumerate().map(|(id, name)| format!("{name:?}: {}", first + id)).collect();
    let added = special.iter().enumerate().map(|(at, name)| {
        format!(
            r#"{{"id": {}, "content": {name:?}, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}}"#,
            first + 5 + at
        )
    });
    format!(
        r#"{{"version": "1.0", "pre_tokenizer": {{"type": "WhitespaceSplit"}}, "added_tokens": [{}],
            "model": {{"type": "WordLevel", "vocab": {{{}}}, "unk_token": "?"}}}}"#,
        added.collect::<Vec<String>>().join(", "),
        vocab.join(", ")
    )
}

/// Names and contents of a folder.
fn contents(folder: &str) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files
        .into_iter()
        .map(|path| (path.display().to_string().replace(folder, ""), fs::read(path).expect("a file")))
        .collect()
}

fn all(tokens: &Tokens) -> Vec<i32> {
    let mut all = vec![0; tokens.len() as usize];
    tokens.copy(0, &mut all).expect("read");
    all
}

#[test]
fn shards_hold_the_tokens_of_the_corpus() {
    let corpora = Corpora::new();
    let made = corpora.made("out", 0.0);
    let wanted = crate::files::Wanted { field: "text", allows_nul: true, separator: None };
    let (documents, _) =
        quiet(|l| crate::files::read_documents(&corpora.path("corpus"), wanted, l)).expect("text");
    let count = documents.len() as u64;
    let text_bytes: usize = documents.iter().map(String::len).sum();
    let corpus =
        quiet(|l| crate::corpus::Corpus::new(documents, &corpora.tokenizer(), false, l)).expect("ids");
    let expected = all(&Tokens::Memory(corpus));
    assert!(made.shards > 4, "{made:?}");
    assert_eq!(
        (made.documents, made.tokens, made.text_bytes),
        (count, expected.len() as u64, text_bytes as u64)
    );
    let shards = corpora.shards("out", Part::Training).expect("shards");
    // Each place by itself, across the borders of shards.
    let mut few = [0; 3];
    for from in 0..expected.len() - 3 {
        shards.copy(from as u64, &mut few).expect("read");
        assert_eq!(few, expected[from..from + 3]);
    }
    assert_eq!(all(&Tokens::Shards(shards)), expected);
    // The folder has the tokenizer that it was made with.
    assert_eq!(
        Tokenizer::open(Path::new(&corpora.path("out"))).expect("one").digest(),
        corpora.tokenizer().digest()
    );
    assert!(corpora.made("out", 0.0).was_complete);
}

#[test]
fn what_is_held_out_is_so_by_its_text() {
    let corpora = Corpora::new();
    let made = corpora.made("out", 0.2);
    let whole = corpora.made("whole", 0.0);
    assert_eq!(made.tokens + made.held_out, whole.tokens);
    let share = made.held_out as f64 / whole.tokens as f64;
    assert!((0.1..0.3).contains(&share), "{share}");
    let validation = corpora.shards("out", Part::Validation).expect("shards");
    let bytes = validation.bytes_of(0..validation.len()).expect("read").expect("counted");
    // BOS and EOS have no text, blanks at the end belong to no token.
    assert!(
        bytes <= validation.text_bytes()
            && bytes + 4 * validation.documents() >= validation.text_bytes() * 4 / 5
    );
    let training = corpora.shards("out", Part::Training).expect("shards");
    assert_eq!(training.bytes_of(0..9), Ok(None));
    // Another order of the files does not change which documents these are.
    let mut ids = all(&Tokens::Shards(validation));
    fs::rename(corpora.path("corpus/a.jsonl"), corpora.path("corpus/z.jsonl")).expect("renamed");
    corpora.made("other", 0.2);
    let mut others = all(&Tokens::Shards(corpora.shards("other", Part::Validation).expect("shards")));
    ids.sort_unstable();
    others.sort_unstable();
    assert_eq!(ids, others);
}

#[test]
fn shards_may_lie_beside_their_corpus() {
    let corpora = Corpora::new();
    let made = corpora.made("corpus/shards", 0.1);
    assert!(corpora.made("corpus/shards", 0.1).was_complete);
    assert_eq!(corpora.made("elsewhere/shards", 0.1).tokens, made.tokens);
}

#[test]
fn a_request_to_end_is_heard() {
    let corpora = Corpora::new();
    let stop = AtomicBool::new(true);
    let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
    assert_eq!(corpora.run("out", 0.0, &mut loading), Err(DataError::Interrupted));
    let said = AtomicUsize::new(0);
    stop.store(false, Ordering::Relaxed);
    let mut tell = |event: Event<'_>| {
        said.fetch_add(
            usize::from(matches!(event, Event::Note(note) if note.contains("going on"))),
            Ordering::Relaxed,
        );
    };
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    corpora.run("out", 0.0, &mut loading).expect("shards");
    assert_eq!(said.load(Ordering::Relaxed), 1);
}

#[test]
fn shards_of_something_else_are_refused() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let refused =
        |held_out| quiet(|loading| corpora.run("out", held_out, loading)).expect_err("refused").to_string();
    assert!(refused(0.1).contains("another corpus, tokenizer or settings") && refused(0.1).contains("--out"));
    // Another tokenizer has other numbers, if only in one.
    let folder = PathBuf::from(corpora.path("out"));
    let bytes = Shards::open(&folder, Part::Training, &Tokenizer::bytes()).expect_err("refused").to_string();
    assert!(bytes.contains("of another tokenizer (6 tokens, BOS none, EOS token 5)"), "{bytes}");
    assert!(bytes.contains("say model.tokenizer_path = "), "{bytes}");
    let json = fs::read_to_string(corpora.path("tokenizer.json")).expect("a file");
    fs::write(corpora.path("tokenizer.json"), json.replace("\"c\": 2", "\"e\": 2")).expect("written");
    assert!(corpora.shards("out", Part::Training).is_err());
    assert!(refused(0.0).contains("another corpus"));
    // A folder with other files is not written into.
    fs::create_dir(corpora.path("mine")).expect("a folder");
    fs::write(corpora.path("mine/notes.txt"), "keep").expect("written");
    let full = quiet(|loading| corpora.run("mine", 0.0, loading)).expect_err("refused").to_string();
    assert!(full.contains("it is not empty: it has notes.txt"), "{full}");
    fs::write(folder.join(INDEX), "{").expect("written");
    assert!(corpora.shards("out", Part::Training).expect_err("no index").to_string().contains("no index"));
}

#[test]
fn damaged_shards_are_errors() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let path = PathBuf::from(corpora.path("out/training-00002.tokens"));
    let whole = fs::read(&path).expect("a shard");
    let read = || {
        corpora
            .shards("out", Part::Training)
            .and_then(|shards| shards.copy(0, &mut vec![0; shards.len() as usize]))
    };
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).expect("written");
        read().expect_err("damaged").to_string()
    };
    let cut = said(&whole[..whole.len() - 1]);
    assert!(cut.contains("training-00002.tokens: the shard is cut off or damaged: it has"), "{cut}");
    for at in [0, 20, 30, 60, 80] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        let bad = said(&bad);
        assert!(bad.contains("no head") || bad.contains("not the file that"), "{bad}");
    }
    // An id that no token has.
    let mut bad = whole.clone();
    bad[crate::token_file::HEAD + 7] = 200;
    assert!(said(&bad).contains("the token 200 of a vocabulary of 6"));
    fs::remove_file(&path).expect("removed");
    assert!(read().expect_err("missing").to_string().contains("it is missing, and shards.json names it"));
    fs::write(&path, &whole).expect("written");
    assert_eq!(read(), Ok(()));
}

fn batches(corpora: &Corpora, shuffle: bool) -> TextBatches {
    batches_of(corpora, shuffle, false)
}

fn batches_of(corpora: &Corpora, shuffle: bool, apart: bool) -> TextBatches {
    let tokens = Tokens::Shards(corpora.shards("out", Part::Training).expect("shards"));
    let source = TextSource { name: "out".to_owned(), tokens, weight: 1.0 };
    let borders = corpora.tokenizer().borders();
    let packing = Packing { batch_size: 3, seq_len: 16, seed: 4, shuffle, held_out: 0.0, borders, apart };
    TextBatches::new(vec![source], packing).expect("long enough")
}

#[test]
fn a_run_that_reads_ahead_is_restored_with_the_same_bits() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    for shuffle in [false, true] {
        let mut whole = batches(&corpora, shuffle);
        let expected: Vec<_> = (0..250).map(|_| (whole.state(), whole.next_batch().expect("read"))).collect();
        assert_eq!(whole.state().epoch, u64::from(shuffle));
        for at in (0..expected.len()).step_by(17) {
            let mut resumed = batches(&corpora, shuffle);
            resumed.next_batch().expect("read");
            resumed.restore(&expected[at].0).expect("the same data");
            for (state, batch) in expected[at..].iter().take(3) {
                assert_eq!((&resumed.state(), &resumed.next_batch().expect("read")), (state, batch));
            }
        }
        // A pass has each sample of the tokens once, wherever the first of them is cut.
        let tokens = all(&Tokens::Shards(corpora.shards("out", Part::Training).expect("shards")));
        let rows = expected.iter().flat_map(|(_, batch)| {
            let rows = batch.tokens.chunks(16).zip(batch.targets.chunks(16));
            rows.map(|(tokens, targets)| [tokens, &targets[15..]].concat())
        });
        let rows: Vec<Vec<i32>> = rows.collect();
        assert!(rows.len() > tokens.len() / 17);
        let is_pass = |offset: usize| {
            let mut samples: Vec<&[i32]> = tokens[offset..].chunks_exact(17).collect();
            let mut read: Vec<&[i32]> = rows[..samples.len()].iter().map(Vec::as_slice).collect();
            assert_eq!(shuffle, read != samples);
            samples.sort_unstable();
            read.sort_unstable();
            samples == read
        };
        assert!(if shuffle { (0..17).any(is_pass) } else { is_pass(0) });
    }
}

#[test]
fn documents_of_shards_are_kept_apart() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let eos = corpora.tokenizer().eos().expect("an EOS") as i32;
    for shuffle in [false, true] {
        let (mut plain, mut apart) = (batches(&corpora, shuffle), batches_of(&corpora, shuffle, true));
        let mut ends = 0;
        for _ in 0..250 {
            let (plain, apart) = (plain.next_batch().expect("read"), apart.next_batch().expect("read"));
            assert_eq!((plain.tokens.clone(), plain.positions), (apart.tokens.clone(), None));
            let positions = apart.positions.expect("they are asked for");
            for (at, token) in apart.tokens.iter().enumerate() {
                let begins = at % 16 == 0 || apart.tokens[at - 1] == eos;
                assert_eq!(positions[at], if begins { 0 } else { positions[at - 1] + 1 });
                // The first token of another document is no target of this one.
                let target = if *token == eos { -1 } else { plain.targets[at] };
                assert_eq!(apart.targets[at], target);
                ends += usize::from(*token == eos);
            }
        }
        assert!(ends > 200, "{ends}");
    }
}

#[test]
fn documents_that_do_not_follow_each_other_are_an_error() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let shards = corpora.shards("out", Part::Training).expect("shards");
    let index = Index::load(Path::new(&corpora.path("out"))).expect("an index").expect("there");
    let Shard { file, tokens, documents, .. } = index.training[0].clone();
    let path = corpora.path(&format!("out/{file}"));
    let mut bad = fs::read(&path).expect("a shard");
    let starts = shards.starts_in(0..tokens).expect("whole");
    assert!(starts.len() as u64 == documents && documents > 4 && starts[0] == 0);
    // The third border.
    let third = bad.len() - 8 * (documents as usize + 1) + 16;
    bad[third..third + 8].copy_from_slice(&starts[1].to_le_bytes());
    fs::write(&path, &bad).expect("written");
    let error = corpora.shards("out", Part::Training).expect("the same sizes").starts_in(0..tokens);
    assert!(error.expect_err("refused").to_string().contains("documents do not follow each other"));
}

#[test]
fn a_shard_that_is_gone_while_training_is_an_error_and_no_batch_is_lost() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let mut data = batches(&corpora, true);
    let path = corpora.path("out/training-00001.tokens");
    let whole = fs::read(&path).expect("a shard");
    fs::write(&path, &whole[..100]).expect("written");
    let failed = (0..60).find_map(|_| {
        let state = data.state();
        match data.next_batch() {
            Ok(_) => None,
            Err(error) => Some((state, error.to_string())),
        }
    });
    let (state, error) = failed.expect("a shard is cut");
    assert!(error.contains("cut off or damaged"), "{error}");
    assert_eq!(data.state(), state);
    fs::write(&path, &whole).expect("written");
    let mut again = batches(&corpora, true);
    again.restore(&state).expect("the same data");
    assert_eq!(data.next_batch(), again.next_batch());
}

mod folder;
mod ids;
