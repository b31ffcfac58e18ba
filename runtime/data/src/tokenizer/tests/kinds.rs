//! What must hold for every kind of tokenizer: streams, long texts, no chance.

use super::super::long::{Sizes, encode_in_pieces};
use super::*;

/// Characters with a token each, of the test's texts.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz.,'!?";
const WORDS: [&str; 6] = ["one", "two", "three", "you", "he", "re"];

fn open(json: &Value) -> Tokenizer {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).expect("write");
    Tokenizer::open(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn file(parts: [Value; 4]) -> Value {
    let [normalizer, pre_tokenizer, decoder, model] = parts;
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null,
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "model": model})
}

/// A vocabulary of single characters, bytes if asked for, and of words that merges make, after `space`.
fn bpe(space: &str, byte_fallback: bool, extra: &[&str]) -> Value {
    let mut vocab: Vec<String> = vec!["<unk>".into(), space.into()];
    if byte_fallback {
        vocab.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    }
    vocab.extend(LETTERS.chars().map(String::from));
    vocab.extend(extra.iter().map(|text| (*text).to_owned()));
    let mut merges = Vec::new();
    for word in WORDS {
        let mut made = space.to_owned();
        for letter in word.chars() {
            merges.push(format!("{made} {letter}"));
            made.push(letter);
            vocab.push(made.clone());
        }
    }
    merges.extend(["a a".to_owned(), "aa aa".to_owned()]);
    vocab.extend(["aa".to_owned(), "aaaa".to_owned()]);
    vocab.dedup();
    let mut ids = serde_json::Map::new();
    for token in vocab {
        let id = ids.len();
        ids.entry(token).or_insert(json!(id));
    }
    let mut seen = std::collections::BTreeSet::new();
    merges.retain(|merge| seen.insert(merge.clone()));
    json!({"type": "BPE", "dropout": null, "unk_token": if byte_fallback { json!("<unk>") } else { Value::Null },
        "fuse_unk": byte_fallback, "byte_fallback": byte_fallback, "vocab": ids, "merges": merges})
}

/// As Llama 2 and TinyStories: one word without a pre-tokenizer, unknown characters as bytes.
fn llama() -> Value {
    let normalizer = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let decoder = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    file([normalizer, Value::Null, decoder, bpe("▁", true, &[])])
}

fn metaspace() -> Value {
    let meta = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let vocab: Vec<Value> = [("<unk>", -20.0), ("▁", -4.0), ("▁one", -2.0), ("▁two", -2.5), ("▁three", -3.0)]
        .iter()
        .map(|(token, score)| json!([token, score]))
        .chain(LETTERS.chars().map(|c| json!([c.to_string(), -6.0])))
        .collect();
    let model = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false});
    file([Value::Null, meta.clone(), meta, model])
}

/// As GPT-2, where characters beyond ASCII are several tokens.
fn byte_level() -> Value {
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    file([Value::Null, level.clone(), level, bpe("Ġ", false, &["ä", "½", "ł", "å", "ç", "Ċ", "Ã", "©"])])
}

/// As BERT.
fn word_piece() -> Value {
    let mut vocab = serde_json::Map::new();
    let pieces = LETTERS.chars().flat_map(|c| [c.to_string(), format!("##{c}")]);
    for token in ["[UNK]", "one", "two", "th", "##ree"].map(str::to_owned).into_iter().chain(pieces) {
        let id = vocab.len();
        vocab.entry(token).or_insert(json!(id));
    }
    let model = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab});
    let normalizer = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true});
    let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    file([normalizer, json!({"type": "BertPreTokenizer"}), decoder, model])
}

/// As CTRL or XLM: the last piece of a word carries the space.
fn word_ends() -> Value {
    let mut model = bpe("_", false, &[]);
    let mut ids = model["vocab"].as_object().expect("a vocabulary").clone();
    for letter in LETTERS.chars() {
        let id = ids.len();
        ids.insert(format!("{letter}</w>"), json!(id));
    }
    model["vocab"] = json!(ids);
    model["end_of_word_suffix"] = json!("</w>");
    let decoder = json!({"type": "BPEDecoder", "suffix": "</w>"});
    file([Value::Null, json!({"type": "Whitespace"}), decoder, model])
}

