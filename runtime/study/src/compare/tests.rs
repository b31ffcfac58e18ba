//! Comparisons of made-up texts, and marks on them that are chosen or broken.

use serde_json::{Value, json};

use super::tally::tally;
use super::*;

fn comparison(writers: usize, prompts: usize) -> Comparison {
    let writer = |number: usize| Writer {
        path: format!("<b>run {number}</b>"),
        model: "llama3 nano".into(),
        layers: "LS".into(),
        step: 3,
    };
    let prompt = |number: usize| Prompt {
        turns: vec![format!("Prompt <i>{number}</i> </script>")],
        category: None,
        line: None,
    };
    let texts =
        |writer: usize| (0..prompts).map(|p| vec![format!("<img src=x> of writer{writer}, {p}")]).collect();
    Comparison::new(
        (0..writers).map(writer).collect(),
        (0..prompts).map(prompt).collect(),
        (0..writers).map(texts).collect(),
        Sampling { seed: 7, ..Sampling::default() },
    )
}

/// Marks that follow from who wrote a text, though the person who gives them sees its place only.
fn marks(of: &Comparison, rater: &str, mark: impl Fn(usize, usize) -> u64) -> Value {
    let mut ratings = vec![];
    for (prompt, order) in of.order.iter().enumerate() {
        for (place, writer) in order.iter().enumerate() {
            let value = mark(*writer, prompt);
            ratings.push(json!({
                "prompt": prompt + 1, "text": page::label(place), "coherence": value, "accuracy": value, "creativity": 3,
            }));
        }
    }
    json!({ "linc_compare": 1, "study": of.study, "rater": rater, "ratings": ratings })
}

fn store(folder: &Path, name: &str, value: &Value) {
    fs::write(folder.join(name), value.to_string()).expect("written");
}

#[test]
fn the_page_says_nothing_of_the_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = comparison(3, 20);
    let written = of.write(folder.path()).expect("written");
    let page = fs::read_to_string(&written.page).expect("the page");
    assert!(
        !page.contains("run 0")
            && !page.contains("llama3")
            && !page.contains("<img")
            && !page.contains("<i>")
    );
    assert!(page.contains("Content-Security-Policy") && !page.contains("<link") && !page.contains(" src=\""));
    assert_eq!(page.matches("class=\"answer\"").count(), 60);
    assert_eq!(page.matches("<fieldset").count(), 180);
    assert_eq!(Comparison::read(folder.path()).expect("the key"), of);
    // Orders differ from prompt to prompt, and each writer comes first now and then.
    for writer in 0..3 {
        let first = of.order.iter().filter(|order| order[0] == writer).count();
        assert!((2..=12).contains(&first), "{first}");
    }
    // The same again, and others with other texts.
    assert_eq!(comparison(3, 20), of);
    assert_ne!(comparison(3, 19).study, of.study);
    // The same texts in another order, or of other writers, are another study: marks say places.
    let with = |seed: u64, step: usize| {
        let writers = of.writers.iter().map(|writer| Writer { step, ..writer.clone() }).collect();
        let sampling = Sampling { seed, ..Sampling::default() };
        Comparison::new(writers, of.prompts.clone(), of.texts.clone(), sampling).study
    };
    assert_eq!(with(7, 3), of.study);
    assert_ne!(with(8, 3), of.study);
    assert_ne!(with(7, 4), of.study);
}

#[test]
fn a_key_that_has_marks_is_not_replaced_by_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = comparison(2, 3);
    of.write(folder.path()).expect("written");
    comparison(2, 4).write(folder.path()).expect("nobody marked it");
    of.write(folder.path()).expect("nobody marked that either");
    store(folder.path(), "ratings-ann.json", &marks(&of, "Ann", |_, _| 4));
    of.write(folder.path()).expect("the same comparison");
    let error = comparison(2, 4).write(folder.path()).expect_err("Ann's marks").to_string();
    assert!(error.contains("ratings-ann.json has marks on another") && error.contains("--out"), "{error}");
    assert_eq!(Comparison::read(folder.path()).expect("the key"), of);
    // Marks that cannot be read may be of anything.
    fs::write(folder.path().join("ratings-ann.json"), "{").expect("written");
    assert!(comparison(2, 4).write(folder.path()).is_err());
}

