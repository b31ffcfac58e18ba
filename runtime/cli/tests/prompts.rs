//! Many prompts at once: JSON lines in their order, each as the prompt is continued alone.

use serde_json::Value;

use crate::common::{Folder, linc, refuse, succeed};

/// The checkpoint of a short run.
fn trained(folder: &Folder) -> String {
    succeed(&["train", &folder.config(), "--training.steps", "30"]);
    folder.path("run/checkpoint/step-30").display().to_string()
}

fn records(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

#[test]
fn prompts_of_a_file_are_continued_as_each_is_alone() {
    let folder = Folder::new("many_prompts");
    let step = trained(&folder);
    let prompts = ["the quick", "a", "lazy dog the", "fox jumps", "over the"];
    let lines = folder.file("prompts.txt", prompts.join("\n") + "\n\n");
    let greedy = ["--greedy", "--tokens", "12", "--device", "cpu"];
    let alone = |prompt: &str| {
        let text = succeed(&[&["generate", &step, "--prompt", prompt][..], &greedy].concat());
        text.strip_prefix(prompt)
            .and_then(|text| text.strip_suffix('\n'))
            .expect("prompt and line")
            .to_owned()
    };
    let many = |args: &[&str]| {
        let output = linc(&[&["generate", &step][..], args, &greedy].concat());
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(0), "{said}");
        (records(&String::from_utf8(output.stdout).expect("UTF-8")), said)
    };
    let expected: Vec<String> = prompts.iter().map(|prompt| alone(prompt)).collect();
    for batch in ["1", "2", "16"] {
        let (found, said) = many(&["--prompts", &lines, "--batch", batch]);
        for (at, record) in found.iter().enumerate() {
            assert_eq!(record["index"], at, "{record}");
            assert_eq!(record["prompt"], prompts[at], "{record}");
            assert_eq!(record["text"], expected[at].as_str(), "batch {batch}: {record}");
            assert_eq!((&record["tokens"], &record["finish_reason"]), (&12.into(), &"length".into()));
        }
        assert_eq!(found.len(), prompts.len());
        assert!(said.contains("wrote 60 at") && said.contains("first token after"), "{said}");
        assert!(said.contains("with softmax attention in all layers"), "{said}");
    }

    // JSON lines keep what else they say; a piece is a line where that is asked for.
    let records =
        folder.file("prompts.jsonl", "{\"task\": 7, \"prompt\": \"the quick\"}\n{\"prompt\": \"a\"}\n");
    let (found, _) = many(&["--prompts", &records, "--logprobs", "2"]);
    assert_eq!((&found[0]["task"], &found[0]["text"]), (&7.into(), &expected[0].as_str().into()));
    let named = folder.file(
        "named.jsonl",
        "{\"prompt\": \"the quick\", \"text\": \"gold\", \"index\": 9, \"given\": 1, \"task\": 7}",
    );
    let (found_named, _) = many(&["--prompts", &named]);
    let line = &found_named[0];
    assert_eq!((&line["task"], &line["index"], &line["text"]), (&7.into(), &0.into(), &found[0]["text"]));
    assert_eq!(line["given"], serde_json::json!({"text": "gold", "index": 9, "given": 1}), "{line}");
    let scores = found[1]["logprobs"].as_array().expect("scores");
    assert_eq!(scores.len(), 12);
    for score in scores {
        // The greedy token is the most likely one.
        let top = score["top"].as_array().expect("the most likely");
        assert_eq!((top.len(), &top[0]["id"], &top[0]["logprob"]), (2, &score["id"], &score["logprob"]));
        assert!(score["logprob"].as_f64().is_some_and(|x| x <= 0.0), "{score}");
    }
    let (pieces, _) = many(&["--prompts", &records, "--stream"]);
    for (index, expected) in expected[..2].iter().enumerate() {
        let of_prompt = pieces.iter().filter(|piece| piece["index"] == index);
        let text: String = of_prompt.clone().filter_map(|piece| piece["text"].as_str()).collect();
        assert_eq!(&text, expected);
        assert_eq!(of_prompt.filter(|piece| piece["finish_reason"] == "length").count(), 1);
    }

    // Where nothing can be written, nobody is told that all went well.
    if cfg!(target_os = "linux") {
        for stream in [&["--stream"][..], &[]] {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_linc"));
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
            command.args(["generate", &step, "--prompts", &records]).args(greedy).args(stream).stdout(full);
            assert_eq!(command.output().expect("linc runs").status.code(), Some(2), "{stream:?}");
        }
    }

    // The same prompt twice is two draws, each that of a prompt alone with the seed behind it.
    let twice = folder.file("twice.txt", "the quick\nthe quick\n");
    let drawn = succeed(&[
        "generate",
        &step,
        "--prompts",
        &twice,
        "--tokens",
        "12",
        "--device",
        "cpu",
        "--seed",
        "6",
    ]);
    for (record, seed) in self::records(&drawn).iter().zip(["6", "7"]) {
        let alone =
            ["generate", &step, "--prompt", "the quick", "--tokens", "12", "--device", "cpu", "--seed", seed];
        assert_eq!(succeed(&alone), format!("the quick{}\n", record["text"].as_str().expect("a text")));
    }
    assert_ne!(self::records(&drawn)[0]["text"], self::records(&drawn)[1]["text"]);

    // A stop is left out, in a text by itself as well.
    let stop: String = expected[0].chars().skip(3).take(2).collect();
    let before = expected[0].split(&stop).next().expect("a part");
    let (found, _) = many(&["--prompts", &lines, "--stop", &stop]);
    assert_eq!((&found[0]["text"], &found[0]["finish_reason"]), (&before.into(), &"stop".into()));
    let text =
        succeed(&[&["generate", &step, "--prompt", prompts[0], "--stop", &stop][..], &greedy].concat());
    assert_eq!(text, format!("{}{before}\n", prompts[0]));
}

#[test]
fn mistakes_of_many_prompts_are_told_with_their_line() {
    let folder = Folder::new("wrong_prompts");
    let step = trained(&folder);
    let wrong = |contents: &str, args: &[&str], said: &[&str]| {
        let file = folder.file("wrong.jsonl", contents);
        refuse(&[&["generate", &step, "--prompts", &file][..], args].concat(), said);
    };
    wrong("{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n", &[], &["wrong.jsonl:2", "no field `prompt`", "text"]);
    wrong("{\"prompt\": \"a\"}\n{\"prompt\": \"b\"", &[], &["wrong.jsonl:2", "no JSON"]);
    wrong("\n", &[], &["no prompt"]);
    let long = format!("{{\"prompt\": \"a\"}}\n{{\"prompt\": \"{}\"}}", "a".repeat(40));
    wrong(&long, &["--tokens", "4"], &[":2: ", "the context of 32"]);
    let one = "{\"prompt\": \"a\"}";
    wrong(one, &["--tokens", "0"], &["--tokens is 0"]);
    wrong(one, &["--stop", ""], &["--stop is an empty text"]);
    wrong(one, &["--stop", &"a".repeat(1025)], &["1025 bytes", "1 to 1024"]);
    wrong(one, &["--min-p", "2"], &["--min-p is 2"]);
    wrong(one, &["--repetition-penalty", "0"], &["--repetition-penalty is 0"]);
    wrong(one, &["--prompt", "a"], &["cannot be used with"]);
    refuse(
        &["generate", &step, "--prompts", &folder.path("none").display().to_string()],
        &["none", "no such file"],
    );
    refuse(&["generate", "--prompt", "a"], &["CHECKPOINT"]);
    refuse(&["generate", &step, "--checkpoint", &step], &["cannot be used with"]);
}
