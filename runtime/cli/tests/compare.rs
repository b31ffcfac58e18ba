//! `linc compare` as a user has it: two runs, the page that a person marks by keys, and what the marks come to.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Folder, refuse, succeed};

/// Two trained runs of other ratios, with names that are no HTML.
fn runs(folder: &Folder) -> [String; 2] {
    let config = folder.config();
    [("0", "one <b>&"), ("1", "two")].map(|(ratio, name)| {
        let to = folder.path(name).display().to_string();
        succeed(&["train", &config, "--model.linear_attn_ratio", ratio, "--job.dump_folder", &to]);
        to
    })
}

/// Few prompts, short enough for a context of 32 bytes.
fn prompts(folder: &Folder) -> String {
    folder.file(
        "prompts.jsonl",
        "{\"prompt\": \"the quick\"}\n{\"prompt\": \"<i>fox</i>\"}\n{\"prompt\": \"dog\"}\n",
    )
}

#[test]
fn texts_are_written_marked_and_counted() {
    let folder = Folder::new("compare");
    let [one, two] = runs(&folder);
    let prompts = prompts(&folder);
    let to = folder.path("out").display().to_string();
    let command =
        ["compare", &one, &two, "--prompts", &prompts, "--tokens", "12", "--out", &to, "--device", "cpu"];
    let said = succeed(&command);
    assert!(said.contains("3 texts of each") && said.contains("compare.html"), "{said}");
    let page = fs::read_to_string(folder.path("out/compare.html")).expect("the page");
    assert!(
        !page.contains("one <b>") && !page.contains("one &lt;b&gt;") && !page.contains("<i>fox"),
        "it is blind"
    );
    let key: Value =
        serde_json::from_slice(&fs::read(folder.path("out/compare.json")).expect("the key")).expect("JSON");
    assert_eq!(
        (key["writers"][0]["path"].as_str(), key["texts"][1].as_array().map(Vec::len)),
        (Some(one.as_str()), Some(3))
    );
    // The same seed, the same texts: those of linc generate.
    succeed(&command);
    let again: Value =
        serde_json::from_slice(&fs::read(folder.path("out/compare.json")).expect("the key")).expect("JSON");
    assert_eq!(again, key);
    let step = folder.path("one <b>&/checkpoint/step-6").display().to_string();
    let generated = succeed(&["generate", &step, "--prompts", &prompts, "--tokens", "12", "--device", "cpu"]);
    for (number, line) in generated.lines().enumerate() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["text"], key["texts"][0][number][0]);
    }
    refuse(&["compare", "--tally", &to], &["has no marks yet", "ratings-NAME.json"]);
    let mut ratings = vec![];
    for (prompt, order) in key["order"].as_array().expect("orders").iter().enumerate() {
        for (place, writer) in order.as_array().expect("an order").iter().enumerate() {
            let mark = if writer == 0 { 4 } else { 2 };
            let text = ["A", "B"][place];
            ratings.push(json!({"prompt": prompt + 1, "text": text, "coherence": mark, "accuracy": mark, "creativity": mark}));
        }
    }
    let marks = json!({"linc_compare": 1, "study": key["study"], "rater": "Ann", "ratings": ratings});
    folder.file("out/ratings-ann.json", marks.to_string());
    let said = succeed(&["compare", "--tally", &to]);
    assert!(
        said.contains("4.00 ± 0.00") && said.contains("better by") && said.contains("Ann (18 of 18 marks)"),
        "{said}"
    );
    assert!(folder.path("out/tally.csv").is_file());
    folder.file("out/ratings-bob.json", marks.to_string().replace("Ann", "Bob").replacen(":4", ":9", 1));
    refuse(&["compare", "--tally", &to], &["ratings-bob.json rating", "expected a whole number from 1 to 5"]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let folder = Folder::new("compare_refused");
    let [one, _] = runs(&folder);
    let prompts = prompts(&folder);
    let to = folder.path("out").display().to_string();
    refuse(&["compare", &one, "--out", &to], &["1 model named", "2 to 8"]);
    refuse(&["compare", &one, "none", "--out", &to, "--prompts", &prompts], &["none"]);
    refuse(&["compare", &one, &one, "--out", &to, "--prompts", "nothing.jsonl"], &["nothing.jsonl"]);
    // The built-in prompts are longer than 32 bytes.
    refuse(&["compare", &one, &one, "--out", &to], &["prompt of line 1", "exceeds the context of 32"]);
    refuse(&["compare", &one, &one, "--out", &to, "--temperature", "-1"], &["temperature"]);
    refuse(&["compare", "--tally", &one], &["has no compare.json"]);
    refuse(&["compare", &one, &one, "--prompts", &prompts, "--out", "/proc/none"], &["cannot create"]);
}

#[test]
fn a_browser_shows_one_prompt_and_complains_of_nothing() {
    let Some(browser) = crate::report::browser() else { return };
    let folder = Folder::new("compare_browser");
    let [one, two] = runs(&folder);
    let to = folder.path("out").display().to_string();
    succeed(&["compare", &one, &two, "--prompts", &prompts(&folder), "--tokens", "8", "--out", &to]);
    let (drawn, said) = crate::report::drawn(browser, &folder, &folder.path("out/compare.html"));
    assert!(!said.contains(":CONSOLE"), "{said}");
    let hidden = drawn
        .split("<article")
        .skip(1)
        .filter(|article| article.split('>').next().unwrap_or_default().contains("hidden"));
    assert_eq!(hidden.count(), 2, "one of three prompts is shown");
    assert!(drawn.contains("Prompt 1 of 3, 0 of 18 marks"), "{drawn}");
}
