//! Whose the folder is, what is in it after work that was ended, and whether it is whole.

use super::*;

fn refused(corpora: &Corpora, out: &str, held_out: f64) -> String {
    quiet(|loading| corpora.run(out, held_out, loading)).expect_err("refused").to_string()
}

/// What is said, and what comes of it.
fn said(corpora: &Corpora, out: &str, held_out: f64) -> (Vec<String>, Result<Tokenized, DataError>) {
    said_of(corpora, out, held_out, 1000)
}

fn said_of(
    corpora: &Corpora,
    out: &str,
    held_out: f64,
    shard_tokens: u64,
) -> (Vec<String>, Result<Tokenized, DataError>) {
    let (stop, mut notes) = (AtomicBool::new(false), Vec::new());
    let mut tell = |event: Event<'_>| match event {
        Event::Note(note) | Event::Warning(note) => notes.push(note.to_owned()),
        Event::Progress { .. } => {}
    };
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    let made = corpora.run_with(out, held_out, shard_tokens, &mut loading);
    (notes, made)
}

/// A folder that a call was ended in before its first shard.
fn begun(corpora: &Corpora, out: &str, held_out: f64) {
    let stop = AtomicBool::new(true);
    let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
    assert_eq!(corpora.run(out, held_out, &mut loading), Err(DataError::Interrupted));
}

#[test]
fn what_was_ended_goes_on_and_gives_the_same_files() {
    let corpora = Corpora::new();
    let made = corpora.made("whole", 0.1);
    let whole = contents(&corpora.path("whole"));
    for kept in 0..made.shards {
        let out = format!("ended-{kept}");
        begun(&corpora, &out, 0.1);
        // A folder of that name lets the work fail at this shard, with those before it written.
        let obstacle = corpora.path(&format!("{out}/training-{kept:05}.tokens"));
        fs::create_dir(&obstacle).expect("a folder");
        let failed = refused(&corpora, &out, 0.1);
        assert!(failed.contains("cannot write") && failed.contains(&obstacle), "{failed}");
        let index = Index::load(Path::new(&corpora.path(&out))).expect("reads").expect("an index");
        assert_eq!((index.complete, index.training.len()), (false, kept));
        let early = corpora.shards(&out, Part::Training).expect_err("not complete").to_string();
        assert!(early.contains("not tokenized to the end") && early.contains("run the same"), "{early}");
        fs::remove_dir(&obstacle).expect("removed");
        // As a process leaves it that is killed while it writes.
        for name in ["training-00000.99-0.tmp", "shards.7-12.tmp", "tokenizer.7-1.tmp"] {
            fs::write(corpora.path(&format!("{out}/{name}")), "half").expect("written");
        }
        assert!(!corpora.made(&out, 0.1).was_complete);
        assert!(contents(&corpora.path(&out)) == whole, "{kept}");
    }
}

#[test]
fn a_folder_of_somebody_else_is_left_as_it_is() {
    let corpora = Corpora::new();
    let own =
        [("notes.tmp", "a"), ("training-1.5-1.tmp", "b"), ("shards.tmp", "c"), ("tokenizer.json", "{}")];
    for (name, text) in own {
        let out = corpora.path(&format!("mine-{name}"));
        fs::create_dir(&out).expect("a folder");
        fs::write(format!("{out}/{name}"), text).expect("written");
        let before = contents(&out);
        let refused = refused(&corpora, &format!("mine-{name}"), 0.0);
        assert!(refused.contains(&format!("it is not empty: it has {name}")), "{refused}");
        assert!(contents(&out) == before, "{name}");
    }
    // Behind an index too, what is not this program's stays.
    corpora.made("out", 0.0);
    fs::write(corpora.path("out/notes.tmp"), "keep").expect("written");
    assert!(corpora.made("out", 0.0).was_complete);
    assert_eq!(fs::read_to_string(corpora.path("out/notes.tmp")).expect("kept"), "keep");
    // An index of something else is no reason to write.
    fs::create_dir(corpora.path("other")).expect("a folder");
    fs::write(corpora.path("other/shards.json"), "{}").expect("written");
    fs::write(corpora.path("other/shards.1-1.tmp"), "keep").expect("written");
    let before = contents(&corpora.path("other"));
    assert!(refused(&corpora, "other", 0.0).contains("no index"));
    assert!(contents(&corpora.path("other")) == before);
}