#[test]
fn a_pair_is_what_each_person_says_of_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = comparison(2, 4);
    of.write(folder.path()).expect("written");
    // Ann finds no difference. Bob is strict, and marks the second writer's texts alone; Cem those of the first by one
    // criterion and of the second by another.
    store(folder.path(), "ratings-a.json", &marks(&of, "Ann", |_, _| 4));
    let only = |rater: &str, keep: &dyn Fn(usize, &str) -> bool| {
        let mut marks = marks(&of, rater, |_, _| 1);
        for row in marks["ratings"].as_array_mut().expect("rows") {
            let prompt = row["prompt"].as_u64().expect("a prompt") as usize - 1;
            let place = usize::from(row["text"] == "B");
            let writer = of.order[prompt][place];
            let row = row.as_object_mut().expect("a row");
            row.retain(|key, _| key == "prompt" || key == "text" || keep(writer, key));
        }
        marks
    };
    store(folder.path(), "ratings-b.json", &only("Bob", &|writer, _| writer == 1));
    store(folder.path(), "ratings-c.json", &only("Cem", &|writer, key| (key == "accuracy") == (writer == 0)));
    let found = tally(folder.path(), &[]).expect("a tally");
    let pair = &found.pairs[0];
    assert_eq!((pair.wins, pair.ties, pair.losses), (0, 4, 0));
    assert_eq!(pair.difference.map(|mean| mean.mean), Some(0.0));
}

#[test]
fn marks_come_to_what_was_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = comparison(3, 8);
    of.write(folder.path()).expect("written");
    // The first writer is better by two; the last two differ by chance alone.
    let by = |writer: usize, prompt: usize| match writer {
        0 => 5,
        1 => 2 + (prompt as u64 % 3),
        _ => 2 + ((prompt as u64 + 1) % 3),
    };
    store(folder.path(), "ratings-a.json", &marks(&of, "Ann", by));
    store(folder.path(), "ratings-b.json", &marks(&of, "Bob", by));
    let found = tally(folder.path(), &[]).expect("a tally");
    assert_eq!(found.raters, [("Ann".to_owned(), 72), ("Bob".to_owned(), 72)]);
    let best = &found.models[0];
    assert_eq!(best.by_criterion[0].map(|mean| (mean.mean, mean.half_width)), Some((5.0, Some(0.0))));
    assert!((best.overall.expect("marks").mean - 13.0 / 3.0).abs() < 1e-9);
    let pair = &found.pairs[0];
    assert_eq!((pair.first, pair.second, pair.wins, pair.losses), (0, 1, 8, 0));
    assert!(pair.difference.is_some_and(|mean| mean.mean > mean.half_width.expect("eight prompts")));
    let close = &found.pairs[2];
    assert!(close.difference.is_some_and(|mean| mean.mean.abs() < mean.half_width.expect("eight prompts")));
    // Both gave the same; of creativity nobody can tell.
    let alphas: Vec<Option<f64>> = found.agreement.iter().map(|a| a.expect("two people").alpha).collect();
    assert_eq!(alphas, [Some(1.0), Some(1.0), None]);
    let said = found.sentences().join("\n");
    assert!(
        said.contains("<b>run 0</b> is marked 1.42 ± ")
            && said.contains("no difference between <b>run 1</b>"),
        "{said}"
    );
    let written = found.write(folder.path()).expect("written");
    let csv = fs::read_to_string(&written.csv).expect("a table");
    assert!(
        csv.starts_with("model,layers,coherence,coherence_half_width,") && csv.lines().count() == 4,
        "{csv}"
    );
    // Half of the marks are marks, too; and one person's alone.
    let mut half = marks(&of, "Cem", by);
    half["ratings"].as_array_mut().expect("rows").truncate(12);
    store(folder.path(), "other.json", &half);
    let alone = tally(folder.path(), &[folder.path().join("other.json")]).expect("a tally");
    assert_eq!(alone.raters, [("Cem".to_owned(), 36)]);
    assert!(alone.agreement.iter().all(Option::is_none));
    assert!(alone.sentences().join("\n").contains("One person's marks"));
}

