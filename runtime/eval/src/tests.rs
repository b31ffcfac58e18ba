//! Every task with an oracle, which gets all of it, and with one that knows nothing, which gets chance; evaluations that are
//! ended and go on.

mod fixtures;
mod programs;
mod scorers;

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use linc_data::Tokenizer;
use serde_json::{Value, json};

use crate::sample::{Ask, Grade, Sample};
use crate::task::{Chance, Setting, Task, all, chosen};
use crate::tokens::Bos;
use crate::{EvalError, Folder, Observer, Scorer, TaskResult, evaluate, prepare};
use fixtures::published;
use scorers::{Ended, Never, Oracle, Uniform};

static GO_ON: AtomicBool = AtomicBool::new(false);

/// The data of other people's collections, where they are.
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");

struct Silent;

impl Observer for Silent {
    fn preparing(&mut self, _: &str) {}
    fn progress(&mut self, _: &str, _: usize, _: usize, _: usize) {}
}

fn setting<'a>(data: &Path, tokenizer: &'a Tokenizer) -> Setting<'a> {
    Setting {
        data: data.to_path_buf(),
        text: Some(data.join("text").display().to_string()),
        text_field: "text".into(),
        requests: Some(data.join("samples.jsonl")),
        tokenizer: Some(tokenizer),
        bos: Bos::Auto,
        context: 512,
        vocab: 256,
        stride: None,
        shots: None,
        limit: None,
        lengths: vec![],
        completions: 1,
        temperature: None,
        sandbox: None,
        seed: 1,
        stop: &GO_ON,
    }
}

fn ask(
    task: &Task,
    setting: &Setting<'_>,
    scorer: &mut dyn Scorer,
    out: &Path,
) -> Result<Option<TaskResult>, EvalError> {
    let mut folder = Folder::open(out, &json!({ "name": "test" }), &json!({}))?;
    let prepared = prepare(task, setting, &mut Silent)?;
    evaluate(scorer, &prepared, setting, &mut folder, &mut Silent)
}

fn found(task: &Task, setting: &Setting<'_>, scorer: &mut dyn Scorer) -> TaskResult {
    let out = tempfile::tempdir().expect("a folder");
    let result = ask(task, setting, scorer, out.path()).unwrap_or_else(|e| panic!("{}: {e}", task.name));
    result.expect("nobody asked to stop")
}

#[test]
fn an_oracle_gets_all_of_every_task_and_who_knows_nothing_gets_chance() {
    let data = published();
    let bytes = Tokenizer::bytes();
    let setting = Setting { context: 2048, ..setting(data.path(), &bytes) };
    let sandbox = programs::sandbox();
    let setting = Setting { sandbox: sandbox.as_ref(), ..setting };
    for task in all().into_iter().filter(|task| task.name != "humaneval" || sandbox.is_some()) {
        let samples = (task.make)(&task, &setting).unwrap_or_else(|e| panic!("{}: {e}", task.name)).samples;
        let result = found(&task, &setting, &mut Oracle::of(&samples, setting.context));
        let first = result.first().unwrap_or_else(|| panic!("{} has no {}", task.name, task.metric));
        let best = match &samples[0].grade {
            Grade::Choice { .. }
            | Grade::Greedy
            | Grade::Places
            | Grade::Strings { .. }
            | Grade::Program { .. }
            | Grade::Number(_) => 1.0,
            // Nothing surprises it.
            Grade::Text { .. } => 1.0,
            Grade::Logged { .. } | Grade::Rolling(_) | Grade::Written(_) => 0.0,
        };
        assert_eq!(first.value, best, "{}", task.name);
        let result = found(&task, &setting, &mut Uniform::new(setting.vocab, setting.context));
        let first = result.first().expect("as before");
        match (result.chance, task.chance) {
            (Some(chance), _) => {
                // Four standard deviations of as many draws.
                let draws: f64 = first.samples as f64;
                let room = 4.0 * (chance * (1.0 - chance) / draws).sqrt() + 1e-9;
                assert!((first.value - chance).abs() <= room, "{}: {} of {chance}", task.name, first.value);
            }
            (None, Chance::None) if matches!(samples[0].grade, Grade::Text { .. }) => {
                assert!(first.value > 100.0, "{}: {}", task.name, first.value);
            }
            (None, _) => assert!(first.value <= 0.02, "{}: {}", task.name, first.value),
        }
    }
}

