//! Files as people have them, written by the tests.

use super::*;
use crate::TokenCache;
use crate::loading::{Event, quiet};
use std::io::Write;
use std::sync::atomic::AtomicBool;

const TEXT: Wanted<'_> = Wanted { field: "text", allows_nul: false, separator: None };

fn read_documents(path: &str) -> Result<Vec<String>, DataError> {
    quiet(|loading| super::read_documents(path, TEXT, loading)).map(|(documents, _)| documents)
}

/// Documents, and what was said.
fn read_with(path: &str, wanted: Wanted<'_>) -> (Vec<String>, Vec<String>) {
    let mut notes = Vec::new();
    let mut tell = |event: Event<'_>| match event {
        Event::Note(text) | Event::Warning(text) => notes.push(text.to_owned()),
        Event::Progress { .. } => {}
    };
    let stop = AtomicBool::new(false);
    let mut loading = Loading { stop: &stop, tell: &mut tell, cache: TokenCache::default() };
    let (documents, _) = super::read_documents(path, wanted, &mut loading).expect("readable");
    (documents, notes)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).expect("to memory");
    encoder.finish().expect("to memory")
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).expect("to memory")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("mkdir");
        std::fs::write(&path, bytes).expect("write");
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

fn error(path: &str) -> String {
    read_documents(path).expect_err("should be refused").to_string()
}

#[test]
fn folders_and_globs_are_read_in_order() {
    let folder = Folder::new();
    folder.write("b/z.txt", "zed");
    folder.write("b/a.jsonl.gz", gzip("{\"text\": \"one\"}\n\n{\"id\": 3, \"text\": \"tw\\u00f6\"}\n"));
    folder.write("a.txt", "\u{feff}alpha");
    folder.write("a.bin", [0, 1]);
    folder.write("empty.txt", "");
    folder.write(".hidden.txt", "no");
    assert_eq!(read_documents(&folder.path("")).expect("read"), ["alpha", "one", "twö", "zed"]);
    assert_eq!(read_documents(&folder.path("*/*.txt")).expect("read"), ["zed"]);
    assert_eq!(read_documents(&folder.path("b*")).expect("read"), ["one", "twö", "zed"]);
    let raw = folder.write("wiki.test.raw", "raw text");
    assert_eq!(read_documents(&raw).expect("read"), ["raw text"]);
}

#[cfg(unix)]
#[test]
fn links_in_circles_end() {
    let folder = Folder::new();
    folder.write("a.txt", "alpha");
    std::os::unix::fs::symlink(folder.0.path(), folder.0.path().join("loop")).expect("symlink");
    assert_eq!(read_documents(&folder.path("")).expect("read"), ["alpha"]);
}

#[test]
fn bad_files_are_refused_with_their_place() {
    let folder = Folder::new();
    assert!(error(&folder.path("none.txt")).contains("no such file"));
    let nothing = error(&folder.path("*.txt"));
    assert!(nothing.contains("*.txt: nothing matches") && nothing.contains("has nothing"), "{nothing}");
    folder.write("some/a.csv", "");
    let other = error(&folder.path("some/*.txt"));
    assert!(other.contains("nothing matches") && other.contains("has a.csv"), "{other}");
    let missing = error(&folder.path("same/*/*.txt"));
    assert!(missing.contains("same: there is no such file or folder"), "{missing}");
    assert!(missing.contains("did you mean") && missing.contains("some?"), "{missing}");
    assert!(error("[").contains("not a valid pattern"), "{}", error("["));
    assert!(error(&folder.path("")).contains("no data files"));
    assert!(error(&folder.write("empty.txt", "")).contains("no text"));
    assert!(error(&folder.write("empty.jsonl", "\n{\"text\": \"\"}\n")).contains("no text"));
    assert!(error(&folder.write("nul.txt", "ab\0")).contains("byte 2 is NUL"));
    let latin = error(&folder.write("latin.txt", b"caf\xe9 au lait"));
    assert!(latin.contains("byte 3 is 0xe9") && latin.contains("iconv"), "{latin}");
    let line = error(&folder.write("a.jsonl", "{\"text\": \"x\"}\n{\"txt\": \"y\"}\n"));
    assert!(line.contains("a.jsonl:2: column 12: no field `text`; there are `txt`"), "{line}");
    assert!(error(&folder.write("b.jsonl", "{\"text\": 5}\n")).contains("b.jsonl:1: column"));
    assert!(error(&folder.write("c.jsonl", "{\"text\": \"x\"")).contains("c.jsonl:1"));
    assert!(error(&folder.write("d.jsonl", "{\"text\": \"a\\u0000\"}")).contains("NUL"));
    assert!(error(&folder.write("e.jsonl", "[1]")).contains("e.jsonl:1"));
    let whole = gzip(&"{\"text\": \"some text to pack\"}\n".repeat(50));
    let cut = error(&folder.write("cut.jsonl.gz", &whole[..whole.len() - 9]));
    assert!(cut.contains("cut off or damaged"), "{cut}");
    assert!(error(&folder.write("plain.jsonl.gz", "{\"text\": \"not packed\"}")).contains("gzip"));
    let mut flipped = whole.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    assert!(error(&folder.write("flip.jsonl.gz", &flipped)).contains("damaged"));
}

