//! Parquet files that the tests write, whole and damaged.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parquet::data_type::{Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::TokenCache;
use crate::files::read_documents;
use crate::loading::{Event, Loading};

const SCHEMA: &str = "message rows {
    required int64 id;
    optional binary text (UTF8);
    required binary raw;
    optional group meta { optional binary url (UTF8); optional binary title (UTF8); }
    optional group ids (LIST) { repeated group list { optional int32 element; } }
}";

/// Row groups of texts with their ids.
fn write(path: &Path, codec: Compression, groups: &[&[Option<&str>]]) {
    let schema = Arc::new(parse_message_type(SCHEMA).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
    let file = File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("a writer");
    for group in groups {
        let mut rows = writer.next_row_group().expect("a row group");
        for number in 0.. {
            let Some(mut column) = rows.next_column().expect("a column") else { break };
            let values: Vec<ByteArray> = group.iter().flatten().map(|text| ByteArray::from(*text)).collect();
            let levels: Vec<i16> = group.iter().map(|text| i16::from(text.is_some())).collect();
            let none = vec![0; group.len()];
            match number {
                0 => {
                    let ids: Vec<i64> = (0..group.len() as i64).collect();
                    column.typed::<Int64Type>().write_batch(&ids, None, None).expect("ids");
                }
                1 => {
                    let texts = column.typed::<ByteArrayType>();
                    texts.write_batch(&values, Some(&levels), None).expect("texts");
                }
                2 => {
                    let raw = vec![ByteArray::from(vec![0xffu8]); group.len()];
                    column.typed::<ByteArrayType>().write_batch(&raw, None, None).expect("bytes");
                }
                3 | 4 => {
                    column.typed::<ByteArrayType>().write_batch(&[], Some(&none), None).expect("none");
                }
                // [1, its size] of each text, and nothing of a row without.
                _ => {
                    let ids: Vec<i32> =
                        group.iter().flatten().flat_map(|text| [1, text.len() as i32]).collect();
                    let levels = |of_id: [i16; 2]| {
                        let of_row =
                            move |text: &Option<&str>| if text.is_some() { of_id.to_vec() } else { vec![0] };
                        group.iter().flat_map(of_row).collect::<Vec<i16>>()
                    };
                    let (definition, repetition) = (levels([3, 3]), levels([0, 1]));
                    let column = column.typed::<Int32Type>();
                    column.write_batch(&ids, Some(&definition), Some(&repetition)).expect("ids");
                }
            }
            column.close().expect("written");
        }
        rows.close().expect("written");
    }
    writer.close().expect("written");
}

/// Documents of a column, and what was said.
fn read(path: &Path, field: &str) -> (Result<Vec<String>, DataError>, Vec<String>) {
    let mut notes = Vec::new();
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) | Event::Warning(text) => notes.push(text.to_owned()),
        Event::Progress { .. } => {}
    };
    let stop = AtomicBool::new(false);
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    let wanted = Wanted { field, allows_nul: false, separator: None };
    let read = read_documents(&path.display().to_string(), wanted, &mut loading);
    let documents = read.map(|(documents, _)| documents);
    (documents, notes)
}

fn refused(path: &Path, field: &str) -> String {
    read(path, field).0.expect_err("refused").to_string()
}

#[test]
fn a_column_is_read_row_group_by_row_group() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.parquet");
    let many = "many ".repeat(300);
    let words: Vec<Option<&str>> = many.split_inclusive(' ').map(Some).collect();
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(parquet::basic::ZstdLevel::default()),
        Compression::GZIP(parquet::basic::GzipLevel::default()),
    ] {
        write(&path, codec, &[&[Some("one"), None, Some("zwei \u{1f98a}")], &[], &words, &[None, Some("")]]);
        for place in [path.as_path(), folder.path()] {
            let (documents, notes) = read(place, "text");
            let documents = documents.expect("texts");
            assert_eq!((documents.len(), documents.concat()), (302, format!("onezwei \u{1f98a}{many}")));
            let [note] = &notes[..] else { panic!("{notes:?}") };
            assert!(note.contains("2 rows without a value in `text`"), "{note}");
        }
    }
}