#[test]
fn who_knows_nothing_has_the_perplexity_of_the_vocabulary() {
    let data = published();
    let bytes = Tokenizer::bytes();
    let setting = setting(data.path(), &bytes);
    let [text] = chosen(&["text".into()]).expect("a task")[..] else { panic!("one task") };
    let result = found(&text, &setting, &mut Uniform::new(256, 512));
    let value = |name: &str| result.metrics[name].value;
    assert!((value("perplexity") - 256.0).abs() < 1.0, "{}", value("perplexity"));
    // Each byte is one token.
    assert!((value("bits_per_byte") - 8.0).abs() < 0.01, "{}", value("bits_per_byte"));
    assert!((value("loss_of_ar_hits") - 256f64.ln()).abs() < 0.01);
    assert!(value("ar_hits") > 0.5 && value("ar_hits") < 1.0, "a text of 300 words repeats pairs of letters");
}

#[test]
fn what_a_model_finds_impossible_costs_without_end_and_is_recorded() {
    let data = published();
    let bytes = Tokenizer::bytes();
    let setting = setting(data.path(), &bytes);
    let out = tempfile::tempdir().expect("a folder");
    let never = || Never { tokens: vec![u32::from(b'6')], inner: Uniform::new(256, 512) };
    for name in ["text", "mmlu_continuation", "requests"] {
        let [task] = chosen(&[name.into()]).expect("a task")[..] else { panic!("one task") };
        let result = ask(&task, &setting, &mut never(), out.path()).expect("asked").expect("whole");
        let json = result.json();
        match name {
            "text" => {
                let value = |name: &str| &json["metrics"][name]["value"];
                assert_eq!((value("loss"), value("perplexity")), (&json!("inf"), &json!("inf")));
                assert!(value("loss_of_ar_hits").is_string() && value("ar_hits").is_number());
            }
            // No choice is worse than another for it, and who is right is still counted.
            _ => assert!(result.metrics["acc"].value.is_finite()),
        }
        // The records are there to be read, to the same numbers.
        let again = ask(&task, &setting, &mut never(), out.path()).expect("asked").expect("whole");
        assert_eq!((again.answered, again.json()["metrics"].clone()), (0, json["metrics"].clone()));
    }
}

#[test]
fn what_was_ended_goes_on_and_ends_with_the_same_bytes() {
    let data = published();
    let bytes = Tokenizer::bytes();
    let setting = Setting { stride: Some(16), ..setting(data.path(), &bytes) };
    for name in ["mmlu", "text"] {
        let [task] = chosen(&[name.into()]).expect("a task")[..] else { panic!("one task") };
        let once = tempfile::tempdir().expect("a folder");
        let mut uniform = Uniform::new(256, 512);
        let whole = ask(&task, &setting, &mut uniform, once.path()).expect("asked").expect("whole");
        let again = tempfile::tempdir().expect("a folder");
        let mut ends = 0;
        let result = loop {
            let mut ended = Ended::after(200, Uniform::new(256, 512));
            match ask(&task, &setting, &mut ended, again.path()).expect("asked") {
                Some(result) => break result,
                None => ends += 1,
            }
            assert!(ends < 50, "it goes on each time");
        };
        assert!(ends > 0, "{name} was ended");
        let samples = |out: &Path| fs::read(out.join(format!("samples_{name}.jsonl"))).expect("there");
        assert_eq!(samples(once.path()), samples(again.path()));
        assert_eq!(whole.metrics, result.metrics);
    }
}