fn kinds() -> [(&'static str, Value); 5] {
    [
        ("llama", llama()),
        ("metaspace", metaspace()),
        ("byte level", byte_level()),
        ("word piece", word_piece()),
        ("word ends", word_ends()),
    ]
}

/// Ids as a prompt and what follows, at every token: their texts make up the text of all.
fn check_streams(name: &str, tokenizer: &Tokenizer, ids: &[u32]) {
    let whole = tokenizer.decode(ids);
    for at in 0..=ids.len() {
        let prompt = tokenizer.decode(&ids[..at]);
        if prompt.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        let mut stream = Detokenizer::new(tokenizer, &ids[..at]);
        let mut text = prompt.clone();
        for id in &ids[at..] {
            let piece = stream.push(*id);
            assert!(!piece.ends_with(char::REPLACEMENT_CHARACTER), "{name}: half a character");
            text += &piece;
        }
        text += &stream.finish();
        assert_eq!(text, whole, "{name}: prompt {prompt:?}");
    }
}

#[test]
fn prompt_and_continuation_are_one_text() {
    for (name, json) in kinds() {
        let tokenizer = open(&json);
        for text in ["one two three one", " he  re, you!", "don't, one . two", "你 好你好é one é"] {
            check_streams(name, &tokenizer, &tokenizer.encode_ids(text).expect("tokens"));
        }
    }
    let bytes = Tokenizer::bytes();
    check_streams("bytes", &bytes, &bytes.encode_ids("né 你好 \u{1f642}\n").expect("any text"));
}

#[test]
fn special_tokens_do_not_hide_a_space() {
    let mut json = llama();
    json["added_tokens"] = json!([{"id": 1000, "content": "<s>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true}]);
    let tokenizer = open(&json);
    let bos = tokenizer.bos().expect("named as usual");
    let words = tokenizer.encode_ids("one two").expect("tokens");
    let text = |prompt: &[u32], ids: &[u32]| {
        let mut stream = Detokenizer::new(&tokenizer, prompt);
        ids.iter().map(|id| stream.push(*id)).collect::<String>() + &stream.finish()
    };
    assert_eq!(text(&[bos], &words), "one two", "the first word of a document has no space before it");
    assert_eq!(text(&[bos, words[0]], &words[1..]), " two");
    assert_eq!(text(&[bos, words[0], bos, bos], &words[1..]), " two");
    assert_eq!(text(&[bos, words[0]], &[bos, words[1]]), " two");
}

#[test]
fn broken_characters_are_shown_once() {
    let tokenizer = open(&llama());
    let id = |text: &str| match &tokenizer.backend {
        Backend::HuggingFace { inner, .. } => inner.token_to_id(text).expect("a token"),
        Backend::Bytes => unreachable!("it has a file"),
    };
    let mut stream = Detokenizer::new(&tokenizer, &[id("▁one")]);
    let pieces: Vec<String> =
        ["<0xE4>", "<0xBD>", "<0xA0>", "<0xE4>", "a", "<0xE4>"].map(|token| stream.push(id(token))).into();
    assert_eq!(pieces, ["", "", "你", "", "\u{fffd}a", ""]);
    assert_eq!(stream.finish(), "\u{fffd}");
}

/// A text in which cuts may fall anywhere: in words, between spaces, in characters of several bytes, in runs.
fn awkward_text() -> String {
    let mut text = String::new();
    for i in 0..1200 {
        text += WORDS[i * 7 % 5];
        text += [" ", "  ", ", ", "\n", " 你好 ", "'", ". ", " é"][i * 5 % 8];
        if i == 150 {
            text += &"a".repeat(613);
        }
        if i == 300 {
            text += &" ".repeat(300);
        }
    }
    text
}

/// Compares with the whole; says how many pieces there were at least.
fn check_cuts(name: &str, tokenizer: &Tokenizer, text: &str, sizes: &[Sizes]) -> usize {
    let Backend::HuggingFace { inner, .. } = &tokenizer.backend else { panic!("{name} has a file") };
    let expected = inner.encode_fast(text, false).expect("tokens").get_ids().to_vec();
    let fail = |error: tokenizers::Error| panic!("{name}: {error}");
    let mut fewest = usize::MAX;
    for sizes in sizes {
        for count_bytes in [false, true] {
            let done = std::sync::Mutex::new(Vec::new());
            let count = |bytes| {
                done.lock().expect("no panic").push(bytes);
                Ok(())
            };
            let cut = encode_in_pieces(inner, text, count_bytes, *sizes, &fail, &count).expect("not stopped");
            assert_eq!(cut.ids, expected, "{name} {sizes:?}");
            let done: Vec<usize> = done.into_inner().expect("no panic");
            assert!(done.iter().sum::<usize>() >= text.len());
            fewest = fewest.min(done.len());
            if count_bytes {
                assert_eq!(cut.bytes.len(), expected.len(), "{name} {sizes:?}");
                let whole = tokenizer.encode(text).expect("tokens").bytes;
                assert_eq!(cut.bytes, whole, "{name} {sizes:?}");
            }
        }
    }
    fewest
}

#[test]
fn a_long_text_gives_the_ids_of_the_whole() {
    let sizes = [
        Sizes { piece: 256, half_window: 80, alike: 8 },
        Sizes { piece: 100, half_window: 200, alike: 16 },
        Sizes { piece: 1000, half_window: 300, alike: 32 },
    ];
    for (name, json) in kinds() {
        assert!(check_cuts(name, &open(&json), &awkward_text(), &sizes) > 2, "{name} is not cut");
    }
    // Nothing but one run, where no cut is right; and a text without tokens.
    check_cuts("run", &open(&llama()), &"a".repeat(5003), &sizes);
    check_cuts("spaces", &open(&word_piece()), &" ".repeat(5003), &sizes);
}

#[test]
fn long_texts_can_be_stopped() {
    let stopped = |_| Err(DataError::Interrupted);
    let error = open(&llama()).encode_watched("one two", false, &stopped).expect_err("stopped");
    assert_eq!(error, DataError::Interrupted);
}

#[test]
fn chance_and_limits_are_switched_off() {
    let mut json = llama();
    json["model"]["dropout"] = json!(0.3);
    json["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    let tokenizer = open(&json);
    let text = "one two three you ".repeat(20);
    let expected = open(&llama()).encode(&text).expect("tokens");
    for _ in 0..5 {
        assert_eq!(tokenizer.encode(&text).expect("tokens"), expected);
    }
    let [note] = tokenizer.notes() else { panic!("{:?}", tokenizer.notes()) };
    assert!(note.contains("dropout of 0.3") && note.contains("truncation to 3 tokens"), "{note}");
    assert!(open(&llama()).notes().is_empty());
}

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
    }
    path.exists().then_some(path)
}

#[test]
fn real_tokenizers_stream_and_cut() {
    let (Some(stories), Some(play)) =
        (shared("tinystories/tinystories_val.txt"), shared("tinyshakespeare/input.txt"))
    else {
        return;
    };
    let texts = [stories, play].map(|path| fs::read_to_string(path).expect("text"));
    let sizes = [
        Sizes { piece: 10_000, half_window: 1000, alike: 32 },
        Sizes { piece: 50_000, half_window: 4096, alike: 32 },
    ];
    for file in [
        "weights/tinystories-656k",
        "tokenizers/gpt2_hf",
        "tokenizers/olmo/dolma2_tokenizer.json",
        "tokenizers/olmo/gpt-neox-olmo-dolma-v1_5_tokenizer.json",
        "tokenizers/torchtitan_test",
    ] {
        let Some(path) = shared(file) else { return };
        let tokenizer = Tokenizer::open(&path).expect("valid");
        for text in &texts {
            let text = &text[..text.floor_char_boundary(300_000)];
            assert!(check_cuts(file, &tokenizer, text, &sizes) > 4, "{file} is not cut");
        }
        let text = format!("{} 你好, né \u{1f642}!\n\n  x", &texts[1][..200]);
        check_streams(file, &tokenizer, &tokenizer.encode_ids(&text).expect("tokens"));
    }
}
