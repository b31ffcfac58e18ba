//! Ids of each width, and rows of ids that somebody else made.

use std::sync::Arc;

use parquet::data_type::Int32Type;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;
use crate::split::is_held_out;

/// A Parquet file with a row of each list.
fn write_rows(path: &str, rows: &[Vec<u32>]) {
    let schema =
        "message m { optional group ids (LIST) { repeated group list { optional int32 element; } } }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let properties = Arc::new(WriterProperties::builder().build());
    let file = fs::File::create(path).expect("a file");
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("reads").expect("a column");
    let ids: Vec<i32> = rows.iter().flatten().map(|id| *id as i32).collect();
    // A list without elements is one level short of them.
    let definition = |row: &Vec<u32>| if row.is_empty() { vec![1] } else { vec![3; row.len()] };
    let repetition = |row: &Vec<u32>| (0..row.len().max(1)).map(|at| i16::from(at > 0)).collect::<Vec<i16>>();
    let definition: Vec<i16> = rows.iter().flat_map(definition).collect();
    let repetition: Vec<i16> = rows.iter().flat_map(repetition).collect();
    let typed = column.typed::<Int32Type>();
    typed.write_batch(&ids, Some(&definition), Some(&repetition)).expect("ids");
    column.close().expect("written");
    group.close().expect("written");
    writer.close().expect("written");
}

struct Written(tempfile::TempDir);

impl Written {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn run(&self, file: &str, out: &str, tokenizer: Option<&str>) -> Result<Tokenized, DataError> {
        let (path, out) = (self.path(file), self.path(out));
        let settings = TokenizeSettings {
            path: &path,
            text_field: if file.ends_with("parquet") { "ids" } else { "text" },
            document_separator: None,
            tokenizer_path: tokenizer,
            out: Path::new(&out),
            held_out: 0.2,
            shard_tokens: 500,
        };
        quiet(|loading| tokenize(settings, loading))
    }

    fn tokens(&self, out: &str, part: Part, tokenizer: &Tokenizer) -> Shards {
        Shards::open(Path::new(&self.path(out)), part, tokenizer).expect("shards")
    }
}

/// Texts of words, each of them another one, none of which starts or ends with a blank.
fn texts() -> Vec<String> {
    let words = |i: usize| (0..10).map(move |bit| ["a", "b", "c", "d"][(i >> bit & 1) + 2 * (bit & 1)]);
    (0..400).map(|i| words(i).collect::<Vec<&str>>().join(" ")).collect()
}

#[test]
fn ids_of_each_width_of_texts_and_of_rows() {
    for (first, width) in [(0, 1), (249, 1), (250, 2), (65_529, 2), (65_530, 4), (100_000, 4)] {
        let written = Written(tempfile::tempdir().expect("a folder"));
        let path = written.path("tokenizer.json");
        fs::write(&path, words_from(first, &["</s>", "<s>"])).expect("written");
        let tokenizer = Tokenizer::open(Path::new(&path)).expect("a tokenizer");
        assert_eq!(tokenizer.vocab_size(), first + 7);
        let (bos, eos) = (tokenizer.bos().expect("one"), tokenizer.eos().expect("one"));
        let lines = texts().into_iter().map(|text| format!("{{\"text\": {text:?}}}\n"));
        fs::write(written.path("a.jsonl"), lines.collect::<String>()).expect("written");
        let row = |(number, text): (usize, String)| {
            let ids = tokenizer.encode_ids(&text).expect("ids");
            let (before, after) = ([bos].repeat(number & 1), [eos].repeat(number >> 1 & 1));
            [before, ids, after].concat()
        };
        write_rows(
            &written.path("a.parquet"),
            &texts().into_iter().enumerate().map(row).collect::<Vec<Vec<u32>>>(),
        );
        let of_text = written.run("a.jsonl", "texts", Some(&path)).expect("shards");
        let of_rows = written.run("a.parquet", "rows", Some(&path)).expect("shards");
        assert_eq!(of_text, of_rows);
        assert!(of_text.held_out > 100 && of_text.shards > 3, "{of_text:?}");
        let expected = |is_held: bool| {
            let texts = texts().into_iter().filter(move |text| is_held_out(text, 0.2) == is_held);
            let ids = |text: String| tokenizer.encode_ids(&text).expect("ids");
            let all = texts.flat_map(|text| [vec![bos], ids(text), vec![eos]].concat());
            all.map(|id| id as i32).collect::<Vec<i32>>()
        };
        for out in ["texts", "rows"] {
            let head = fs::read(written.path(&format!("{out}/training-00000.tokens"))).expect("a shard");
            assert_eq!(head[20], width);
            for (part, is_held) in [(Part::Training, false), (Part::Validation, true)] {
                let shards = written.tokens(out, part, &tokenizer);
                let bytes = shards.bytes_of(0..shards.len()).expect("read");
                assert_eq!(bytes, is_held.then(|| shards.text_bytes()), "{out}");
                assert_eq!(all(&Tokens::Shards(shards)), expected(is_held), "{out}");
            }
        }
    }
}

