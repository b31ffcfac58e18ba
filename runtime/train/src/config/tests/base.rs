//! Configs that start from others: what holds, where it is from, and what is refused.

use std::path::PathBuf;

use linc_config::shipped::{Shipped, ShippedFile};
use linc_config::{FilePlace, ModelFiles};

use super::*;

const SHIPPED: Shipped = Shipped {
    configs: &[
        ShippedFile { path: "configs/small.toml", text: "# Small.\n[training]\nsteps = 7\nseq_len = 16\n" },
        ShippedFile {
            path: "configs/smaller.toml",
            text: "# Smaller.\nbase = \"small.toml\"\n[training]\nsteps = 3\n",
        },
    ],
    models: &[],
    architectures: &[],
};

/// A folder of configs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        for (name, text) in files {
            let path = folder.path(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self, name: &str, args: &[&str]) -> Result<LoadedConfig, ConfigError> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        JobConfig::load_file(&self.path(name), &Override::parse_all(&args, &JobConfig::keys())?, &SHIPPED)
    }

    fn good(&self, name: &str, args: &[&str]) -> LoadedConfig {
        self.load(name, args).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What is wrong, without the folder's name.
    fn bad(&self, name: &str) -> String {
        let error = self.load(name, &[]).expect_err(name).to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn command_line_beats_config_beats_base_beats_default() {
    let folder = Folder::new(&[
        ("all.toml", "[training]\nsteps = 10\nseq_len = 32\nbatch_size = 2\n[optimizer]\nlr = 0.5\n"),
        ("sub/more.toml", "base = \"../all.toml\"\n[training]\nseq_len = 64\nlocal_batch_size = 3\n"),
        ("run.toml", "# A run.\nbase = \"sub/more.toml\"\n[training]\nlocal_batch_size = 4\n"),
    ]);
    let LoadedConfig { config, warnings, files, .. } = folder.good("run.toml", &["--training.steps", "300"]);
    assert_eq!((config.training.steps, config.training.seq_len, config.training.batch_size), (300, 64, 4));
    assert_eq!((config.optimizer.lr, config.training.max_norm), (0.5, 1.0));
    assert_eq!(warnings, [""; 0]);
    assert_eq!(files, ["run.toml", "sub/more.toml", "sub/../all.toml"].map(|name| folder.path(name)));
    // What a run keeps is all of it, and reads back without the bases.
    let written = config.to_toml();
    assert!(!written.contains("base"), "{written}");
    let again = JobConfig::load(&written, "config.toml", &[]).expect("complete").config;
    assert_eq!(again, config);
    assert_eq!(again.changes_since(&config), []);
}

#[test]
fn a_base_may_be_built_in() {
    let folder = Folder::new(&[
        ("run.toml", "base = \"smaller\"\n[training]\nseq_len = 8\n"),
        ("own.toml", "base = \"small.toml\"\n"),
        ("below/own.toml", "base = \"small.toml\"\n"),
        ("small.toml", "[training]\nsteps = 100\n"),
    ]);
    let steps = |name: &str| {
        let training = folder.good(name, &[]).config.training;
        (training.steps, training.seq_len)
    };
    assert_eq!(steps("run.toml"), (3, 8));
    assert_eq!(steps("own.toml"), (100, 2048), "a file beside the config comes first");
    assert_eq!(steps("below/own.toml"), (7, 16));
    let loaded = JobConfig::load_file(Path::new("smaller"), &[], &SHIPPED).expect("built in");
    assert_eq!((loaded.config.training.steps, loaded.config.training.seq_len), (3, 16));
    assert!(loaded.files.is_empty());
}

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    let folder = Folder::new(&[
        ("base.toml", "[training]\nsteps = 0\nseqlen = 4\n[optimizer]\nimplementation = \"fused\"\nlr = 1\n"),
        ("run.toml", "base = \"base.toml\"\n[model]\nflavour = \"x\"\n"),
        ("mended.toml", "base = \"base.toml\"\n[training]\nsteps = 1\n"),
        ("torn.toml", "[training\nsteps = 1\n"),
        ("of_torn.toml", "base = \"torn.toml\"\n"),
        ("large.toml", "[training]\nbatch_size = 100000\n"),
        ("conflict.toml", "base = \"large.toml\"\n[training]\nseq_len = 100000\n"),
    ]);
    let said = folder.bad("run.toml");
    let heads: Vec<&str> = said.lines().filter(|line| line.contains(".toml:")).collect();
    assert_eq!(
        heads,
        [
            "run.toml:3:1: error: unknown key `flavour` in [model]",
            "base.toml:2:9: error: `training.steps`: expected an integer of at least 1, found 0",
            "base.toml:3:1: error: unknown key `seqlen` in [training]",
        ]
    );
    // A value that another replaces is not looked at; a key that does not exist is.
    let said = folder.bad("mended.toml");
    assert!(said.starts_with("base.toml:3:1: error: unknown key") && !said.contains("steps"), "{said}");
    assert!(folder.bad("of_torn.toml").starts_with("torn.toml:1:"), "{}", folder.bad("of_torn.toml"));
    let said = folder.bad("conflict.toml");
    assert!(said.starts_with("conflict.toml:3:11: error: batch_size * seq_len"), "{said}");
}

#[test]
fn a_key_without_effect_is_said_once() {
    let folder = Folder::new(&[
        ("base.toml", "[optimizer]\nimplementation = \"fused\"\n"),
        ("run.toml", "base = \"base.toml\"\n[optimizer]\nimplementation = \"foreach\"\n"),
    ]);
    let warnings = folder.good("run.toml", &[]).warnings;
    assert!(
        warnings.len() == 1 && warnings[0].contains("run.toml:3:1: `optimizer.implementation`"),
        "{warnings:?}"
    );
    let warnings = folder.good("run.toml", &["--optimizer.implementation", "fused"]).warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("command line"), "{warnings:?}");
}

