//! The config as `linc config` prints it.

use linc_data::DatasetKind;

use super::*;

#[test]
fn it_is_a_config_itself_and_the_same() {
    for (text, args) in [
        ("", vec![]),
        (
            "[training]\ndataset = \"mqar\"\nseq_len = 64\n[model.overrides]\n\"odd key\" = true\nrope.factor = 8.0\n",
            vec![],
        ),
        (
            "[model]\nlinear_attn_placement = [0, 1]\ntokenizer_path = \"a # b\"\n",
            vec!["--optimizer.lr", "3e-4"],
        ),
    ] {
        let config = good(text, &args);
        let printed = config.to_toml_with_origins();
        assert_eq!(good(&printed, &[]), config, "{printed}");
    }
    // A name that would end the comment does not.
    let odd =
        JobConfig::load("[training]\nsteps = 300\n", "two\nlines\u{7f}.toml", &[]).expect("valid").config;
    assert_eq!(good(&odd.to_toml_with_origins(), &[]), odd);
}

#[test]
fn each_value_says_where_it_is_from() {
    let config =
        good("# A run.\n[training]\nlocal_batch_size = 4\nsteps = 300\n", &["--training.steps", "400"]);
    let printed = config.to_toml_with_origins();
    let line = |key: &str| {
        let mut lines = printed.lines().filter(|line| line.starts_with(key));
        lines
            .next()
            .unwrap_or_else(|| panic!("no {key}:\n{printed}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(line("steps ="), "steps = 400 # command line");
    assert_eq!(line("batch_size ="), "batch_size = 4 # run.toml:3");
    assert_eq!(line("seq_len ="), "seq_len = 2048 # default");
    assert_eq!(line("# tokenizer_path"), "# tokenizer_path is not set");
    // What follows from another setting is from there.
    let config = good("[training]\ndataset_path = \"a.txt\"\n", &[]);
    let dataset = config.resolved().into_iter().find(|setting| setting.key == "dataset").expect("listed");
    assert_eq!((dataset.value.as_deref(), dataset.origin().as_str()), (Some("\"text\""), "run.toml:2"));
}

#[test]
fn every_setting_is_there_once() {
    let names = |config: &JobConfig| -> Vec<String> {
        config.resolved().iter().map(|setting| format!("{}.{}", setting.section, setting.key)).collect()
    };
    let mut config =
        good("[training]\ndataset = \"mqar\"\nseq_len = 64\n[training.recall]\nnum_examples = 5\n", &[]);
    assert_eq!(names(&config), JobConfig::keys().into_iter().map(|key| key.name).collect::<Vec<_>>());
    config.data.training.dataset = DatasetKind::Stories;
    config.data.recall = Default::default();
    let of_others = |name: &String| name.starts_with("training.mqar") || name.starts_with("training.recall");
    assert!(!names(&config).iter().any(of_others));
}