#[test]
fn columns_that_hold_no_text_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.parquet");
    write(&path, Compression::SNAPPY, &[&[Some("one"), Some("a\0b")]]);
    let missing = refused(&path, "content");
    assert!(missing.contains("no column `content`; there are `id`, `text`, `raw`, `meta.url`"), "{missing}");
    assert!(missing.contains("training.text_field"), "{missing}");
    for (field, said) in [
        ("text", "row 2: `text` contains a NUL"),
        ("id", "holds INT64, not strings"),
        ("raw", "row 1: `raw` is not UTF-8"),
        ("meta", "has `meta.url`, `meta.title` below it"),
        ("ids", "holds token ids, not text\n  help: make shards of it with `linc tokenize"),
        ("meta.url", "no text in it"),
    ] {
        assert!(refused(&path, field).contains(said), "{}", refused(&path, field));
    }
    let packed = folder.path().join("a.parquet.gz");
    std::fs::copy(&path, &packed).expect("copied");
    assert!(refused(&packed, "text").contains("unpack it, as .parquet"));
}

#[test]
fn the_command_that_makes_shards_of_ids_can_be_copied() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("two words.parquet");
    write(&path, Compression::SNAPPY, &[&[Some("text")]]);
    let command = format!("`linc tokenize {:?} --text-field \"ids\" --out DIR`", path.display().to_string());
    let refused = refused(&path, "ids");
    assert!(refused.contains(&command) && refused.contains("--tokenizer"), "{refused}");
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.parquet");
    write(&path, Compression::SNAPPY, &[&[Some("one"), None, Some("two two two two")], &[Some("three")]]);
    let whole = std::fs::read(&path).expect("a file");
    for length in (0..whole.len()).step_by(5).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..length]).expect("written");
        let said = refused(&path, "text");
        assert!(said.contains("a.parquet: the Parquet file is cut off or damaged"), "{length}: {said}");
    }
    // What a bit more or less changes need not be seen, but nothing else may come of it than texts or an error.
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).expect("written");
        let _ = read(&path, "text");
    }
}

#[test]
fn a_column_of_ids_becomes_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.parquet");
    let rows: Vec<Option<&str>> = (0..600).map(|row| (row % 5 != 0).then_some("text")).collect();
    write(&path, Compression::SNAPPY, &[&rows, &[None], &[Some("one")]]);
    let out = folder.path().join("out");
    let path = path.display().to_string();
    let settings = crate::TokenizeSettings {
        path: &path,
        text_field: "ids",
        document_separator: None,
        tokenizer_path: None,
        out: &out,
        held_out: 0.0,
        shard_tokens: 700,
    };
    let mut notes = Vec::new();
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) | Event::Warning(text) => notes.push(text.to_owned()),
        Event::Progress { .. } => {}
    };
    let stop = AtomicBool::new(false);
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    let made = crate::tokenize(settings, &mut loading).expect("shards");
    // Each with the BOS of bytes before it.
    assert_eq!((made.documents, made.tokens, made.shards), (481, 3 * 481, 3));
    assert!(notes.concat().contains("121 rows without a value in `ids`"), "{notes:?}");
    let other = crate::TokenizeSettings { text_field: "id", ..settings };
    let error = crate::loading::quiet(|loading| crate::tokenize(other, loading));
    assert!(error.expect_err("another column").to_string().contains("another corpus, tokenizer or settings"));
}

#[test]
fn ids_that_the_tokenizer_does_not_have_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.parquet");
    write(
        &path,
        Compression::SNAPPY,
        &[&[Some("one"), None, Some(&"x".repeat(255)), Some(&"x".repeat(256))]],
    );
    let (path, out) = (path.display().to_string(), folder.path().join("out"));
    let settings = crate::TokenizeSettings {
        path: &path,
        text_field: "ids",
        document_separator: None,
        tokenizer_path: None,
        out: &out,
        held_out: 0.0,
        shard_tokens: 1000,
    };
    let error =
        crate::loading::quiet(|loading| crate::tokenize(settings, loading)).expect_err("refused").to_string();
    assert!(
        error.contains("a.parquet, document 3: the id 256 is no token of the byte tokenizer, which has 256"),
        "{error}"
    );
    assert!(error.contains("--tokenizer"), "{error}");
}
