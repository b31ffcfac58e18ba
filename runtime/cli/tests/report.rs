//! Reports as a user makes them, and as a browser shows them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Folder, refuse, succeed};

/// A sweep of two ratios, done.
fn sweep(folder: &Folder) -> String {
    folder.config();
    let to = folder.path("sweep").display().to_string();
    let text = format!(
        "base = \"config.toml\"\n[sweep]\ndump_folder = {to:?}\n[sweep.parameters]\n\
         model.linear_attn_ratio = [0.0, 1.0]\ntraining.seed = [1, 2]\n"
    );
    let file = folder.file("sweep.toml", text);
    succeed(&["sweep", &file]);
    to
}

#[test]
fn a_sweep_and_its_runs_are_reported_on() {
    let folder = Folder::new("report");
    let to = sweep(&folder);
    let said = succeed(&["report", &to]);
    assert!(said.contains("4 runs: 4 finished") && said.contains("report.html"), "{said}");
    let page = fs::read_to_string(folder.path("sweep/report.html")).expect("the page");
    for id in ["summary", "figures", "points", "runs", "commands", "configs"] {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "{id} is missing");
    }
    // Single runs, and a place of its own for the page.
    let out = folder.path("one.html").display().to_string();
    let run = folder.path("sweep/runs/linear_attn_ratio=0.0_seed=1").display().to_string();
    let said = succeed(&["report", &run, "--out", &out]);
    assert!(said.contains("1 run: 1 finished"), "{said}");
    assert!(fs::metadata(&out).is_ok_and(|page| page.len() > 400_000), "libraries are in the page");
    refuse(&["report", &to, "--out", "table.csv"], &["a page ends in .html"]);
    refuse(&["report", "models"], &["models has no runs"]);
    refuse(&["report", &to, "--out", "/proc/none/report.html"], &["cannot write"]);
}

/// The name of a browser, if there is one.
pub(crate) fn browser() -> Option<&'static str> {
    let works = |name: &&str| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works);
    if found.is_none() {
        eprintln!("skipped: no Chromium to draw the page");
    }
    found
}

/// A page as a browser without a network has it once its scripts have run, and what the browser says.
pub(crate) fn drawn(browser: &str, folder: &Folder, page: &Path) -> (String, String) {
    let profile = folder.path("profile").display().to_string();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"])
        .args(["--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .arg(format!("--user-data-dir={profile}"))
        .arg(format!("file://{}", fs::canonicalize(page).expect("the page").display()))
        .output()
        .expect("a browser");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_browser_draws_every_figure_and_complains_of_nothing() {
    let Some(browser) = browser() else { return };
    let folder = Folder::new("report_browser");
    let to = sweep(&folder);
    succeed(&["report", &to]);
    let (drawn, said) = drawn(browser, &folder, &folder.path("sweep/report.html"));
    assert!(!said.contains(":CONSOLE"), "{said}");
    let figures: Vec<&str> = drawn.split("<figure").skip(1).collect();
    assert!(figures.len() >= 5, "{} figures", figures.len());
    for figure in figures {
        let figure = figure.split("</figure>").next().unwrap_or_default();
        assert!(figure.contains("<svg") && figure.contains("role=\"img\""), "not drawn: {figure}");
        assert!(figure.contains("<path") || figure.contains("<circle"), "nothing is in it: {figure}");
    }
}