const LINES: &str = "{\"text\": \"one\"}\r\n{\"id\": [1], \"text\": \"two\"}\r\n";

#[test]
fn json_is_known_by_name_and_content() {
    let folder = Folder::new();
    for name in ["a.json", "a.jsonl", "a.ndjson", "A.JSON"] {
        assert_eq!(read_documents(&folder.write(name, LINES)).expect(name), ["one", "two"]);
        for (ending, bytes) in [("gz", gzip(LINES)), ("zst", zstd(LINES))] {
            let packed = folder.write(&format!("{name}.{ending}"), bytes);
            assert_eq!(read_documents(&packed).expect(name), ["one", "two"]);
        }
    }
    let list = "\u{feff} [{\"text\": \"one\"},\n {\"text\":\n \"two\"}]\n";
    assert_eq!(read_documents(&folder.write("list.json", list)).expect("a list"), ["one", "two"]);
    let spread = "{\n  \"text\": \"one\"\n}\n{\n  \"text\": \"two\"\n}\n";
    assert_eq!(read_documents(&folder.write("spread.json", spread)).expect("objects"), ["one", "two"]);
    assert_eq!(read_documents(&folder.path("[ls]*.json")).expect("a glob").len(), 4);
    // JSON lines under a name of plain text are no text to train on.
    for name in ["a.txt", "a.raw", "data", "a.md"] {
        let refused = error(&folder.write(name, LINES));
        assert!(refused.contains("`text`") && refused.contains(".jsonl"), "{refused}");
    }
    // Other JSON may be what somebody trains on.
    let other = folder.write("code.txt", "{\"other\": 1}\n");
    assert_eq!(read_documents(&other).expect("text"), ["{\"other\": 1}\n"]);
    let bad = error(&folder.write("bad.json", "[{\"text\": \"a\"},\n{\"tex\": \"b\"}]"));
    assert!(bad.contains("bad.json:2: column") && bad.contains("no field `text`"), "{bad}");
    assert!(error(&folder.write("c.json", "{\"text\": \"a\"} x")).contains("c.json:1"));
    assert!(error(&folder.write("d.json", "plain")).contains("d.json:1"));
    assert!(error(&folder.write("e.json", "[{\"text\": \"a\"}] 1")).contains("e.json:1"));
}

#[test]
fn the_field_of_the_text_can_be_chosen() {
    let folder = Folder::new();
    let path = folder.write("a.jsonl", "{\"text\": 1, \"content\": \"a\\u0000b\"}\n");
    let wanted = |field, allows_nul| Wanted { field, allows_nul, separator: None };
    assert_eq!(read_with(&path, wanted("content", true)).0, ["a\0b"]);
    let refused = |wanted| {
        quiet(|loading| super::read_documents(&path, wanted, loading)).expect_err("refused").to_string()
    };
    assert!(refused(wanted("content", false)).contains("NUL"));
    assert!(refused(wanted("text", true)).contains("expected a string"));
    let missing = refused(wanted("body", true));
    assert!(missing.contains("no field `body`; there are `text`, `content`"), "{missing}");
    assert!(missing.contains("training.text_field"), "{missing}");
    let twice = folder.write("b.jsonl", "{\"text\": \"a\", \"text\": \"b\"}");
    assert!(error(&twice).contains("two fields `text`"));
}

