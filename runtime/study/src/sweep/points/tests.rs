//! Points from what a file says, as it is read from one.

use linc_config::ConfigFiles;
use linc_train::config::JobConfig;

use super::super::{Described, keys};
use super::*;

fn points_of(text: &str) -> Result<Vec<Vec<(String, String)>>, String> {
    let files = ConfigFiles::of_text("sweep.toml", text);
    let (_, described) = JobConfig::load_with(&files, &[], keys(), &[PARAMETERS], Described::take)
        .map_err(|error| error.to_string())?;
    let points = points(&described.settings, &described.parameters, &described.places);
    let points = points.map_err(|error| error.to_string())?;
    Ok(points.into_iter().map(|point| point.0.into_iter().map(|(n, v)| (n, v.0)).collect()).collect())
}

fn values(points: &[Vec<(String, String)>]) -> Vec<Vec<&str>> {
    points.iter().map(|point| point.iter().map(|(_, value)| value.as_str()).collect()).collect()
}

#[test]
fn a_grid_has_every_combination_once() {
    let text = "[sweep.parameters]\nmodel.linear_attn_ratio = [0.0, 0.5]\n\"training.seed\" = [1, 2]\n";
    let points = points_of(text).expect("a grid");
    assert_eq!(values(&points), [["0.0", "1"], ["0.0", "2"], ["0.5", "1"], ["0.5", "2"]]);
    assert_eq!(points[0][0].0, "model.linear_attn_ratio");
}

#[test]
fn words_and_lists_are_what_the_command_line_takes() {
    let text =
        "[sweep.parameters]\nmodel.linear_attn_placement = [\"front\", [0, 2]]\nmodel.overrides.dim = 64\n";
    let points = points_of(text).expect("a grid");
    assert_eq!(values(&points), [["front", "64"], ["[0, 2]", "64"]]);
}

#[test]
fn a_list_has_its_runs() {
    let text = "[sweep]\nmethod = \"list\"\n[[sweep.runs]]\ntraining = { seq_len = 64, batch_size = 2 }\n\
                [[sweep.runs]]\noptimizer.lr = 1e-3\n";
    let points = points_of(text).expect("a list");
    assert_eq!(
        points[0],
        [("training.batch_size".into(), "2".into()), ("training.seq_len".into(), "64".into())]
    );
    assert_eq!(points[1], [("optimizer.lr".to_owned(), "1e-3".to_owned())]);
}

#[test]
fn random_points_stay_in_their_ranges_and_depend_on_the_seed_alone() {
    let text = |seed: u32| {
        format!(
            "[sweep]\nmethod = \"random\"\nnum_runs = 40\nseed = {seed}\n[sweep.parameters]\n\
             optimizer.lr = {{ min = 1e-4, max = 1e-2, distribution = \"log_uniform\" }}\n\
             model.overrides.n_layers = {{ min = 2, max = 5, distribution = \"int_uniform\" }}\n\
             optimizer.weight_decay = {{ min = 0.1, max = 0.2 }}\nmodel.linear_attn_ratio = [0.0, 1.0]\n"
        )
    };
    let points = points_of(&text(7)).expect("points");
    assert_eq!(points.len(), 40);
    assert_eq!(points, points_of(&text(7)).expect("points"));
    assert_ne!(points, points_of(&text(8)).expect("points"));
    let numbers = |name: &str| -> Vec<f64> {
        let of =
            |point: &Vec<(String, String)>| point.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        points.iter().map(|point| of(point).expect("it is varied").parse().expect("a number")).collect()
    };
    let rates = numbers("optimizer.lr");
    assert!(rates.iter().all(|rate| (1e-4..=1e-2).contains(rate)));
    // Half of them below the geometric middle, give or take.
    let low = rates.iter().filter(|rate| **rate < 1e-3).count();
    assert!((10..=30).contains(&low), "{low} of 40 below 1e-3");
    let layers = numbers("model.overrides.n_layers");
    assert!(layers.iter().all(|layers| (2.0..=5.0).contains(layers) && layers.fract() == 0.0));
    assert!(layers.contains(&2.0) && layers.contains(&5.0), "both ends are drawn");
    assert!(numbers("optimizer.weight_decay").iter().all(|decay| (0.1..=0.2).contains(decay)));
    assert!(numbers("model.linear_attn_ratio").contains(&1.0));
}

#[test]
fn what_is_wrong_has_a_place_and_a_remedy() {
    for (text, wanted) in [
        ("", vec!["varies nothing", "[sweep.parameters]"]),
        ("[sweep.parameters]\noptimizer.lr = []\n", vec!["sweep.toml:2", "has no values"]),
        ("[sweep.parameters]\noptimizer.lr = [1e-3, 1e-3]\n", vec!["sweep.toml:2", "two runs are the same"]),
        (
            "[sweep.parameters]\noptimizer.lr = { min = 1, max = 2 }\n",
            vec!["sweep.toml:2", "method = \"random\""],
        ),
        (
            "[sweep]\nmethod = \"random\"\n[sweep.parameters]\noptimizer.lr = { min = 1 }\n",
            vec!["sweep.toml:4", "needs the numbers min and max"],
        ),
        (
            "[sweep]\nmethod = \"random\"\n[sweep.parameters]\noptimizer.lr = { min = 2, max = 1 }\n",
            vec!["is no range: from 2 to 1"],
        ),
        (
            "[sweep]\nmethod = \"random\"\n[sweep.parameters]\noptimizer.lr = { min = 0, max = 1, distribution = \"log_uniform\" }\n",
            vec!["above 0 for log_uniform"],
        ),
        (
            "[sweep]\nmethod = \"random\"\n[sweep.parameters]\noptimizer.lr = { min = 1, max = 2, distribution = \"normal\" }\n",
            vec!["\"normal\"", "\"log_uniform\""],
        ),
        ("[sweep]\nmethod = \"list\"\n", vec!["sweep.toml:2", "the list has no runs"]),
        ("[sweep]\nmethod = \"lst\"\n", vec!["sweep.toml:2", "\"list\""]),
        ("[sweep]\nmetod = \"list\"\n", vec!["did you mean `method`?"]),
        ("[[sweep.runs]]\noptimizer.lr = 1\n", vec!["are not read by method \"grid\""]),
        ("[sweep.parameters]\noptimizer.lr = [1979-05-27]\n", vec!["a value of that setting"]),
    ] {
        let error = points_of(text).expect_err(text);
        for part in wanted {
            assert!(error.contains(part), "{text}: {part:?} is not in\n{error}");
        }
    }
}

#[test]
fn a_grid_has_an_end() {
    let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let many = many.join(", ");
    let text = format!("[sweep.parameters]\ntraining.seed = [{many}]\ntraining.steps = [{many}]\n");
    assert!(points_of(&text).expect_err("40,000 runs").contains("more than 10000 runs"));
}
