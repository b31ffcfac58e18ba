//! Sweeps as they are read from files, and what they make of them.

use super::*;

/// A sweep of a model that is built in.
fn load(text: &str, overrides: &[&str]) -> Result<Sweep, String> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("models")).expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    write("models/llama3_debugmodel.toml", include_str!("../../../../models/llama3_debugmodel.toml"));
    write("models/llama3.linc", include_str!("../../../../models/llama3.linc"));
    let path = folder.path().join("ratios.toml");
    write("ratios.toml", text);
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let keys = [JobConfig::keys(), keys()].concat();
    let overrides = Override::parse_all(&overrides, &keys).map_err(|error| error.to_string())?;
    Sweep::load(&path, &overrides, &Shipped::NONE).map_err(|error| error.to_string())
}

const RATIOS: &str = "[training]\nsteps = 20\n[validation]\nenable = true\n[sweep.parameters]\n\
                      model.linear_attn_ratio = [0.0, 0.5]\ntraining.seed = [1, 2]\n";

#[test]
fn each_run_has_the_settings_of_all_and_its_own() {
    let sweep = load(RATIOS, &["--training.steps", "30"]).expect("a sweep");
    assert_eq!(sweep.folder, Path::new("outputs/ratios"));
    let names: Vec<&str> = sweep.runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "linear_attn_ratio=0.0_seed=1",
            "linear_attn_ratio=0.0_seed=2",
            "linear_attn_ratio=0.5_seed=1",
            "linear_attn_ratio=0.5_seed=2"
        ]
    );
    let last = &sweep.runs[3].config;
    assert_eq!((last.training.steps, last.training.seed), (30, 2));
    assert_eq!(last.model.linear_attn_ratio.map(|ratio| ratio.to_string()).as_deref(), Some("0.5"));
    assert_eq!(last.job.dump_folder, "outputs/ratios/runs/linear_attn_ratio=0.5_seed=2");
    // Written elsewhere, it finds its model.
    assert!(last.model.path.as_ref().is_some_and(|path| path.ends_with("models/llama3_debugmodel.toml")));
}

#[test]
fn settings_that_share_a_name_are_told_apart() {
    let point = |a: &str, b: &str| {
        vec![("training.steps".to_owned(), a.to_owned()), ("validation.steps".to_owned(), b.to_owned())]
    };
    assert_eq!(names(&[point("1", "2")]), ["training.steps=1_validation.steps=2"]);
    // Whatever a value has in it, a name is one part of a path, and no two are the same.
    let odd = names(&[
        vec![("a.b".to_owned(), "x/../y z".to_owned())],
        vec![("a.b".to_owned(), "x/..-y-z".to_owned())],
    ]);
    assert_eq!(odd, ["b=x-..-y-z", "b=x-..-y-z_2"]);
    let taken = names(&["x-_2", "x-", "x/"].map(|value| vec![("a.b".to_owned(), value.to_owned())]));
    assert_eq!(taken, ["b=x-_2", "b=x-", "b=x-_3"]);
    let long = names(&[vec![("a.b".to_owned(), "x".repeat(500))]]);
    assert!(long[0].len() < 255);
}

#[test]
fn what_a_run_would_refuse_is_said_before_any_starts() {
    for (text, overrides, wanted) in [
        ("[sweep.parameters]\noptimizer.lrr = [1]\n", vec![], vec!["ratios.toml:", "did you mean `lr`?"]),
        ("[sweep.parameters]\ntraining.steps = [0, 10]\n", vec![], vec!["ratios.toml:", "at least 1"]),
        (RATIOS, vec!["--training.seed", "3"], vec!["`--training.seed` is given for all runs"]),
        (
            "[sweep.parameters]\ntraining.seed = [1]\n",
            vec![],
            vec!["do not validate", "metric = \"training_loss\""],
        ),
        (
            "[validation]\nenable = true\n[sweep.parameters]\nmodel.flavor = [\"debugmodle\"]\n",
            vec![],
            vec!["debugmodel"],
        ),
        ("[sweep.parameters]\ntraining.threads = [1, 2]\n", vec![], vec!["ratios.toml:", "cannot be varied"]),
        (RATIOS, vec!["--training.stop_at_step", "5"], vec!["stop_at_step"]),
        (
            "[sweep]\nmethod = \"halving\"\n[validation]\nenable = true\n[sweep.parameters]\noptimizer.lr = [1e-3, 1e-2]\n",
            vec![],
            vec!["checkpoint.enable"],
        ),
    ] {
        let error = load(text, &overrides).expect_err(text);
        for part in wanted {
            assert!(error.contains(part), "{text}: {part:?} is not in\n{error}");
        }
    }
}

#[test]
fn a_sweep_ends_its_runs_itself() {
    let text = format!("[checkpoint]\nenable = true\n{RATIOS}");
    let error = load(&text, &["--training.stop_at_step", "5"]).expect_err("it says that of each run");
    assert!(error.contains("a sweep ends its runs itself"), "{error}");
}

#[test]
fn a_sweep_is_no_config_of_one_run() {
    let error = JobConfig::load(RATIOS, "ratios.toml", &[]).expect_err("it has [sweep]").to_string();
    assert!(error.contains("`linc sweep ratios.toml`"), "{error}");
}
