//! `linc compare` as a user has it: two runs, the page that a person marks by keys, and what the marks come to.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Folder, linc, refuse, succeed};

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
fn all_models_have_the_same_room_and_use_it() {
    let folder = Folder::new("compare_room");
    let config = folder.config();
    let [short, long] = [("short", "32"), ("long", "64")].map(|(name, tokens)| {
        let to = folder.path(name).display().to_string();
        succeed(&["train", &config, "--training.seq_len", tokens, "--job.dump_folder", &to]);
        to
    });
    let prompts = folder.file("prompts.txt", "the quick\n");
    let texts = |models: [&str; 2], name: &str| {
        let to = folder.path(name).display().to_string();
        let command =
            ["compare", models[0], models[1], "--prompts", &prompts, "--tokens", "40", "--out", &to];
        let output = linc(&command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let key = fs::read(folder.path(name).join("compare.json")).expect("the key");
        let key: Value = serde_json::from_slice(&key).expect("JSON");
        let length = |model: usize| key["texts"][model][0][0].as_str().map_or(0, |text| text.chars().count());
        ([length(0), length(1)], said)
    };
    // Bytes are tokens: behind a prompt of 9 and what begins a text there are at most 23.
    let ([one, two], said) = texts([&short, &long], "both");
    assert!(one <= 23 && two <= 23, "{one} {two}");
    assert!(said.contains("1 text cut short by the context of 32, before 40 tokens"), "{said}");
    let ([one, two], said) = texts([&long, &long], "long_ones");
    assert!(two == one && !said.contains("cut short"), "{one} {two}: {said}");
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
    refuse(&["compare", &one, &one, "--out", &to], &["built-in prompt 1: ", "exceeds the context of 32"]);
    let long = folder.file("long.txt", format!("fox\n{}\n", "x".repeat(40)));
    refuse(
        &["compare", &one, &one, "--out", &to, "--prompts", &long],
        &["long.txt:2: ", "exceeds the context"],
    );
    refuse(&["compare", &one, &one, "--out", &to, "--temperature", "-1"], &["temperature"]);
    for (option, value) in [
        ("--tokens", "3"),
        ("--temperature", "1"),
        ("--top-k", "3"),
        ("--top-p", "0.5"),
        ("--seed", "3"),
        ("--context", "8"),
        ("--precision", "float32"),
        ("--device", "cpu"),
        ("--threads", "1"),
    ] {
        refuse(&["compare", "--tally", &one, option, value], &["--tally", option]);
    }
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
