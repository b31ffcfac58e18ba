//! What an import makes of a folder's tokenizer.

use super::*;

/// A tokenizer of whole words.
fn tokenizer(words: usize) -> String {
    let vocab: serde_json::Map<String, Value> = (0..words).map(|i| (format!("w{i}"), json!(i))).collect();
    let model = json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "w0" });
    json!({ "version": "1.0", "added_tokens": [], "pre_tokenizer": { "type": "Whitespace" }, "model": model })
        .to_string()
}

#[test]
fn a_tokenizer_comes_with_its_model_and_has_no_more_tokens() {
    let folder = Folder::new();
    folder.write();
    folder.file("tokenizer.json", tokenizer(257));
    let said = folder.refused();
    assert!(said.contains("has 257 tokens, vocab_size of config.json is 256"), "{said}");
    folder.file("tokenizer.json", tokenizer(200));
    folder.file("tokenizer_config.json", "{\"bos_token\": \"w1\"}");
    let imported = folder.import().unwrap_or_else(|error| panic!("{error}"));
    assert!(imported.has_tokenizer && imported.reads_text);
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let copied = fs::read(folder.out().join(name)).expect("a file");
        assert_eq!(copied, fs::read(folder.path().join(name)).expect("a file"));
    }
    assert!(crate::open(&folder.out()).expect("a checkpoint").files.contains_key("tokenizer_config.json"));
    // Bytes are the tokens of a model that has as many and no tokenizer; another reads no text.
    let bytes = Folder::new();
    bytes.write();
    let imported = bytes.import().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((imported.reads_text, imported.has_tokenizer, imported.notes.len()), (true, false, 0));
    let mute = Folder::new().set("vocab_size", json!(255)).with(EMBEDDING, "F32", &[255, 16]).with(
        OUTPUT,
        "F32",
        &[255, 16],
    );
    mute.write();
    let imported = mute.import().unwrap_or_else(|error| panic!("{error}"));
    assert!(
        !imported.reads_text && imported.notes[0].contains("there is no tokenizer.json"),
        "{:?}",
        imported.notes
    );
}

/// A rank file of the bytes, as Llama 3's.
fn ranks() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let line = |byte: usize| {
        let digits = [DIGITS[byte >> 2], DIGITS[(byte & 3) << 4]].map(char::from);
        format!("{}{}== {byte}\n", digits[0], digits[1])
    };
    (0..256).map(line).collect()
}

#[test]
fn a_rank_file_is_a_tokenizer_too() {
    // 256 special tokens follow the ranks.
    let model = || {
        let folder = Folder::new().set("vocab_size", json!(512));
        let folder = folder.with(EMBEDDING, "F32", &[512, 16]).with(OUTPUT, "F32", &[512, 16]);
        folder.write();
        folder
    };
    for place in ["tokenizer.model", "original/tokenizer.model"] {
        let folder = model();
        fs::create_dir_all(folder.path().join("original")).expect("a folder");
        folder.file(place, ranks());
        let imported = folder.import().unwrap_or_else(|error| panic!("{error}"));
        assert!(imported.has_tokenizer && imported.reads_text, "{:?}", imported.notes);
        let made = linc_data::Tokenizer::open(&folder.out()).expect("a tokenizer.json");
        assert_eq!((made.vocab_size(), made.bos()), (512, Some(256)));
        assert_eq!(made.encode_ids("ab").expect("bytes"), [97, 98]);
    }
    // What Hugging Face says of special tokens is in the folder above.
    let above = model();
    fs::create_dir_all(above.path().join("original")).expect("a folder");
    above.file("original/tokenizer.model", ranks());
    above.file("tokenizer_config.json", "{\"eos_token\": \"<|eot_id|>\"}");
    above.import().unwrap_or_else(|error| panic!("{error}"));
    let made = linc_data::Tokenizer::open(&above.out()).expect("a tokenizer.json");
    assert_eq!((made.bos(), made.eos()), (Some(256), Some(265)));
    // A file that is cut or damaged is an error: special tokens would have the ids of others.
    let cut = model().set("vocab_size", json!(513));
    let cut = cut.with(EMBEDDING, "F32", &[513, 16]).with(OUTPUT, "F32", &[513, 16]);
    cut.write();
    cut.file("tokenizer.model", ranks());
    let said = cut.refused();
    assert!(said.contains("has 512 tokens, vocab_size of config.json is 513"), "{said}");
    let damaged = model();
    damaged.file("tokenizer.model", ranks().replace("\nAg== 2\n", "\nAg= 2\n"));
    let said = damaged.refused();
    assert!(said.contains("line 3 is not a token in base64"), "{said}");
    let unknown = model();
    unknown.file("qwen.tiktoken", ranks());
    let imported = unknown.import().unwrap_or_else(|error| panic!("{error}"));
    assert!(
        !imported.reads_text && imported.notes[0].contains("how it splits a text"),
        "{:?}",
        imported.notes
    );
}