#[test]
fn a_folder_of_other_results_is_refused() {
    let data = published();
    let bytes = Tokenizer::bytes();
    let setting = setting(data.path(), &bytes);
    let out = tempfile::tempdir().expect("a folder");
    let [mmlu] = chosen(&["mmlu".into()]).expect("a task")[..] else { panic!("one task") };
    let uniform = &mut Uniform::new(256, 512);
    ask(&mmlu, &setting, uniform, out.path()).expect("asked");
    let open = |name: &str| Folder::open(out.path(), &json!({ "name": name }), &json!({}));
    let first = open("test").expect("the same model");
    let second = open("test").expect_err("two at once").to_string();
    assert!(second.contains("another evaluation is writing into it"), "{second}");
    drop(first);
    let other = open("other").expect_err("another model");
    assert!(other.to_string().contains("another model: its name is \"test\", and now \"other\""), "{other}");
    let fewer = Setting { limit: Some(3), ..setting };
    let other = ask(&mmlu, &fewer, uniform, out.path()).expect_err("other samples").to_string();
    assert!(other.contains("results of mmlu are of other samples"), "{other}");
    // Without the file that says of which model they are, samples could be anybody's.
    fs::remove_file(out.path().join("evaluation.json")).expect("removed");
    let nobodys = open("other").expect_err("of which model?").to_string();
    assert!(nobodys.contains("has samples, and no evaluation.json"), "{nobodys}");
}

#[test]
fn what_the_harness_logged_of_texts_is_compared_too() {
    let (data, bytes) = (published(), Tokenizer::bytes());
    let found = |line: serde_json::Value, scorer: &mut dyn Scorer| {
        fs::write(data.path().join("logged.jsonl"), format!("{line}\n")).expect("written");
        let requests = Some(data.path().join("logged.jsonl"));
        let setting = Setting { requests, context: 16, ..setting(data.path(), &bytes) };
        let [task] = chosen(&["requests".into()]).expect("a task")[..] else { panic!("one task") };
        found(&task, &setting, scorer).metrics
    };
    // A whole text, in windows: who knows nothing finds each of its 40 bytes as unlikely.
    let text = "forty bytes of text, and then no more.. ";
    let log = -(text.len() as f64) * 256f64.ln();
    let rolling = json!({ "arguments": { "gen_args_0": { "arg_0": text } }, "resps": [[log.to_string()]] });
    let metrics = found(rolling, &mut Uniform::new(256, 16));
    assert!((metrics["log_likelihood"].value - log).abs() < 0.1, "{metrics:?}");
    assert!(metrics["difference"].value < 0.1, "{metrics:?}");
    // What it writes is compared with what was logged, but for blanks at its ends.
    let options = json!({ "until": ["."], "max_gen_toks": 3 });
    let written = |logged: &str| json!({ "arguments": { "gen_args_0": { "arg_0": "a", "arg_1": options } }, "resps": [[logged]] });
    for (logged, same) in [("x", 0.0), (" ", 1.0)] {
        let metrics = found(written(logged), &mut Uniform::new(256, 16));
        assert_eq!(metrics["same_text"].value, same, "it writes nothing");
    }
}

#[test]
fn what_has_no_room_is_found_before_a_model_is_asked() {
    let (data, bytes) = (published(), Tokenizer::bytes());
    let made = |name: &str, context: usize| {
        let setting = Setting { context, ..setting(data.path(), &bytes) };
        let [task] = chosen(&[name.into()]).expect("a task")[..] else { panic!("one task") };
        (task.make)(&task, &setting)
    };
    // Questions lose their beginning, and how many do is counted.
    let few = Setting { context: 64, limit: Some(2), ..setting(data.path(), &bytes) };
    let [mmlu] = chosen(&["mmlu".into()]).expect("a task")[..] else { panic!("one task") };
    let result = found(&mmlu, &few, &mut Uniform::new(256, 64));
    assert_eq!((result.cut, result.samples, result.json()["cut"].as_u64()), (4, 4, Some(4)));
    // Prompts are of different lengths, and those that do not fit are left out and counted.
    let all = made("lost_in_the_middle", 8192).expect("room");
    assert_eq!((all.samples.len(), all.left_out), (10, 0));
    let room = |sample: &Sample| match &sample.ask {
        Ask::Write { prompt, tokens, .. } => prompt.len() + tokens + 1,
        _ => panic!("it is written"),
    };
    let longest = all.samples.iter().map(room).max().expect("samples");
    let some = made("lost_in_the_middle", longest - 1).expect("room for some");
    assert!(some.left_out > 0 && some.samples.len() + some.left_out == 10, "{}", some.left_out);
    // The context that is asked for is enough, and one token less is not.
    let refused = made("gsm8k", 300).expect_err("no room").to_string();
    let asked = refused.split("a context of ").nth(1).and_then(|rest| rest.split(' ').next());
    let asked: usize = asked.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{refused}"));
    assert!(refused.contains("no room for an answer of 256 tokens"), "{refused}");
    assert!(made("gsm8k", asked).is_ok_and(|made| made.left_out == 0));
    assert!(made("gsm8k", asked - 1).is_err());
}

