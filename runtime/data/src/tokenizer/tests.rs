//! Tokenizers of each kind, small ones that the tests write and real ones where they are there.

use std::fs;

use serde_json::{Value, json};

use super::*;

mod kinds;

/// A byte-level BPE with the merges "he", " w", and two special tokens.
fn small_tokenizer(folder: &Path) -> PathBuf {
    let json = r#"{
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [
            {"id": 9, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 10, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"h": 0, "e": 1, "Ġ": 2, "w": 3, "Ã": 4, "¤": 5, "he": 6, "Ġw": 7, "o": 8},
            "merges": ["h e", "Ġ w"]}
    }"#;
    let path = folder.join("tokenizer.json");
    fs::write(&path, json).expect("write");
    path
}

#[test]
fn bytes_round_trip() {
    let tokenizer = Tokenizer::bytes();
    let encoded = tokenizer.encode("né\n").expect("any text");
    assert_eq!(encoded.ids, [110, 195, 169, 10]);
    assert_eq!(encoded.bytes, [1; 4]);
    assert_eq!(tokenizer.decode(&[0, 110, 195, 169, 10, 999]), "né\n");
    assert!(tokenizer.ends_document(0) && !tokenizer.ends_document(10));
}

#[test]
fn a_tokenizer_file_is_read_with_its_special_tokens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    small_tokenizer(folder.path());
    let tokenizer = Tokenizer::open(folder.path()).expect("valid");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(9), Some(10), 11));
    let encoded = tokenizer.encode("he woä he").expect("all in the vocabulary");
    assert_eq!(encoded.ids, [6, 7, 8, 4, 5, 2, 6]);
    assert_eq!(encoded.bytes.iter().sum::<u32>(), "he woä he".len() as u32);
    // The space before "wo" belongs to its token, and "ä" is counted once.
    assert_eq!(encoded.bytes, [2, 2, 1, 2, 0, 1, 2]);
    assert_eq!(tokenizer.decode(&encoded.ids), "he woä he");
    assert!(tokenizer.ends_document(10));
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"bos_token": {"content": "</s>"}}"#)
        .expect("write");
    assert_eq!(Tokenizer::open(folder.path()).expect("valid").bos(), Some(10));
}

#[test]
fn bad_tokenizers_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = |path: &Path| Tokenizer::open(path).expect_err("refused").to_string();
    assert!(error(&folder.path().join("none.json")).contains("no such file"));
    assert!(error(folder.path()).contains("tokenizer.json"));
    let path = small_tokenizer(folder.path());
    let whole = fs::read(&path).expect("read");
    fs::write(&path, &whole[..200]).expect("write");
    assert!(error(&path).contains("not a usable tokenizer"));
    fs::write(&path, "{}").expect("write");
    assert!(error(&path).contains("not a usable tokenizer"));
    fs::write(&path, &whole).expect("write");
    fs::write(folder.path().join("tokenizer_config.json"), "{").expect("write");
    assert!(error(&path).contains("tokenizer_config.json"));
}

/// Ids that the tokenizers' own Python package gave for the same strings.
#[test]
fn golden_ids_of_public_tokenizers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/tokenizers");
    let Ok(golden) = fs::read(folder.join("golden_ids.json")) else {
        eprintln!("skipped: no ../shared/data");
        return;
    };
    let golden: Value = serde_json::from_slice(&golden).expect("JSON");
    let cases: Vec<&str> =
        golden["cases"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let mut compared = 0;
    for (file, expected) in golden["tokenizers"].as_object().expect("an object") {
        if !file.ends_with("tokenizer.json") {
            continue;
        }
        let tokenizer = Tokenizer::open(&folder.join(file)).expect("valid");
        for (case, ids) in cases.iter().zip(expected["ids"].as_array().expect("a list")) {
            let ids: Vec<u64> = ids.as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
            let encoded = tokenizer.encode(case).expect("encodes");
            assert_eq!(
                encoded.ids.iter().map(|id| u64::from(*id)).collect::<Vec<_>>(),
                ids,
                "{file}: {case:?}"
            );
            assert_eq!(tokenizer.encode_ids(case), Ok(encoded.ids.clone()), "{file}: {case:?}");
            if !ids.is_empty() {
                assert_eq!(encoded.bytes.iter().sum::<u32>() as usize, case.len(), "{file}: {case:?}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 100, "{compared}");
}

#[test]
fn what_says_which_tokens_are_special_is_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = small_tokenizer(folder.path());
    let write = |name: &str, json: &str| fs::write(path.with_file_name(name), json).expect("write");
    write("special_tokens_map.json", r#"{"bos_token": "</s>", "eos_token": {"content": "he"}}"#);
    write("generation_config.json", r#"{"eos_token_id": [7, 9]}"#);
    write("config.json", "{not read");
    let opened = Tokenizer::open(&path).expect("valid");
    assert_eq!((opened.bos(), opened.eos()), (Some(10), Some(6)));
    assert!([6, 7, 9].iter().all(|id| opened.ends_document(*id)) && !opened.ends_document(10));
    // The first file that names a token wins; a name that is no token is none.
    write("tokenizer_config.json", r#"{"bos_token": "<nowhere>", "eos_token": "w"}"#);
    let opened = Tokenizer::open(&path).expect("valid");
    assert_eq!((opened.bos(), opened.eos()), (Some(10), Some(3)));
    assert!(opened.notes().iter().any(|note| note.contains("<nowhere>")), "{:?}", opened.notes());
    let names: Vec<&str> = opened.files().iter().map(|file| file.name).collect();
    let all =
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"];
    assert_eq!(names, all);
    // What a checkpoint gets opens to the same tokenizer.
    let copy = tempfile::tempdir().expect("a temporary folder");
    for file in opened.files() {
        fs::write(copy.path().join(file.name), &file.bytes).expect("write");
    }
    let again = Tokenizer::open(copy.path()).expect("valid");
    assert_eq!((again.special, again.vocab_size), (opened.special, opened.vocab_size));
}

#[test]
fn a_digest_is_of_all_that_ids_depend_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokenizer = Tokenizer::open(&small_tokenizer(folder.path())).expect("opens");
    let mut other = tokenizer.clone();
    assert_eq!(other.digest(), tokenizer.digest());
    other.special.bos = None;
    assert_ne!(other.digest(), tokenizer.digest());
    other.special = tokenizer.special.clone();
    other.special.eos = Some(0);
    assert_ne!(other.digest(), tokenizer.digest());
}

#[test]
fn a_long_text_can_be_stopped_before_any_piece_is_tokenized() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tokenizer = Tokenizer::open(&small_tokenizer(folder.path())).expect("opens");
    let Backend::HuggingFace { inner, .. } = &tokenizer.backend else { panic!("a file") };
    let sizes = long::Sizes { piece: 64, half_window: 32, alike: 2 };
    let fail = |error: tokenizers::Error| panic!("{error}");
    for length in [10, 1000] {
        let stop = |bytes: usize| {
            assert_eq!(bytes, 0, "of {length}");
            Err(DataError::Interrupted)
        };
        let stopped = long::encode_in_pieces(inner, &"he w".repeat(length), false, sizes, &fail, &stop);
        assert_eq!(stopped, Err(DataError::Interrupted));
    }
}