#[test]
fn rows_that_the_tokenizer_would_make_otherwise_are_held_out_by_their_text() {
    let written = Written(tempfile::tempdir().expect("a folder"));
    let path = written.path("tokenizer.json");
    fs::write(&path, words_from(300, &["</s>", "<s>"])).expect("written");
    let tokenizer = Tokenizer::open(Path::new(&path)).expect("a tokenizer");
    // A special token within it, which no text has.
    let row = |text: String| {
        let ids = tokenizer.encode_ids(&text).expect("ids");
        [&ids[..3], &[305, 306, 305], &ids[3..]].concat()
    };
    let rows: Vec<Vec<u32>> = texts().into_iter().map(row).collect();
    write_rows(&written.path("a.parquet"), &rows);
    written.run("a.parquet", "out", Some(&path)).expect("shards");
    let held = texts().into_iter().filter(|text| is_held_out(text, 0.2));
    let (documents, bytes) = held.fold((0, 0), |(count, bytes), text| (count + 1, bytes + text.len() as u64));
    let (validation, training) = (
        written.tokens("out", Part::Validation, &tokenizer),
        written.tokens("out", Part::Training, &tokenizer),
    );
    assert!(documents > 40);
    assert_eq!((validation.documents(), training.documents()), (documents, 400 - documents));
    // Bits per byte are of the text, to which special tokens add nothing.
    assert_eq!(validation.bytes_of(0..validation.len()), Ok(Some(bytes)));
    assert_eq!(validation.len(), documents * 15);
    // As many tokens as somebody may have filled a row with take no time that grows with its square.
    let mut texts = (0..40).map(|number| vec![300 + number % 4; number as usize + 1]);
    let text = texts.find(|ids| is_held_out(&tokenizer.decode(ids), 0.2)).expect("one of forty");
    let rows: Vec<Vec<u32>> = rows.into_iter().chain([[text, vec![306; 200_000]].concat()]).collect();
    write_rows(&written.path("b.parquet"), &rows);
    let made = written.run("b.parquet", "long", Some(&path)).expect("shards");
    assert!(made.held_out > 200_000, "{made:?}");
}

#[test]
fn rows_of_bytes_have_the_rules_of_texts_of_bytes() {
    let written = Written(tempfile::tempdir().expect("a folder"));
    write_rows(&written.path("a.parquet"), &[vec![0, 97, 98], vec![0], vec![], vec![98, 97]]);
    let made = written.run("a.parquet", "out", None).expect("shards");
    let tokens = |part| written.tokens("out", part, &Tokenizer::bytes());
    let (training, validation) = (tokens(Part::Training), tokens(Part::Validation));
    assert_eq!((training.documents() + validation.documents(), made.tokens + made.held_out), (2, 6));
    write_rows(&written.path("b.parquet"), &[vec![0, 97, 98], vec![97, 0, 98]]);
    let refused = written.run("b.parquet", "bad", None).expect_err("a byte of no text").to_string();
    assert!(refused.contains("b.parquet, document 2: the id 0 within it"), "{refused}");
}