#[test]
fn what_is_wrong_with_files_is_said_with_their_lines() {
    let bytes = Tokenizer::bytes();
    let refused = |name: &str, file: &str, text: &str| {
        let data = published();
        fs::write(data.path().join(file), text).expect("written");
        let setting = setting(data.path(), &bytes);
        let [task] = chosen(&[name.into()]).expect("a task")[..] else { panic!("one task") };
        let error = (task.make)(&task, &setting).expect_err("refused").to_string();
        assert!(error.contains("help: "), "{error}");
        error
    };
    let test = "mmlu/test/anatomy_test.csv";
    assert!(refused("mmlu", test, "q,a,b,c,d,A\nq,a,b,c,d,E\n").contains("anatomy_test.csv:2: has \"E\""));
    let more = refused("mmlu", "mmlu/dev/astronomy_dev.csv", "q,a,b,c,d,A\n");
    assert!(more.contains("there is no astronomy_test.csv"), "{more}");
    assert!(refused("mmlu", test, "q,a,b,c,A\n").contains("has 5 fields"));
    assert!(refused("mmlu", test, "q,\"a,b,c,A\n").contains("a quote does not end"));
    let lines = "hellaswag/hellaswag_val.jsonl";
    assert!(refused("hellaswag", lines, "{\"ctx_a\": \"a\"").contains(":1: is no JSON"));
    assert!(refused("hellaswag", lines, "{}\n").contains("has no string"));
    assert!(
        refused("lambada", "lambada/lambada_test.jsonl", "{\"text\": \"one\"}\n").contains("has one word")
    );
    assert!(refused("requests", "samples.jsonl", "{}\n").contains("has no `arguments`"));
    assert!(refused("gsm8k", "gsm8k/test.jsonl", "{\"question\": 1}\n").contains("has no string `question`"));
    let none = tempfile::tempdir().expect("a folder");
    let setting = setting(none.path(), &bytes);
    let [task] = chosen(&["arc_easy".into()]).expect("a task")[..] else { panic!("one task") };
    let error = (task.make)(&task, &setting).expect_err("nothing there").to_string();
    assert!(error.contains("ARC-Easy-Test.jsonl") && error.contains("--data"), "{error}");
    let error = chosen(&["mmlo".into()]).expect_err("no such task").to_string();
    assert!(error.contains("did you mean mmlu?"), "{error}");
}

#[test]
fn the_published_answers_of_gsm8k_are_right_by_both_filters() {
    let path = Path::new(SHARED).join("gsm8k/test.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        eprintln!("skipped: there is no {}", path.display());
        return;
    };
    let mut right = [0.0; 2];
    for line in text.lines() {
        let object: Value = serde_json::from_str(line).expect("JSON");
        let answer = object["answer"].as_str().expect("an answer");
        let grades = crate::tasks::gsm8k::graded(answer, answer);
        right.iter_mut().zip(grades).for_each(|(right, grade)| *right += grade.sum);
    }
    assert_eq!(right, [1319.0, 1319.0]);
}

#[test]
fn who_knows_nothing_is_within_chance_in_all_subjects_of_mmlu() {
    if !Path::new(SHARED).join("mmlu/test").is_dir() {
        eprintln!("skipped: there is no {SHARED}/mmlu");
        return;
    }
    let bytes = Tokenizer::bytes();
    let setting = Setting { context: 8192, ..setting(Path::new(SHARED), &bytes) };
    let [mmlu] = chosen(&["mmlu".into()]).expect("a task")[..] else { panic!("one task") };
    let result = found(&mmlu, &setting, &mut Uniform::new(256, 8192));
    assert_eq!((result.groups.len(), result.samples), (57, 14_042));
    let [low, high] = result.metrics["acc"].ci95.expect("samples");
    assert!(low <= 0.25 && 0.25 <= high, "{low} .. {high}");
    for (subject, metrics) in &result.groups {
        let acc = metrics["acc"];
        let room = 4.0 * (0.25f64 * 0.75 / acc.samples as f64).sqrt();
        assert!((acc.value - 0.25).abs() < room, "{subject}: {}", acc.value);
    }
}