#[test]
fn what_a_folder_does_not_give_is_said_once() {
    let folder = Folder::new();
    folder.write("a.raw", "raw");
    folder.write("info.json", "{\"rows\": 1}");
    folder.write("b/c.json", LINES);
    for name in ["b/x.arrow", "b/x.csv.gz", "x.txt.xz", "LICENSE"] {
        folder.write(name, [0, 1]);
    }
    let (documents, notes) = read_with(&folder.path(""), TEXT);
    assert_eq!(documents, ["raw", "one", "two"]);
    let [note] = &notes[..] else { panic!("{notes:?}") };
    for name in ["LICENSE", "b/x.csv.gz", "b/x.arrow", "info.json", "x.txt.xz", ".ndjson"] {
        assert!(note.contains(name), "{note}");
    }
    for (name, advice) in [("b/x.arrow", "JSON lines"), ("x.txt.xz", "unpack"), ("b/x.csv.gz", "JSON lines")]
    {
        let refused = error(&folder.path(name));
        assert!(refused.contains(name) && refused.contains(advice), "{refused}");
    }
    assert!(error(&folder.path("b/*")).contains("is not read"));
}

/// Nobody writes into it: whoever opens it to read waits forever.
#[cfg(unix)]
#[test]
fn pipes_are_not_opened() {
    let folder = Folder::new();
    let pipe = folder.path("b.txt");
    if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no mkfifo");
        return;
    }
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(folder.path(to), folder.path(from));
    link("b.txt", "c.txt").expect("symlink");
    for named in ["b.txt", "c.txt"] {
        let refused = error(&folder.path(named));
        assert!(refused.contains(named) && refused.contains("pipe"), "{refused}");
    }
    assert!(error(&folder.path("")).contains("no data files"));
    assert!(error(&folder.path("*.txt")).contains("no data files"));
    folder.write("a.txt", "alpha");
    link("a.txt", "d.txt").expect("symlink");
    link("nowhere", "e.txt").expect("symlink");
    for path in [folder.path(""), folder.path("*.txt")] {
        let (documents, notes) = read_with(&path, TEXT);
        assert_eq!(documents, ["alpha", "alpha"], "{path}");
        let [note] = &notes[..] else { panic!("{notes:?}") };
        for name in ["b.txt", "c.txt", "e.txt"] {
            assert!(note.contains(&format!("{name} [no regular file]")), "{note}");
        }
    }
}

#[test]
fn gzip_may_be_filled_up_and_put_together() {
    let folder = Folder::new();
    let packed = |parts: &[&[u8]]| folder.write("a.txt.gz", parts.concat());
    let (one, two) = (gzip("one "), gzip("two"));
    let zeros = vec![0; 3 << 20];
    for parts in [&[&one[..], &two[..]][..], &[&one, &two, &zeros], &[&one, &zeros[..5], &two, &zeros[..1]]] {
        assert_eq!(read_documents(&packed(parts)).expect("packed"), ["one two"]);
    }
    assert!(error(&packed(&[&one, b"more"])).contains("damaged"));
    assert!(error(&packed(&[&one, &two[..two.len() - 1]])).contains("damaged"));
    // Known by its content too.
    assert_eq!(read_documents(&folder.write("b.txt", gzip("one"))).expect("packed"), ["one"]);
    let wide = error(&folder.write("w.txt", b"\xff\xfea\x01"));
    assert!(wide.contains("UTF-16"), "{wide}");
}

#[cfg(unix)]
#[test]
fn names_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let name = folder.0.path().join(OsStr::from_bytes(b"caf\xe9.txt"));
    if std::fs::write(&name, "latin").is_err() {
        eprintln!("skipped: this file system has UTF-8 names only");
        return;
    }
    folder.write("a.txt", "a");
    assert_eq!(read_documents(&folder.path("")).expect("a folder"), ["a", "latin"]);
    assert_eq!(read_documents(&folder.path("*.txt")).expect("a glob"), ["a", "latin"]);
    assert_eq!(read_documents(&folder.path("c*.txt")).expect("a glob"), ["latin"]);
}