#[test]
fn what_is_complete_is_looked_at() {
    let corpora = Corpora::new();
    corpora.made("out", 0.2);
    for name in ["training-00001.tokens", "validation-00000.tokens"] {
        let path = corpora.path(&format!("out/{name}"));
        let whole = fs::read(&path).expect("a shard");
        let mut other = whole.clone();
        let last = other.len() - 1;
        other[last] ^= 1;
        for (bytes, words) in [(&whole[..last], "has"), (&other, "has other bytes than were written")] {
            fs::write(&path, bytes).expect("written");
            let refused = refused(&corpora, "out", 0.2);
            assert!(refused.contains(&format!("its shard {name} {words}")), "{refused}");
            assert!(refused.contains("delete this folder"), "{refused}");
        }
        fs::remove_file(&path).expect("removed");
        assert!(refused(&corpora, "out", 0.2).contains(&format!("{name} is not there any more")));
        fs::write(&path, &whole).expect("written");
        assert!(corpora.made("out", 0.2).was_complete);
    }
    // The tokenizer is at hand, so that it is written again.
    let path = corpora.path("out/tokenizer.json");
    let bytes = fs::read(&path).expect("a tokenizer");
    fs::remove_file(&path).expect("removed");
    assert!(corpora.made("out", 0.2).was_complete);
    assert_eq!(fs::read(&path).expect("a tokenizer"), bytes);
}

#[test]
fn the_way_to_say_the_corpus_does_not_matter() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let (other, tokenizer, out) =
        (corpora.path("corpus/../corpus"), corpora.path("tokenizer.json"), corpora.path("out"));
    let settings = TokenizeSettings {
        path: &other,
        text_field: "text",
        document_separator: None,
        tokenizer_path: Some(&tokenizer),
        out: Path::new(&out),
        held_out: 0.0,
        shard_tokens: 1000,
    };
    assert!(quiet(|loading| tokenize(settings, loading)).expect("the same corpus").was_complete);
}

#[test]
fn all_or_nothing_held_out_is_said() {
    let corpora = Corpora::new();
    fs::remove_dir_all(corpora.path("corpus")).expect("removed");
    fs::create_dir(corpora.path("corpus")).expect("a folder");
    // Of such texts the first is held out at a share of a half, and the second is not.
    let text = |is_held: bool| {
        let mut texts = (1..).map(|i| format!("a b{}", " c".repeat(i)));
        texts.find(|text| crate::split::is_held_out(text, 0.5) == is_held).expect("one")
    };
    fs::write(corpora.path("corpus/a.txt"), text(true)).expect("written");
    let refused = refused(&corpora, "out", 0.5);
    assert!(refused.contains("its only document is held out") && refused.contains("--held-out"), "{refused}");
    // As it says, with a lower share, into the same folder.
    let (notes, made) = said(&corpora, "out", 0.0);
    assert_eq!((made.expect("shards").documents, notes), (1, vec![]));
    fs::write(corpora.path("corpus/a.txt"), text(false)).expect("written");
    let (notes, made) = said(&corpora, "none", 0.5);
    assert_eq!(made.expect("shards").held_out, 0);
    assert!(
        notes.concat().contains("nothing is held out: by its content none of 1 document is"),
        "{notes:?}"
    );
}

#[test]
fn what_is_said_of_a_text_does_not_depend_on_threads() {
    let corpora = Corpora::new();
    fs::remove_dir_all(corpora.path("corpus")).expect("removed");
    fs::create_dir(corpora.path("corpus")).expect("a folder");
    // More than a mebibyte of words, and behind it others, which the tokenizer does not have.
    let lines = |text: &str, count: usize| format!("{{\"text\": {:?}}}\n", text.repeat(250)).repeat(count);
    let text = lines("a b ", 1100) + &lines("x y ", 3000);
    fs::write(corpora.path("corpus/a.jsonl"), text).expect("written");
    for threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let (notes, made) = pool.install(|| said_of(&corpora, &format!("out-{threads}"), 0.0, 1 << 30));
        assert_eq!((made.expect("shards").documents, notes), (4100, vec![]), "{threads}");
    }
}

#[test]
fn an_index_of_impossible_numbers_is_refused() {
    let corpora = Corpora::new();
    corpora.made("out", 0.0);
    let path = corpora.path("out/shards.json");
    let index: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    let cases = [
        ("tokens", serde_json::json!(u64::MAX), "cannot have 18446744073709551615 tokens"),
        ("tokens", serde_json::json!(1u64 << 40), "cannot have"),
        ("size", serde_json::json!(u64::MAX), "larger together than any disk"),
        ("documents", serde_json::json!(u64::MAX), "larger together than any disk"),
        ("file", serde_json::json!("../tokenizer.json"), "no file of this folder"),
    ];
    for (key, value, words) in cases {
        let mut bad = index.clone();
        bad["training"][1][key] = value;
        fs::write(&path, bad.to_string()).expect("written");
        let refused = corpora.shards("out", Part::Training).expect_err("refused").to_string();
        assert!(refused.contains(words) && refused.contains("shards.json"), "{refused}");
    }
    fs::write(&path, index.to_string()).expect("written");
    fs::remove_file(corpora.path("out/tokenizer.json")).expect("removed");
    let other = Shards::open(Path::new(&corpora.path("out")), Part::Training, &Tokenizer::bytes());
    let other = other.expect_err("refused").to_string();
    assert!(other.contains("is not in their folder any more") && !other.contains("made of bytes"), "{other}");
}