#[test]
fn what_was_edited_or_broken_is_said_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = comparison(2, 3);
    let error = tally(folder.path(), &[]).expect_err("no key").to_string();
    assert!(error.contains("has no compare.json") && error.contains("help: "), "{error}");
    of.write(folder.path()).expect("written");
    let error = tally(folder.path(), &[]).expect_err("no marks").to_string();
    assert!(error.contains("has no marks yet"), "{error}");
    let whole = marks(&of, "Ann", |_, _| 4);
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut changed = whole.clone();
        change(&mut changed);
        store(folder.path(), "ratings.json", &changed);
        let error = tally(folder.path(), &[]).expect_err(expected).to_string();
        assert!(
            error.contains("ratings.json ") && error.contains(expected) && error.contains("help: "),
            "{error}"
        );
    };
    refused(
        &|v| v["ratings"][1]["accuracy"] = json!(6),
        "rating 2: its accuracy is 6; expected a whole number from 1 to 5",
    );
    refused(&|v| v["ratings"][1]["accuracy"] = json!(3.5), "its accuracy is 3.5");
    refused(&|v| v["ratings"][1]["accuracy"] = json!("x".repeat(99)), "its accuracy is \"xxx");
    refused(&|v| v["ratings"][0]["prompt"] = json!(0), "rating 1: its prompt is 0; expected 1 to 3");
    refused(&|v| v["ratings"][0]["text"] = json!("C"), "its text is \"C\"; expected A, B");
    refused(&|v| v["ratings"][0]["charm"] = json!(3), "\"charm\" is none of what texts are judged by");
    refused(&|v| v["ratings"][0] = json!(3), "rating 1: is no object");
    refused(&|v| v["ratings"][1] = v["ratings"][0].clone(), "of prompt 1 has a mark already");
    refused(&|v| v["rater"] = json!("  "), "does not say whose marks");
    refused(&|v| v["study"] = json!("0"), "has marks on the comparison 0");
    refused(&|v| v["linc_compare"] = json!(2), "has version 2");
    refused(&|v| *v = json!([]), "has no \"linc_compare\"");
    refused(&|v| v["ratings"] = json!(null), "has no list of \"ratings\"");
    let text = whole.to_string();
    fs::write(folder.path().join("ratings.json"), &text[..text.len() / 2]).expect("written");
    let error = tally(folder.path(), &[]).expect_err("cut off").to_string();
    assert!(error.contains("is no JSON: EOF") && error.contains("line 1"), "{error}");
    // The same person twice, by another name's spelling.
    store(folder.path(), "ratings.json", &whole);
    store(folder.path(), "ratings-2.json", &marks(&of, "ANN", |_, _| 3));
    let error = tally(folder.path(), &[]).expect_err("twice").to_string();
    assert!(error.contains("is of \"ANN\"") || error.contains("is of \"Ann\""), "{error}");
    // A key that was edited.
    let key = folder.path().join("compare.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&key).expect("the key")).expect("JSON");
    json["order"][0] = json!([0, 0]);
    store(folder.path(), "compare.json", &json);
    let error = tally(folder.path(), &[]).expect_err("damage").to_string();
    assert!(error.contains("compare.json is damaged: an order"), "{error}");
    fs::write(&key, "{").expect("written");
    assert!(tally(folder.path(), &[]).expect_err("damage").to_string().contains("is damaged"));
}

#[test]
fn turns_follow_what_was_written() {
    let prompt = Prompt { turns: vec!["One?".into(), "Two?".into()], category: None, line: None };
    assert_eq!(write::so_far(&prompt, &[], 0), "One?\n\n");
    assert_eq!(write::so_far(&prompt, &["first".into()], 1), "One?\n\nfirst\n\nTwo?\n\n");
    let single = Prompt { turns: vec!["Once".into()], category: None, line: None };
    assert_eq!(write::so_far(&single, &[], 0), "Once");
}
