//! Settings about files: of each kind of file they are heeded, or it is said by name that they are not.

use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::sources::shards;
use super::*;

const TEXT: &str = "one tale--another tale--a third tale of some length";

/// A file of each kind with the same text, in a folder of its own; JSON and Parquet have it as `text` and as `body`.
fn files(folder: &std::path::Path) -> Vec<(&'static str, String)> {
    let object = format!("{{\"text\": {TEXT:?}, \"body\": \"{}\"}}", TEXT.repeat(2));
    let contents = [
        ("plain", "a.txt", TEXT.to_owned()),
        ("lines", "a.jsonl", object.clone()),
        ("list", "a.json", format!("[{object}]")),
    ];
    let mut files = Vec::new();
    for (kind, name, content) in contents {
        let path = folder.join(kind).join(name);
        std::fs::create_dir(folder.join(kind)).expect("a folder");
        std::fs::write(&path, content).expect("written");
        files.push((kind, path.display().to_string()));
    }
    let path = folder.join("rows.parquet");
    let schema = "message rows { required binary text (UTF8); required binary body (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let file = std::fs::File::create(&path).expect("a file");
    let properties = Arc::new(WriterProperties::default());
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("a writer");
    let mut rows = writer.next_row_group().expect("a row group");
    for text in [TEXT.to_owned(), TEXT.repeat(2)] {
        let mut column = rows.next_column().expect("readable").expect("a column");
        let value = [ByteArray::from(text.as_str())];
        column.typed::<ByteArrayType>().write_batch(&value, None, None).expect("a text");
        column.close().expect("written");
    }
    rows.close().expect("written");
    writer.close().expect("written");
    files.push(("rows", path.display().to_string()));
    let out = folder.join("shards").display().to_string();
    shards(&files[0].1, &out, 0.0);
    files.push(("shards", out));
    files
}

/// The first words of the summary, and what was said.
fn read(config: &Config) -> (String, Vec<String>) {
    let mut notes = Vec::new();
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) | Event::Warning(text) => notes.push(text.to_owned()),
        Event::Progress { .. } => {}
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    let data = open(config, 256, &mut loading).expect("readable");
    let about = data.summary.split(" with ").next().unwrap_or_default();
    (about.rsplit_once(": ").map_or(about, |(_, about)| about).to_owned(), notes)
}

#[test]
fn a_setting_about_files_is_heeded_or_said_to_do_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let separator = ["--training.document_separator=--"];
    let field = ["--training.text_field=body"];
    let shape = ["--training.seq_len=16", "--training.batch_size=1"];
    for (kind, path) in files(folder.path()) {
        let with = |setting: &[&str]| {
            let args = [&shape[..], &["--training.dataset_path", &path], setting].concat();
            read(&config("", &args))
        };
        let (plain, notes) = with(&[]);
        assert!(notes.is_empty(), "{kind}: {notes:?}");
        for (setting, name) in
            [(&separator[..], "training.document_separator"), (&field[..], "training.text_field")]
        {
            let (about, notes) = with(setting);
            let is_said = |note: &String| note.starts_with(&format!("{path}: {name} "));
            assert_eq!(notes.iter().filter(|note| is_said(note)).count(), notes.len(), "{kind}: {notes:?}");
            assert_eq!(about == plain, notes.len() == 1, "{kind}, {name}: {about}; {notes:?}");
        }
        // Of a mixture, a field of one dataset's own.
        let list = format!("[[training.datasets]]\npath = {path:?}\ntext_field = \"body\"\n");
        let (about, notes) = read(&config(&list, &shape));
        assert_eq!(about == plain, notes.len() == 1, "{kind}: {about}; {notes:?}");
        let names_it = |note: &String| note.contains(": text_field of training.datasets ");
        assert!(notes.iter().all(names_it), "{notes:?}");
    }
    // Of a folder with both kinds of files, each setting is for one of them.
    let path = folder.path().join("both");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join("a.txt"), TEXT).expect("written");
    std::fs::write(path.join("b.jsonl"), "{\"body\": \"some text\"}").expect("written");
    let path = path.display().to_string();
    let args = [&shape[..], &["--training.dataset_path", &path], &separator, &field].concat();
    assert_eq!(read(&config("", &args)).1, [""; 0]);
}

#[test]
fn what_linc_tokenize_does_not_heed_is_said_by_the_name_of_its_flag() {
    let folder = tempfile::tempdir().expect("a folder");
    for (kind, path) in files(folder.path()).into_iter().filter(|(kind, _)| *kind != "shards") {
        let out = folder.path().join(format!("{kind}-out"));
        let mut notes = Vec::new();
        let mut tell = |event: Event<'_>| match event {
            Event::Note(text) | Event::Warning(text) => notes.push(text.to_owned()),
            Event::Progress { .. } => {}
        };
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
        let settings = TokenizeSettings {
            path: &path,
            text_field: "body",
            document_separator: Some("--"),
            tokenizer_path: None,
            out: &out,
            held_out: 0.0,
            shard_tokens: 1000,
        };
        let made = tokenize(settings, &mut loading).expect("shards");
        let (documents, ignored) = match kind {
            "plain" => (3, "--text-field"),
            _ => (1, "--document-separator"),
        };
        assert_eq!(made.documents, documents, "{kind}");
        let [note] = &notes[..] else { panic!("{kind}: {notes:?}") };
        assert!(note.starts_with(&format!("{path}: {ignored} has no effect")), "{note}");
    }
}

#[test]
fn a_share_to_hold_out_of_shards_is_said_to_do_nothing() {
    let (folder, corpus) = temporary("a.jsonl", "{\"text\": \"a tale of two\"}\n".repeat(90).as_bytes());
    let lines: String = (0..90).map(|i| format!("{{\"text\": \"tale {i} of ninety\"}}\n")).collect();
    std::fs::write(&corpus, lines).expect("written");
    let out = folder.path().join("out").display().to_string();
    shards(&corpus, &out, 0.2);
    let shape = ["--training.seq_len=16", "--training.batch_size=1", "--validation.enable"];
    let with = |path: &str, more: &[&str]| {
        let args = [&shape[..], &["--training.dataset_path", path], more].concat();
        read(&config("", &args)).1.concat()
    };
    let share = ["--validation.fraction", "0.3"];
    assert!(with(&out, &share).contains("validation.fraction has no effect"), "{}", with(&out, &share));
    assert_eq!(with(&out, &[]), "");
    assert_eq!(with(&corpus, &share), "");
}
