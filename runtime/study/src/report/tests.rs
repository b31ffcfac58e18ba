//! Reports on made-up runs, whose numbers and names are chosen.

use std::fs;

use super::*;
use crate::results::RunRecords;

/// A folder of runs: each with a name, the settings that its config has, and a validation loss.
fn runs(folder: &Path, runs: &[(&str, &str, f64)]) {
    for (name, config, loss) in runs {
        let run = folder.join(name);
        fs::create_dir_all(&run).expect("a folder");
        fs::write(run.join("config.toml"), config).expect("a config");
        let record = |step: usize, what: &str, value: f64| {
            format!("{{\"step\":{step},\"tokens\":{},\"{what}\":{value},\"tps\":1000.0}}\n", 10 * step)
        };
        let records =
            [record(1, "loss", 5.0), record(20, "loss", loss + 0.1), record(20, "validation_loss", *loss)];
        fs::write(run.join("metrics.jsonl"), records.concat()).expect("records");
    }
}

fn config(ratio: f64, seed: u64) -> String {
    format!(
        "[model]\nlinear_attn_ratio = {ratio:?}\n[training]\nsteps = 20\nseed = {seed}\n[validation]\nenable = true\n"
    )
}

#[test]
fn runs_that_no_sweep_started_are_told_apart_by_their_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = [("a", 0.0, 1, 2.0), ("b", 0.0, 2, 2.2), ("c", 1.0, 1, 2.3), ("d", 1.0, 2, 2.52)];
    let all: Vec<(&str, String, f64)> = all.iter().map(|(n, r, s, l)| (*n, config(*r, *s), *l)).collect();
    let all: Vec<(&str, &str, f64)> = all.iter().map(|(n, c, l)| (*n, c.as_str(), *l)).collect();
    runs(folder.path(), &all);
    let written = write(&[folder.path().to_path_buf()], None).expect("a report");
    assert_eq!(written.page, folder.path().join("report.html"));
    let said = written.summary.join("\n");
    assert!(said.contains("4 runs: 4 finished."), "{said}");
    assert!(said.contains("The best mean is that of linear_attn_ratio 0.0, 2.1000 ± "), "{said}");
    // 0.31 apart, seed by seed, give or take 12.706 / 2 * 0.02; by the means alone nobody could tell.
    assert!(
        said.contains("linear_attn_ratio 1.0 has 0.3100 ± 0.1271 more than linear_attn_ratio 0.0"),
        "{said}"
    );
    let csv = fs::read_to_string(&written.csv).expect("the table");
    assert!(csv.starts_with("model.linear_attn_ratio,validation_loss,"), "{csv}");
    let markdown = fs::read_to_string(&written.markdown).expect("the tables");
    assert!(markdown.contains("| 1.0 | 2.4100 ± "), "{markdown}");
    // Again, it is the same to the byte.
    let page = fs::read(&written.page).expect("the page");
    let again = write(&[folder.path().to_path_buf()], None).expect("a report");
    assert_eq!(fs::read(&again.page).expect("the page"), page);
}

#[test]
fn what_tasks_measured_is_no_step_of_training() {
    let folder = tempfile::tempdir().expect("a folder");
    runs(folder.path(), &[("a", &config(0.5, 1), 2.0)]);
    let run = folder.path().join("a");
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("records");
    let memory = text.replace("\"tps\"", "\"memory\":{\"state\":64},\"tps\"");
    let evaluation = "{\"step\":20,\"tokens\":200,\"evaluation\":{\"mqar/acc\":0.25}}\n";
    fs::write(run.join("metrics.jsonl"), format!("{memory}{evaluation}")).expect("records");
    let records = RunRecords::read(&run).expect("read");
    assert_eq!((records.training.len(), records.validations.len()), (2, 1));
    assert_eq!((records.speed(), records.memory()), (Some(1000.0), Some(64)));
    let written = write(&[folder.path().to_path_buf()], None).expect("a report");
    let csv = fs::read_to_string(&written.csv).expect("the table");
    assert!(csv.contains(",20,1000,64"), "steps, speed and memory: {csv}");
}