#[test]
fn other_data_replace_those_of_the_base() {
    let folder = Folder::new(&[
        ("text.toml", "[training]\ndataset = \"text\"\ndataset_path = \"a.txt\"\n"),
        ("tales.toml", "base = \"text.toml\"\n[training]\ndataset = \"stories\"\n"),
        ("own.toml", "base = \"tales.toml\"\n[training]\ndataset_path = \"b.txt\"\n"),
    ]);
    let data = |name: &str| {
        let training = folder.good(name, &[]).config.data.training;
        (training.dataset.word(), training.dataset_path)
    };
    assert_eq!(data("tales.toml"), ("stories", None));
    assert_eq!(data("own.toml"), ("text", Some("b.txt".to_owned())));
}

#[test]
fn another_schedule_replaces_that_of_the_base() {
    let segments = "[[lr_scheduler.segments]]\nto = 1.0\nsteps = 5\n[[lr_scheduler.segments]]\nto = 0.0\n";
    let folder = Folder::new(&[
        ("warm.toml", "[lr_scheduler]\nwarmup_steps = 7\ndecay_ratio = 0.5\n[training]\nsteps = 50\n"),
        ("cut.toml", &format!("base = \"warm.toml\"\n{segments}")),
        ("again.toml", "base = \"cut.toml\"\n[lr_scheduler]\nwarmup_steps = 3\n"),
    ]);
    let cut = folder.good("cut.toml", &[]).config.lr_scheduler;
    assert_eq!((cut.segments.len(), cut.decay_ratio), (2, None));
    let again = folder.good("again.toml", &[]).config.lr_scheduler;
    assert_eq!((again.segments.len(), again.warmup_steps), (0, 3));
}

#[test]
fn a_model_is_looked_for_beside_the_base_too() {
    let folder = Folder::new(&[
        ("lab/configs/base.toml", "[model]\nname = \"own\"\nflavor = \"tiny\"\n"),
        ("lab/models/own_tiny.toml", "architecture = \"own.linc\"\n"),
        ("lab/models/own.linc", "model own {}\n"),
        ("mine/run.toml", "base = \"../lab/configs/base.toml\"\n"),
    ]);
    let loaded = folder.good("mine/run.toml", &[]);
    let files = ModelFiles::resolve(&loaded.config.model, &loaded.files, &SHIPPED).expect("found");
    assert!(files.model_path.ends_with("lab/models/own_tiny.toml"), "{files:?}");
    let elsewhere = ModelFiles::resolve(&loaded.config.model, &loaded.files[..1], &SHIPPED);
    assert!(elsewhere.is_err());
}

