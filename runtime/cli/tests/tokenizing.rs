//! A start that is ended while it tokenizes, by Ctrl-C or in the hardest way, has not worked for nothing.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Folder, stoppable};

/// Files of the cache of token ids with that ending.
fn cached(cache: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join("tokens")).into_iter().flatten().flatten().map(|file| file.path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// A command on one of the cores that this test may use: many of them tokenize the text before somebody could end it.
fn on_one_core(command: &Command) -> Command {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let core: String = allowed.unwrap_or("0").trim().chars().take_while(char::is_ascii_digit).collect();
    let has_taskset = Command::new("taskset").args(["-c", &core, "true"]).status().is_ok_and(|s| s.success());
    let mut all = if has_taskset { vec!["taskset".into(), "-c".into(), core.into()] } else { vec![] };
    all.push(command.get_program().to_owned());
    all.extend(command.get_args().map(ToOwned::to_owned));
    let mut bound = Command::new(&all[0]);
    bound.args(&all[1..]);
    bound
}

/// A run on a text of 7 MB with a tokenizer that knows some words and the letters of others.
struct Run {
    folder: Folder,
    args: Vec<String>,
}

impl Run {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let words = (0..400_000u64).map(|i| {
            format!("{} {i}\n", ["the quick brown fox", "jumps", "over the lazy dog"][(i * i % 3) as usize])
        });
        let text = folder.file("long.txt", words.collect::<String>());
        let letters = (b'a'..=b'z').chain(b'0'..=b'9').map(|c| (c as char).to_string());
        let vocab = letters.chain(["th".into(), "the".into()]).enumerate();
        let vocab: Vec<String> = vocab.map(|(id, token)| format!("{token:?}: {id}")).collect();
        let json = format!(
            r#"{{"version": "1.0", "added_tokens": [], "pre_tokenizer": {{"type": "Whitespace"}},
            "model": {{"type": "BPE", "vocab": {{{}}}, "merges": ["t h", "th e"]}}}}"#,
            vocab.join(", ")
        );
        let tokenizer = folder.file("tokenizer.json", json);
        let args = [
            "train",
            &folder.config(),
            "--training.dataset_path",
            &text,
            "--model.tokenizer_path",
            &tokenizer,
        ]
        .map(String::from)
        .into_iter()
        .chain(["--training.steps", "1", "--validation.enable", "false"].map(String::from))
        .collect();
        Self { folder, args }
    }

    fn command(&self, cache: &str) -> Command {
        let mut command = on_one_core(&stoppable());
        command
            .args(&self.args)
            .env("CUDA_VISIBLE_DEVICES", "")
            .env("LINC_CACHE_DIR", self.folder.path(cache));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Standard output of a run to its end, and the ids that it keeps.
    fn finish(&self, cache: &str) -> (String, Vec<u8>) {
        let output = self.command(cache).output().expect("linc runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let cache = self.folder.path(cache);
        let [ids] = &cached(&cache, "ids")[..] else { panic!("{:?}", cached(&cache, "ids")) };
        assert!(
            cached(&cache, "part").is_empty() && cached(&cache, "tmp").is_empty(),
            "they are not needed any more"
        );
        (String::from_utf8_lossy(&output.stdout).into_owned(), fs::read(ids).expect("ids"))
    }

    /// Ends a run with a signal as soon as it has kept so many parts.
    fn end_at(&self, cache: &str, parts: usize, signal: &str) -> Output {
        let mut child: Child = self.command(cache).spawn().expect("linc runs");
        let begun = Instant::now();
        while cached(&self.folder.path(cache), "part").len() < parts {
            assert!(child.try_wait().expect("a status").is_none(), "it has ended by itself");
            assert!(begun.elapsed() < Duration::from_secs(90), "nothing is kept");
            std::thread::sleep(Duration::from_millis(1));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let output = child.wait_with_output().expect("its output");
        assert!(!output.status.success() && cached(&self.folder.path(cache), "ids").is_empty());
        output
    }
}

#[test]
fn a_start_goes_on_where_another_was_ended() {
    let run = Run::new("tokenizing");
    let (said, whole) = run.finish("whole");
    assert!(!said.contains("Tokenizing goes on"), "{said}");

    // Killed twice, and a part is damaged besides.
    run.end_at("killed", 2, "-KILL");
    let parts = cached(&run.folder.path("killed"), "part");
    let contents: Vec<Vec<u8>> = parts.iter().map(|path| fs::read(path).expect("a part")).collect();
    run.end_at("killed", parts.len() + 2, "-KILL");
    for (path, contents) in parts.iter().zip(&contents) {
        assert!(fs::read(path).expect("a part") == *contents, "it is still there");
    }
    let mut damaged = contents[0].clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&parts[0], damaged).expect("written");
    let (said, ids) = run.finish("killed");
    assert!(said.contains("Tokenizing goes on with what an earlier start has left"), "{said}");
    assert!(ids == whole, "other ids");

    let output = run.end_at("interrupted", 1, "-INT");
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("the same command goes on from there"), "{said}");
    let (said, ids) = run.finish("interrupted");
    assert!(said.contains("Tokenizing goes on"), "{said}");
    assert!(ids == whole, "other ids");
}