#[test]
fn a_difference_within_its_interval_is_not_called_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = [("a", 0.0, 1, 2.0), ("b", 0.0, 2, 2.2), ("c", 1.0, 1, 2.3), ("d", 1.0, 2, 2.1)];
    let all: Vec<(&str, String, f64)> = all.iter().map(|(n, r, s, l)| (*n, config(*r, *s), *l)).collect();
    let all: Vec<(&str, &str, f64)> = all.iter().map(|(n, c, l)| (*n, c.as_str(), *l)).collect();
    runs(folder.path(), &all);
    let said = write(&[folder.path().to_path_buf()], None).expect("a report").summary.join("\n");
    assert!(
        said.contains("The seeds show no difference to linear_attn_ratio 0.0 of: linear_attn_ratio 1.0."),
        "{said}"
    );
    assert!(!said.contains(" more than ") && !said.contains(" less than "), "{said}");
}

#[test]
fn names_and_messages_stay_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let hostile = "<script>alert(1)<-script>\"'&x";
    runs(folder.path(), &[(hostile, &config(0.0, 1), 2.0), ("b", &config(0.0, 1), 2.1)]);
    let alert = r#"{"step":3,"level":"warn","message":"</td><img src=x onerror=alert(2)>"}"#;
    fs::write(folder.path().join("b/alerts.jsonl"), format!("{alert}\nnot json\n")).expect("alerts");
    let written = write(&[folder.path().to_path_buf()], None).expect("a report");
    let page = fs::read_to_string(&written.page).expect("the page");
    assert!(!page.contains("<script>alert"), "a name became an element");
    assert!(!page.contains("<img"), "a message became an element");
    assert!(page.contains("&lt;img src=x onerror=alert(2)&gt;") && page.contains("&lt;script&gt;alert(1)"));
    let data =
        page.split("id=\"charts\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    assert!(!data.contains('<'), "nothing in the data can end its element");
    let charts: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert!(charts.to_string().contains("<script>alert(1)"), "and it is all there");
    assert!(page.contains("default-src 'none'"));
    assert!(!page.contains("http-equiv=\"refresh\"") && !page.contains(" src=\"") && !page.contains("<link"));
}

#[test]
fn partial_and_damaged_runs_are_reported_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    runs(
        folder.path(),
        &[("a", &config(0.0, 1), 2.0), ("b", &config(0.5, 1), 2.1), ("c", "not TOML [", 2.2)],
    );
    // One is cut off in the middle of a record; the last step is not there any more.
    let path = folder.path().join("b/metrics.jsonl");
    let text = fs::read_to_string(&path).expect("records");
    let cut = text.lines().next().expect("a record").len() + 20;
    fs::write(&path, &text[..cut]).expect("write");
    assert_eq!(RunRecords::read(&folder.path().join("b")).expect("what there is").training.len(), 1);
    let written = write(&[folder.path().to_path_buf()], None).expect("a report");
    assert!(written.summary[0].contains("3 runs: 1 finished, 2 not done"), "{:?}", written.summary);
    let markdown = fs::read_to_string(&written.markdown).expect("the tables");
    assert!(markdown.contains("| b | not done | 1 |"), "{markdown}");
}

#[test]
fn what_has_no_runs_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = write(&[folder.path().to_path_buf()], None).expect_err("no runs").to_string();
    assert!(error.contains("has no runs") && error.contains("help: "), "{error}");
    let error = write(&[folder.path().join("nowhere")], None).expect_err("no folder").to_string();
    assert!(error.contains("nowhere"), "{error}");
    fs::write(folder.path().join("sweep.json"), "{").expect("write");
    let error = write(&[folder.path().to_path_buf()], None).expect_err("damage").to_string();
    assert!(error.contains("is damaged"), "{error}");
    let outside = r#"{"metric":"validation_loss","runs":[["../../etc",[]]]}"#;
    fs::write(folder.path().join("sweep.json"), outside).expect("write");
    let error = write(&[folder.path().to_path_buf()], None).expect_err("a way out").to_string();
    assert!(error.contains("which is no run"), "{error}");
}