#[test]
fn what_is_no_base_is_refused_at_its_line() {
    let folder = Folder::new(&[
        ("model.toml", "architecture = \"own.linc\"\n"),
        ("own.linc", "model own {}\n"),
        ("out/config.toml", ""),
        ("empty_folder/x", ""),
        ("step/state.json", "{}"),
        ("other.toml", "[training]\nsteps = 5\n"),
        ("latin.toml", ""),
    ]);
    std::fs::write(folder.path("latin.toml"), b"# caf\xe9\n").expect("a file");
    let of = |value: &str| {
        std::fs::write(folder.path("run.toml"), format!("# A run.\nbase = {value}\n")).expect("a file");
        folder.bad("run.toml")
    };
    for (value, words) in [
        ("\"othr.toml\"", vec!["there is no file othr.toml", "did you mean", "other.toml?"]),
        ("\"smal.toml\"", vec!["there is no file smal.toml", "did you mean small.toml, which is built in?"]),
        ("\"nothing/like/it\"", vec!["there is no file nothing/like/it", "help: "]),
        ("\"model.toml\"", vec!["model.toml is a model file, not the config of a run", "help: "]),
        ("\"own.linc\"", vec!["own.linc is an architecture"]),
        ("\"out\"", vec!["out is the folder of a run"]),
        ("\"step\"", vec!["step is a checkpoint"]),
        ("\"empty_folder\"", vec!["empty_folder is no file", "help: "]),
        ("\"/dev/null\"", vec!["/dev/null is no file"]),
        ("\"latin.toml\"", vec!["is not UTF-8 text"]),
        ("\"\"", vec!["expected the name of a config file, found an empty one"]),
        ("7", vec!["expected the name of a config file, found the integer 7"]),
        ("[\"other.toml\"]", vec!["found the list [\"other.toml\"]", "help: write base = "]),
        ("{ file = \"other.toml\" }", vec!["found a table"]),
    ] {
        let said = of(value);
        assert!(said.starts_with("run.toml:2:8: error: `base`: "), "{value}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{value}: {said}");
    }
}

#[test]
fn bases_that_go_in_a_circle_name_their_lines() {
    let folder = Folder::new(&[
        ("self.toml", "base = \"./self.toml\"\n"),
        ("a.toml", "base = \"b.toml\"\n"),
        ("b.toml", "# B.\nbase = \"sub/../c.toml\"\n"),
        ("c.toml", "\n\nbase = \"a.toml\"\n"),
        ("into.toml", "base = \"b.toml\"\n"),
        ("sub/x", ""),
    ]);
    let said = folder.bad("self.toml");
    assert!(
        said.starts_with("self.toml:1:8: error: `base` leads back to where it began: self.toml:1 -> "),
        "{said}"
    );
    let said = folder.bad("a.toml");
    assert!(said.contains("a.toml:1 -> b.toml:2 -> sub/../c.toml:3 -> a.toml"), "{said}");
    assert!(said.contains("help: leave out one"), "{said}");
    // The way into the circle is no part of it.
    let said = folder.bad("into.toml");
    assert!(!said.contains("into.toml"), "{said}");
}

#[test]
fn a_base_elsewhere_than_at_the_top_is_told_its_place() {
    let at_the_top = "base = \"FILE.toml\" stands above the first section";
    assert!(bad("[training]\nbase = \"a.toml\"\n", &[]).contains(at_the_top));
    assert!(bad("", &["--job.base", "a.toml"]).contains(at_the_top));
    assert!(bad("", &["--base", "a.toml"]).contains(at_the_top));
    assert!(bad("", &["--base=a.toml"]).contains(at_the_top));
    // The record of a run is complete: what it names is not looked for.
    let said = bad("base = \"a.toml\"\n", &[]);
    assert!(
        said.starts_with("run.toml:1:1: error: `base` is followed in the config that is trained"),
        "{said}"
    );
}

#[test]
fn places_of_settings_are_those_of_their_files() {
    let folder = Folder::new(&[
        ("base.toml", "[training]\nsteps = 5\nseq_len = 8\n"),
        ("run.toml", "base = \"base.toml\"\n[training]\nsteps = 6\n"),
    ]);
    let config = folder.good("run.toml", &["--training.batch_size", "2"]).config;
    let place = |name: &str| config.problem(&[name], String::new(), None).problems.remove(0).place;
    let line = |name: &str| match place(name) {
        Some(Place::File(FilePlace { file, line, .. })) => {
            Some((file.rsplit('/').next().map(str::to_owned), line))
        }
        Some(Place::CommandLine(_)) | None => None,
    };
    assert_eq!(line("training.steps"), Some((Some("run.toml".to_owned()), 3)));
    assert_eq!(line("training.seq_len"), Some((Some("base.toml".to_owned()), 3)));
    assert_eq!(place("training.batch_size"), Some(Place::CommandLine("--training.batch_size 2".to_owned())));
}
