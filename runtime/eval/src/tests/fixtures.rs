//! A folder of data as it is published, small and made up.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, text).expect("written");
}

/// A file of each task.
pub(super) fn published() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let row = |subject: &str, i: usize| {
        let letter = ["A", "B", "C", "D"][(i * 7 + i / 4) % 4];
        format!("\"What, of {subject}, has number {i}?\",one{i:02},two{i:02},six{i:02},ten{i:02},{letter}\n")
    };
    for subject in ["anatomy", "world_religions"] {
        let rows = |count: usize| (0..count).map(|i| row(subject, i)).collect::<String>();
        write(data, &format!("mmlu/test/{subject}_test.csv"), rows(80));
        write(data, &format!("mmlu/dev/{subject}_dev.csv"), rows(5));
    }
    let lines = |count: usize, line: &dyn Fn(usize) -> serde_json::Value| {
        (0..count).map(|i| format!("{}\n", line(i))).collect::<String>()
    };
    let hellaswag = |i: usize| {
        json!({
            "activity_label": "Roof", "ctx_a": format!("Man {i} is on a roof [step] today."), "ctx_b": "he",
            "endings": [format!("falls {i}."), format!("jumps {i}."), format!("rests {i}."), format!("works {i}.")],
            "label": (i * 5 + i / 4) % 4,
        })
    };
    write(data, "hellaswag/hellaswag_val.jsonl", lines(100, &hellaswag));
    let arc = |i: usize| {
        let choice = |label: &str, text: &str| json!({ "label": label, "text": format!("{text}{i}") });
        json!({
            "id": format!("q{i}"),
            "question": {
                "stem": format!("What is {i}?"),
                "choices": [choice("1", "a"), choice("2", "b"), choice("3", "c"), choice("4", "d")],
            },
            "answerKey": (1 + (i + i / 4) % 4).to_string(),
        })
    };
    for part in ["Easy", "Challenge"] {
        write(data, &format!("ARC-V1-Feb2018-2/ARC-{part}/ARC-{part}-Test.jsonl"), lines(80, &arc));
        write(data, &format!("ARC-V1-Feb2018-2/ARC-{part}/ARC-{part}-Train.jsonl"), lines(8, &arc));
    }
    let lambada = |i: usize| json!({ "text": format!("The cat of number {i} sat down on the mat") });
    write(data, "lambada/lambada_test.jsonl", lines(50, &lambada));
    let problem = |i: usize| json!({ "question": format!("What is {i} + {i}?"), "answer": format!("It is {}.\n#### {}", 2 * i, 2 * i) });
    write(data, "gsm8k/train.jsonl", lines(20, &problem));
    write(data, "gsm8k/test.jsonl", lines(60, &problem));
    let function = |i: usize| {
        json!({
            "task_id": format!("Made/{i}"), "prompt": format!("def plus(x):\n    \"\"\"x + {i}\"\"\"\n"),
            "entry_point": "plus", "canonical_solution": format!("    return x + {i}\n"),
            "test": format!("def check(candidate):\n    assert candidate(1) == {}\n", i + 1),
        })
    };
    write(data, "humaneval/HumanEval.jsonl", lines(4, &function));
    let request = |i: usize| {
        let context = format!("Question {i}");
        json!({
            "doc_id": i, "target": 1,
            "arguments": {
                "gen_args_0": { "arg_0": context, "arg_1": " yes" },
                "gen_args_1": { "arg_0": context, "arg_1": " no" },
            },
            "resps": [[["0.0", "True"]], [["0.0", "True"]]],
        })
    };
    write(data, "samples.jsonl", lines(10, &request));
    let sentence = |i: usize| format!("Then came day number {} and nobody knew what it would bring. ", i * i);
    let story = |from: usize, count: usize| (from..from + count).map(sentence).collect::<String>();
    write(data, "text/a.txt", story(0, 400));
    write(data, "text/b.txt", story(500, 30));
    let page = |title: &str| {
        format!(
            " = {title} = \n \n The cat 's mat was 1 @,@ 000 feet long . \n \n = = Part = = \n \n It sat . \n \n"
        )
    };
    write(data, "wikitext2/wiki.test.raw", format!(" \n{}{}", page("One"), page("Two")));
    for count in [200, 400, 600] {
        let line = |i: usize| {
            let prompt = format!("line a: REGISTER_CONTENT is <{i}{count}>\nThe content of line a is");
            json!({ "prompt": prompt, "expected_number": i * 1000 + count })
        };
        write(data, &format!("longcontext/longeval_lines/{count}_lines.jsonl"), lines(5, &line));
    }
    for count in [75, 140] {
        let object = |i: usize| {
            let records: Vec<_> =
                (0..5).map(|j| json!([format!("key{j}"), format!("value{}", i * j)])).collect();
            json!({ "ordered_kv_records": records, "key": "key3", "value": format!("value{}", i * 3) })
        };
        let name = format!("longcontext/lost_in_the_middle/kv-retrieval-{count}_keys.jsonl");
        write(data, &name, lines(5, &object));
    }
    let chapter = |book: usize| (0..1500).map(|i| sentence(i * 3 + book)).collect::<String>();
    for book in 0..3 {
        write(data, &format!("books/some/book_{book}.txt"), chapter(book));
    }
    folder
}
