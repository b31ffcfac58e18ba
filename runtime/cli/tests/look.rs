//! `linc look` as a user has it: pages and numbers of a run, what is refused, and what a browser makes of the page.

use std::fs;

use serde_json::Value;

use crate::common::{Folder, linc, refuse, succeed};

/// A trained hybrid; its run, and its text.
fn trained(folder: &Folder) -> [String; 2] {
    succeed(&["train", &folder.config()]);
    ["run", "text.txt"].map(|name| folder.path(name).display().to_string())
}

#[test]
fn a_run_is_looked_into() {
    let folder = Folder::new("look");
    let [run, text] = trained(&folder);
    let said =
        succeed(&["look", &run, "--text", &text, "--without", "heads", "--sequences", "2", "--beyond", "8"]);
    for expected in ["beyond 8", "softmax", "linear", "induction", "2 sequences of 32 tokens", "look.html"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let json = fs::read(folder.path("run/look/look.json")).expect("numbers");
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let heads = json["heads"].as_array().expect("heads");
    assert_eq!((heads.len(), json["period"].as_u64()), (8, Some(16)));
    for head in heads {
        let number = |name: &str| head[name].as_f64().unwrap_or_else(|| panic!("{name}: {head}"));
        assert!(number("sum_error") < 1e-5 && number("error") < 1e-3, "{head}");
        assert!(number("positions") >= 1.0 && number("rank") >= 1.0 && number("rank") <= 32.0, "{head}");
        assert!(head["without"]["mean"].is_number() && head["without"]["half_width"].is_number(), "{head}");
        assert_eq!(head["features"].is_number(), head["kind"] == "linear", "{head}");
    }
    // From a step's own folder, to another place, the same numbers.
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let out = folder.path("other").display().to_string();
    succeed(&[
        "look",
        &step,
        "--text",
        &text,
        "--without",
        "heads",
        "--sequences",
        "2",
        "--beyond",
        "8",
        "--out",
        &out,
        "--threads",
        "1",
    ]);
    let csv = |name: &str| fs::read(folder.path(name)).expect("a table");
    assert_eq!(csv("other/look.heads.csv"), csv("run/look/look.heads.csv"));
}

#[test]
fn a_hugging_face_folder_is_looked_into_whatever_another_command_left() {
    let folder = Folder::new("look_hf");
    let [run, text] = trained(&folder);
    let other = folder.path("another").display().to_string();
    succeed(&["train", &folder.config(), "--training.seed", "9", "--job.dump_folder", &other]);
    let [foreign, stranger] = [(&run, "foreign"), (&other, "stranger")].map(|(run, name)| {
        let to = folder.path(name).display().to_string();
        succeed(&["export", &format!("{run}/checkpoint/step-6"), "--out", &to]);
        to
    });
    let out = folder.path("out").display().to_string();
    let left = folder.path("out/imported");
    let place = left.display().to_string();
    // A command on another model was killed there.
    succeed(&["import", &stranger, "--out", &place]);
    let look = ["look", &foreign, "--text", &text, "--context", "32", "--out", &out];
    succeed(&look);
    assert!(!left.exists(), "what was made of it is removed");
    succeed(&["look", &run, "--text", &text]);
    let json = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder.path(name)).expect("numbers")).expect("JSON")
    };
    let (found, expected) = (json("out/look.json"), json("run/look/look.json"));
    assert_eq!((&found["loss"], &found["heads"]), (&expected["loss"], &expected["heads"]));
    assert_eq!(found["checkpoint"].as_str(), Some(foreign.as_str()), "the path that was named");
    // It is removed where the command fails, too.
    refuse(&[&look[..5], &["1", "--out", &out][..]].concat(), &["at least 2"]);
    assert!(!left.exists(), "nothing is left of a command that failed");
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let folder = Folder::new("look_refused");
    let [run, text] = trained(&folder);
    refuse(&["look", &run], &["--text"]);
    refuse(&["look", &run, "--text", "none.txt"], &["none.txt"]);
    refuse(&["look", "none", "--text", &text], &["none"]);
    refuse(&["look", &run, "--text", &text, "--without", "head"], &["--without", "did you mean heads"]);
    refuse(&["look", &run, "--text", &text, "--cells", "1"], &["--cells", "2 to 512"]);
    refuse(&["look", &run, "--text", &text, "--context", "0"], &["--context", "at least 1"]);
    refuse(&["look", &run, "--text", &text, "--context", "1"], &["the context is 1", "at least 2"]);
    refuse(&["look", &run, "--text", &text, "--ids", &text], &["--ids"]);
    let empty = folder.file("empty.txt", "");
    refuse(&["look", &run, "--text", &empty], &["less than two tokens"]);
    let binary = folder.file("binary.txt", [0xff, 0xfe, 0x00]);
    refuse(&["look", &run, "--text", &binary], &["is not UTF-8"]);
    refuse(&["look", &run, "--text", &text, "--out", "/proc/none"], &["cannot create"]);
    // A damaged checkpoint is said to be one.
    let weights = folder.path("run/checkpoint/step-6/model.safetensors");
    let bytes = fs::read(&weights).expect("weights");
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("written");
    let step = folder.path("run/checkpoint/step-6").display().to_string();
    let output = linc(&["look", &step, "--text", &text]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_browser_draws_the_maps_and_complains_of_nothing() {
    let Some(browser) = crate::report::browser() else { return };
    let folder = Folder::new("look_browser");
    let [run, text] = trained(&folder);
    succeed(&["look", &run, "--text", &text]);
    let (drawn, said) = crate::report::drawn(browser, &folder, &folder.path("run/look/look.html"));
    assert!(!said.contains(":CONSOLE"), "{said}");
    let figures =
        drawn.matches("<svg class=\"plot").count().max(drawn.matches("role=\"img\" aria-label").count());
    assert!(figures >= 5, "{figures} figures: {drawn}");
    let maps: Vec<&str> = drawn.split("<button type=\"button\" class=\"map\"").skip(1).collect();
    assert_eq!(maps.len(), 8);
    for map in maps {
        let map = map.split("</button>").next().unwrap_or_default();
        assert!(map.contains("width=\"32\"") && map.contains("aria-pressed=\"false\""), "not drawn: {map}");
    }
}