#[test]
fn patterns_match_names_and_folders() {
    let folder = Folder::new();
    for name in ["a.txt", "x/b.txt", "x/y/c.txt", "x/y/d.md"] {
        folder.write(name, name);
    }
    let read = |pattern: &str| read_documents(&folder.path(pattern)).expect(pattern);
    assert_eq!(read("**/*.txt"), ["a.txt", "x/b.txt", "x/y/c.txt"]);
    assert_eq!(read("x/**/[cd].*"), ["x/y/c.txt", "x/y/d.md"]);
    assert_eq!(read("?/b.txt"), ["x/b.txt"]);
    assert_eq!(read("*/y"), ["x/y/c.txt"], "of a folder that matches, what is known as data");
    assert!(error(&folder.path("**.txt")).contains("not a valid pattern"));
}

#[test]
fn reading_can_be_stopped() {
    let folder = Folder::new();
    folder.write("a.txt", "alpha");
    let stop = AtomicBool::new(true);
    let mut loading = Loading { stop: &stop, tell: &mut |_| {}, cache: TokenCache::default() };
    let stopped = super::read_documents(&folder.path(""), TEXT, &mut loading);
    assert_eq!(stopped, Err(DataError::Interrupted));
    let stopped = unpack::read_text(&folder.0.path().join("a.txt"), &mut loading.paced("Reading", 5));
    assert_eq!(stopped, Err(DataError::Interrupted));
}

#[test]
fn zstd_is_unpacked_and_checked() {
    let folder = Folder::new();
    let text = "{\"text\": \"some text to pack\"}\n".repeat(90_000);
    let whole = zstd::encode_all(text.as_bytes(), 19).expect("to memory");
    assert_eq!(read_documents(&folder.write("a.jsonl.zst", &whole)).expect("packed").len(), 90_000);
    // Frames one behind the other, as of files that were put together, and by content too.
    let two = [zstd("{\"text\": \"one\"}\n{\"te"), zstd("xt\": \"two\"}")].concat();
    assert_eq!(read_documents(&folder.write("two.jsonl.zst", &two)).expect("packed"), ["one", "two"]);
    assert_eq!(read_documents(&folder.write("b.txt", zstd("plain"))).expect("packed"), ["plain"]);
    let damaged = |bytes: &[u8]| {
        let said = error(&folder.write("bad.jsonl.zst", bytes));
        assert!(said.contains("bad.jsonl.zst: the zstd file is cut off or damaged"), "{said}");
    };
    for cut in [0, 1, 3, whole.len() / 2, whole.len() - 1] {
        damaged(&whole[..cut]);
    }
    damaged(b"{\"text\": \"not packed\"}");
    damaged(&[&whole[..], b"more"].concat());
}

#[test]
fn windows_of_two_gibibytes_are_unpacked() {
    let folder = Folder::new();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("to memory");
    encoder.window_log(31).expect("allowed");
    encoder.write_all(&b"much the same ".repeat(10_000)).expect("to memory");
    let packed = encoder.finish().expect("to memory");
    let documents = read_documents(&folder.write("long.txt.zst", packed)).expect("unpacked");
    assert_eq!(documents[0].len(), 140_000);
}

#[test]
fn lines_may_be_longer_than_blocks() {
    let folder = Folder::new();
    let (long, short) = ("é".repeat(1_500_000), "s");
    let text: String =
        [&long, short, &long, "", short].map(|t| format!("{{\"text\": \"{t}\"}}\r\n")).concat();
    let expected = [&long, short, &long, short];
    for text in [text.as_str(), text.trim_end()] {
        assert!(read_documents(&folder.write("long.jsonl", text)).expect("lines") == expected);
    }
    let bad = error(&folder.write("bad.jsonl", text + "\n{\"text\": 5}"));
    assert!(bad.contains("bad.jsonl:7: column"), "{bad}");
}

#[test]
fn a_separator_makes_documents_of_a_plain_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tales.txt");
    std::fs::write(&path, "one\n<|endoftext|>\n\ntwo\nlines\n<|endoftext|><|endoftext|>\n").expect("written");
    let read = |separator| {
        let (documents, notes) = read_with(&path.display().to_string(), Wanted { separator, ..TEXT });
        (documents, notes.join("\n"))
    };
    assert_eq!(read(Some("<|endoftext|>")), (vec!["one".to_owned(), "two\nlines".to_owned()], String::new()));
    let (documents, said) = read(None);
    assert_eq!(documents.len(), 1);
    assert!(said.contains("it has \"<|endoftext|>\" 3 times and is one document"), "{said}");
    let (documents, said) = read(Some("---"));
    assert_eq!(documents.len(), 1);
    assert!(said.contains("\"---\", is nowhere between texts"), "{said}");
}
