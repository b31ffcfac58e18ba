//! Whole configs: precedence, round trip, spellings, and complaints with their places.

use linc_config::{ModelFiles, is_ignored, shipped};
use linc_driver::{Placement, Ratio};

use super::*;

mod base;
mod resolved;
mod schema;
mod titan;

fn load(text: &str, args: &[&str]) -> Result<LoadedConfig, ConfigError> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let loaded = JobConfig::load(text, "run.toml", &Override::parse_all(&args, &JobConfig::keys())?);
    // Whatever is accepted conforms to the schema, in which editors would mark it otherwise.
    if loaded.is_ok() {
        schema::check(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    loaded
}

fn good(text: &str, args: &[&str]) -> JobConfig {
    load(text, args).unwrap_or_else(|error| panic!("{error}")).config
}

fn bad(text: &str, args: &[&str]) -> String {
    load(text, args).expect_err("should be refused").to_string()
}

#[test]
fn an_empty_text_gives_the_defaults() {
    let loaded = load("", &[]).expect("valid");
    assert_eq!(loaded.config, JobConfig::default());
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.config.optimizer.beta2, 0.95);
    assert_eq!(loaded.config.model.linear_attn_ratio, None);
}

#[test]
fn defaults_pass_their_own_checks() {
    let config = good(&JobConfig::default().to_toml(), &[]);
    assert_eq!(config, JobConfig::default());
}

#[test]
fn command_line_beats_file_beats_default() {
    let text = "[training]\nsteps = 20\nseq_len = 64\n";
    let config = good(text, &["--training.steps", "30", "--training.batch-size=4"]);
    assert_eq!((config.training.steps, config.training.seq_len, config.training.batch_size), (30, 64, 4));
    assert_eq!(config.training.max_norm, 1.0);
    let config = good(text, &["--training.steps", "30", "--training.steps", "40"]);
    assert_eq!(config.training.steps, 40);
}

#[test]
fn flags_take_every_type() {
    let config = good(
        "",
        &[
            "--checkpoint.enable",
            "--model.linear_attn_ratio",
            "3/4",
            "--model.linear_attn_placement=0,2",
            "--compile.disable_passes",
            "cse,fusion",
            "--optimizer.lr",
            "3e-4",
            "--checkpoint.load_step",
            "-1",
            "--job.description",
            "say \"hi\"",
            "--lr_scheduler.decay_type",
            "cosine",
            "--model.overrides.dim",
            "256",
            "--training.mqar.num_kv_pairs",
            "8,16",
        ],
    );
    assert!(config.checkpoint.enable);
    assert_eq!(config.model.linear_attn_ratio, Some("0.75".parse().expect("a share")));
    assert_eq!(config.model.linear_attn_placement, Placement::Layers(vec![0, 2]));
    assert_eq!(config.compile.disable_passes, ["cse", "fusion"]);
    assert_eq!(config.optimizer.lr, 3e-4);
    assert_eq!(config.checkpoint.load_step, -1);
    assert_eq!(config.job.description, "say \"hi\"");
    assert_eq!(config.lr_scheduler.decay_type, DecayType::Cosine);
    assert_eq!(config.model_overrides.get("dim"), Some(&Scalar::Int(256)));
    assert_eq!(config.data.mqar.num_kv_pairs, [8, 16]);
}

#[test]
fn the_resolved_config_reads_back_the_same() {
    let text = r#"
        [job]
        dump_folder = "C:\\out \"x\""
        [model]
        linear_attn_ratio = "1/3"
        linear_attn_placement = [1, 3]
        tokenizer_path = "tok.json"
        [model.overrides]
        dim = 64
        theta = 1e6
        rope.factor = 8.0
        "odd key" = true
        [lr_scheduler]
        decay_ratio = 0.1
        [training]
        dataset = "mqar"
        seq_len = 128
        seed = 9223372036854775807
        [training.mqar]
        num_kv_pairs = [4, 8]
        [compile]
        disable_passes = ["cse"]
    "#;
    let config = good(text, &["--optimizer.lr", "0.00123"]);
    assert_eq!(config.model_overrides.get("rope.factor"), Some(&Scalar::Float(8.0)));
    let written = config.to_toml();
    assert_eq!(good(&written, &[]), config, "{written}");
    assert!(written.contains("linear_attn_ratio = \"1/3\""), "{written}");
}

#[test]
fn older_and_newer_spellings_mean_the_same() {
    let old = "[job]\nprint_args = true\n[training]\nbatch_size = 2\nwarmup_steps = 5\ntensor_parallel_degree = 1\ncompile = true\n\
               [model]\ntokenizer_path = \"t\"\n[lr_scheduler]\nlr_min = 0.1\n[checkpoint]\nenable_checkpoint = true\nmodel_weights_only = true\n";
    let new = "[job]\nprint_config = true\n[training]\nlocal_batch_size = 2\n[compile]\nenable = true\n[parallelism]\ntensor_parallel_degree = 1\n\
               [model]\nhf_assets_path = \"t\"\n[lr_scheduler]\nmin_lr_factor = 0.1\nwarmup_steps = 5\n[checkpoint]\nenable = true\nlast_save_model_only = true\n";
    assert_eq!(good(old, &[]), good(new, &[]));
    let both = bad("[training]\nbatch_size = 2\nlocal_batch_size = 2\n", &[]);
    assert!(both.contains("are the same setting"), "{both}");
    let config = good("[training]\nbatch_size = 2\n", &["--training.local_batch_size", "3"]);
    assert_eq!(config.training.batch_size, 3);
}

#[test]
fn titans_other_keys_are_accepted_with_a_warning() {
    let text = "[optimizer]\nimplementation = \"fused\"\n[float8]\nenable_fsdp_float8_all_gather = false\n\
                [compile]\nenable = false\n[quantize.linear.float8]\nx = 1\n";
    let warnings = load(text, &[]).expect("accepted").warnings;
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings.iter().any(|w| w.starts_with("run.toml:2:1: `optimizer.implementation` has no effect")));
    assert!(
        warnings.iter().any(|w| w.contains("run.toml:6:") && w.contains("linc always compiles")),
        "{warnings:?}"
    );
}

#[test]
fn settings_that_another_keeps_from_being_read_say_so() {
    let warnings = |text: &str| load(text, &[]).expect("valid").warnings;
    let base = "[lr_scheduler]\nwarmup_steps = 0\n";
    for (text, place, name) in [
        ("[validation]\nfreq = 5\n", "4:8", "validation.freq"),
        ("[activation_checkpoint]\nmemory_budget = 0.3\n", "4:17", "activation_checkpoint.memory_budget"),
    ] {
        let found = warnings(&format!("{base}{text}"));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("run.toml:{place}: `{name}`")),
            "{found:?}"
        );
    }
    assert!(warnings(&format!("{base}[validation]\nenable = true\nfreq = 5\n")).is_empty());
}

#[test]
fn a_schedule_that_is_longer_than_the_run_is_said() {
    let warnings = |text: &str| load(text, &[]).expect("valid").warnings;
    let warmup = warnings("[training]\nsteps = 3\n[lr_scheduler]\nwarmup_steps = 200\n");
    assert_eq!(warmup, ["run.toml:4:16: a warmup of 200 steps is longer than the run of 3 steps"]);
    let default = warnings("[training]\nsteps = 3\n");
    assert!(default.len() == 1 && default[0].contains("200 steps (the default)"), "{default:?}");
    let decay = warnings("[training]\nsteps = 10\n[lr_scheduler]\nwarmup_steps = 4\ndecay_ratio = 0.8\n");
    assert!(decay.len() == 1 && decay[0].starts_with("run.toml:5:15:"), "{decay:?}");
    assert!(decay[0].contains("leaves 6 of 10 steps") && decay[0].contains("take 8"), "{decay:?}");
    let fits = "[training]\nsteps = 10\n[lr_scheduler]\nwarmup_steps = 10\ndecay_ratio = 0.0\n";
    assert!(warnings(fits).is_empty());
}

#[test]
fn an_unknown_key_shows_its_line_and_the_nearest() {
    let error = bad("[training]\nsteps = 5\nseqlen = 64 # oops\n", &[]);
    assert_eq!(
        error,
        "run.toml:3:1: error: unknown key `seqlen` in [training]\n  |\n3 | seqlen = 64 # oops\n  | ^^^^^^\n  = help: did you mean `seq_len`?"
    );
    assert!(bad("[model]\nsteps = 5\n", &[]).contains("did you mean `steps` of [training]?"));
    assert!(bad("[trainin]\nsteps = 5\n", &[]).contains("did you mean [training]?"));
    assert!(bad("[zzzzzzzzz]\n", &[]).contains("the sections are [job]"));
    assert!(bad("[optimizer]\nzzzzzzzzz = 1\n", &[]).contains("[optimizer] has name, lr"));
    assert!(bad("steps = 5\n", &[]).contains("belongs to [training]"));
    assert!(bad("training = 5\n", &[]).contains("is a section"));
    assert!(bad("[training.steps]\nx = 1\n", &[]).contains("run.toml:1:11"));
    assert!(bad("[training]\nmqar = 3\n", &[]).contains("mqar"));
}

#[test]
fn a_bad_flag_is_named() {
    let error = bad("", &["--training.step", "5"]);
    assert!(
        error.contains("`--training.step 5`") && error.contains("did you mean `--training.steps`?"),
        "{error}"
    );
    let error = bad("", &["--training.steps", "many"]);
    assert!(error.contains("`--training.steps many`") && error.contains("expected an integer"), "{error}");
    assert!(bad("", &["--training.steps"]).contains("needs a value"));
    assert!(bad("", &["steps"]).contains("unexpected argument `steps`"));
    assert!(bad("", &["--steps", "5"]).contains("--section.key value"));
    assert!(bad("", &["--.", "5"]).contains("unknown"));
}

#[test]
fn wrong_types_and_ranges_point_at_the_value() {
    let refused = [
        ("[model]\nlinear_attn_ratio = -0.1", "2:21", "from 0 to 1"),
        ("[model]\nlinear_attn_ratio = 1.5", "2:21", "found the number 1.5"),
        ("[model]\nlinear_attn_ratio = nan", "2:21", "found the number nan"),
        ("[model]\nlinear_attn_ratio = \"x\"", "2:21", "the string \"x\""),
        ("[model]\nlinear_attn_placement = \"up\"", "2:25", "uniform"),
        ("[training]\nseq_len = 0", "2:11", "at least 1"),
        ("[training]\nseq_len = -4", "2:11", "expected an integer of at least 1, found the integer -4"),
        ("[training]\nseq_len = 1.5", "2:11", "found the number 1.5"),
        ("[training]\nseq_len = \"long\"", "2:11", "found the string \"long\""),
        (
            "[training]\nsteps = 99999999999999999999",
            "2:9",
            "the integer 99999999999999999999, which 64 bits do not hold",
        ),
        (
            "[training]\nseed = -1",
            "2:8",
            "expected an integer from 0 to 9223372036854775807, found the integer -1",
        ),
        (
            "[training]\nseed = 9223372036854775808",
            "2:8",
            "from 0 to 9223372036854775807, found 9223372036854775808",
        ),
        (
            "[training.mqar]\nnum_kv_pairs = [8, \"x\"]",
            "2:16",
            "expected a list of at least one integer, each at least 1, found the list [8, \"x\"]",
        ),
        ("[lr_scheduler]\ndecay_ratio = \"all\"", "2:15", "expected a number from 0 to 1, found the string"),
        ("[training]\nseq_len = 999999999999", "2:11", "2147483647"),
        ("[training]\nglobal_batch_size = 9", "2:21", "not a multiple"),
        ("[training]\nglobal_batch_size = 800000000", "2:21", "268435456 tokens in one step"),
        ("[training]\nglobal_batch_size = 9223372036854775800", "2:21", "268435456 tokens in one step"),
        (
            "[training]\nmixed_precision_param = \"bf16\"",
            "2:25",
            "expected one of \"float32\", \"bfloat16\", \"float16\", found the string \"bf16\"; the nearest is \"bfloat16\"",
        ),
        ("[training]\nmixed_precision_param = \"fp32\"", "2:25", "the nearest is \"float32\""),
        ("[training]\nmixed_precision_param = \"fp16\"", "2:25", "the nearest is \"float16\""),
        ("[training]\nmixed_precision_param = 16", "2:25", "found the integer 16"),
        (
            "[training]\nmixed_precision_reduce = \"bfloat16\"",
            "2:26",
            "\"float32\" (what this version supports)",
        ),
        ("[training]\ndataset = \"c4\"", "2:11", "\"stories\", \"mqar\", \"mqar_forgetting\""),
        ("[training]\ndataset = \"text\"", "2:11", "needs dataset_path"),
        ("[optimizer]\nname = \"SGD\"", "2:8", "AdamW"),
        ("[optimizer]\nns_steps = 0", "2:12", "an integer from 1 to 20"),
        ("[optimizer]\nlr = inf", "2:6", "finite"),
        ("[lr_scheduler]\ndecay_ratio = 2.0", "2:15", "0 to 1"),
        ("[lr_scheduler]\ndecay_type = \"step\"", "2:14", "cosine"),
        ("[parallelism]\ntensor_parallel_degree = 2", "2:26", "data parallelism"),
        ("[compile]\ndisable_passes = [\"cse\", \"inline\"]", "2:18", "can be left out, which are "),
        ("[compile]\nautotune_seconds = -1", "2:20", "a finite number of at least 0, found -1"),
        ("[compile]\nautotune_seconds = \"fast\"", "2:20", "found the string \"fast\""),
        ("[compile]\nautotune_secs = 5", "2:1", "did you mean `autotune_seconds`?"),
        ("[activation_checkpoint]\nmode = \"some\"", "2:8", "selective"),
        ("[activation_checkpoint]\nselective_ac_option = \"0\"", "2:23", "of at least 1"),
        (
            "[activation_checkpoint]\nmemory_budget = 1.5",
            "2:17",
            "a share from 0 to 1, or an amount of memory",
        ),
        ("[activation_checkpoint]\nmemory_budget = \"24 G\"", "2:17", "such as 24GiB"),
        ("[checkpoint]\nenable = 1", "2:10", "true or false"),
        ("[validation]\nenable = true\nfraction = 0", "3:12", "no data is held out"),
        ("[training]\nsteps = ", "2:9", "not valid TOML"),
        ("[training\nsteps = 5", "1:10", "not valid TOML"),
    ];
    for (text, place, part) in refused {
        let error = bad(text, &[]);
        assert!(error.contains(&format!("run.toml:{place}: ")), "{text}: {error}");
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn groups_of_parameters_read_back() {
    let text = "[optimizer]\nname = \"Muon\"\n[[optimizer.groups]]\nrole = [\"norm\", \"embedding\"]\nweight_decay = 0\n\
                [[optimizer.groups]]\nparams = \"*.wq.weight\"\nlr_factor = 0.5\nname = \"AdamW\"\n";
    let config = good(text, &[]);
    let [first, second] = &config.optimizer.groups[..] else { panic!("two groups") };
    assert_eq!(
        (&first.role[..], first.weight_decay),
        (&[GroupRole::Norm, GroupRole::Embedding][..], Some(0.0))
    );
    assert_eq!((&second.params[..], second.lr_factor), (&["*.wq.weight".to_owned()][..], Some(0.5)));
    assert_eq!(second.name, Some(OptimizerName::AdamW));
    assert_eq!(good(&config.to_toml(), &[]), config);
    // Another group is another run.
    let more = good(&format!("{text}[[optimizer.groups]]\nrole = \"output\"\nlr = 1e-4\n"), &[]);
    assert!(more.changes_since(&config).iter().any(Change::shapes));
    let idle = load("[optimizer]\nmomentum = 0.9\n", &[]).expect("a config").warnings;
    assert!(
        idle.iter().any(|w| w.contains("`momentum` has no effect") && w.contains("run.toml:2:12")),
        "{idle:?}"
    );
}

#[test]
fn what_nobody_reads_says_so() {
    let warned = |text: &str, place: &str, name: &str| {
        let warnings = load(text, &[]).expect("a config").warnings;
        let is_it = |w: &String| w.starts_with(&format!("run.toml:{place}: `{name}` has no effect"));
        warnings.iter().any(is_it)
    };
    let unread = [
        ("[training]\ndocument_separator = \"--\"\n", "2:22", "training.document_separator"),
        ("[training]\ntext_field = \"body\"\n", "2:14", "training.text_field"),
        ("[training]\ndataset = \"copy\"\n[validation]\nfraction = 0.2\n", "4:12", "validation.fraction"),
        ("[validation]\nfraction = 0.2\n", "2:12", "validation.fraction"),
        (
            "[validation]\nenable = true\nfraction = 0.2\ndataset_path = \"other.txt\"\n",
            "3:12",
            "validation.fraction",
        ),
        (
            "[model]\ntokenizer_path = \"t.json\"\n[training]\ndataset = \"copy\"\n",
            "2:18",
            "model.tokenizer_path",
        ),
        ("[eval]\nlimit = 7\n", "2:9", "eval.limit"),
        ("[eval]\ndata = \"elsewhere\"\n", "2:8", "eval.data"),
        ("[training.recall]\nvocab_size = 32\n", "2:14", "training.recall.vocab_size"),
        (
            "[training.recall]\nnum_validation_examples = 3\n",
            "2:27",
            "training.recall.num_validation_examples",
        ),
        ("[training.mqar]\nnum_kv_pairs = 4\n", "2:16", "training.mqar.num_kv_pairs"),
    ];
    for (text, place, name) in unread {
        assert!(warned(text, place, name), "{text}: {:?}", load(text, &[]).expect("a config").warnings);
    }
    // Nothing is said of what is read, nor of defaults.
    for text in [
        "[eval]\nlimit = 7\ntasks = [\"copy\"]\n",
        "[validation]\nenable = true\nfraction = 0.2\n",
        "[eval]\nlimit = 100\n",
        "[training]\ndataset = \"copy\"\n[training.recall]\nvocab_size = 32\n",
        "[training]\ndataset = \"mqar\"\n[training.mqar]\nnum_kv_pairs = 4\n",
    ] {
        assert!(load(text, &[]).expect("a config").warnings.is_empty(), "{text}");
    }
}

#[test]
fn a_schedule_may_be_a_list_of_segments() {
    let text = "[[lr_scheduler.segments]]\nsteps = 10\nto = 1.0\n[[lr_scheduler.segments]]\nto = 0.1\nshape = \"cosine\"\n";
    let config = good(text, &[]);
    let [first, second] = &config.lr_scheduler.segments[..] else { panic!("two segments") };
    assert_eq!((first.steps, first.to, first.shape), (Some(10), Some(1.0), DecayType::Linear));
    assert_eq!((second.steps, second.to, second.shape), (None, Some(0.1), DecayType::Cosine));
    // Written with all other settings, it is the same config.
    assert_eq!(good(&config.to_toml(), &[]), config);
    let flag = "[{ steps = 10, to = 1.0 }, { to = 0.1, shape = \"cosine\" }]";
    assert_eq!(good("", &["--lr_scheduler.segments", flag]), config);
    let one = good("[lr_scheduler.segments]\nto = 0.5\n", &[]);
    assert_eq!(
        one.lr_scheduler.segments,
        good("", &["--lr_scheduler.segments", "{ to = 0.5 }"]).lr_scheduler.segments
    );

    for (part, place, message) in [
        ("stps = 5\nto = 1", "4:1", "entry 2: unknown key `stps`: did you mean `steps`?"),
        ("steps = 0\nto = 1", "4:9", "entry 2: `steps`: expected an integer of at least 1, found 0"),
        ("to = -1", "4:6", "entry 2: `to`: expected a finite number of at least 0"),
        ("shape = \"step\"", "4:9", "entry 2: `shape`: expected one of \"linear\""),
    ] {
        let error =
            bad(&format!("[[lr_scheduler.segments]]\nto = 1.0\n[[lr_scheduler.segments]]\n{part}\n"), &[]);
        assert!(
            error.contains(&format!("run.toml:{place}: error: `lr_scheduler.segments`: {message}")),
            "{error}"
        );
    }
    let segment = "[[lr_scheduler.segments]]\nto = 1.0\n";
    assert!(bad(&format!("{segment}{segment}"), &[]).contains("entry 1 of `segments` has no `steps`"));
    assert!(bad("[[lr_scheduler.segments]]\nsteps = 5\n", &[]).contains("give it a `to`"));
    let both = bad(&format!("[lr_scheduler]\nwarmup_steps = 5\n{segment}"), &[]);
    assert!(both.contains("run.toml:2:16: error: `warmup_steps` stands beside `segments`"), "{both}");
    assert!(
        bad("", &["--lr_scheduler.segments", "[{ to = \"x\" }]"]).contains("`to`: expected a finite number")
    );
    let long = load(&format!("[training]\nsteps = 5\n{}", text), &[]).expect("a config").warnings;
    assert!(long.iter().any(|w| w.contains("segments of 11 steps are longer than the run of 5")), "{long:?}");
}

#[test]
fn the_recall_task_must_fit() {
    let text = "[training]\ndataset = \"mqar\"\nseq_len = 64\n[training.mqar]\n";
    assert_eq!(good(&format!("{text}num_kv_pairs = 16\n"), &[]).data.mqar.num_kv_pairs, [16]);
    assert!(bad(&format!("{text}num_kv_pairs = 17\n"), &[]).contains("run.toml:5:16: error: 17 pairs"));
    assert!(bad(&format!("{text}vocab_size = 16\nnum_kv_pairs = 8\n"), &[]).contains("has 7 keys"));
    assert!(bad(&format!("{text}num_kv_pairs = []\n"), &[]).contains("at least one"));
    assert!(bad(text, &["--training.seq_len", "63"]).contains("odd"));
    assert!(bad(text, &["--training.mqar.num_passes", "18446744073709551615"]).contains("more than seq_len"));
}

#[test]
fn all_problems_are_reported_in_order() {
    let error = load("[training]\nsteps = 0\nseqlen = 1\n[model]\nflavour = \"x\"\n", &["--job.x", "1"]);
    let problems = error.expect_err("four problems").problems;
    let lines: Vec<_> =
        problems.iter().map(|p| matches!(&p.place, Some(Place::File(f)) if f.line > 0)).collect();
    assert_eq!(lines, [true, true, true, false]);
}

#[test]
fn every_key_has_help_and_aliases_are_unambiguous() {
    let keys = JobConfig::keys();
    let mut names: Vec<&str> = Vec::new();
    for key in &keys {
        assert!(key.help.len() > 8 && key.help.ends_with('.'), "{}", key.name);
        names.push(&key.name);
        names.extend(key.aliases.iter().map(String::as_str));
        assert!(!is_ignored(&key.name), "{} is both read and ignored", key.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn no_text_panics() {
    let fragments = [
        "[",
        "]",
        "training",
        "=",
        "\"",
        "\n",
        "1",
        ".",
        "é",
        "{",
        "}",
        ",",
        "model.overrides",
        "#",
        "nan",
        "\0",
        "[[",
    ];
    // A small deterministic walk over texts made of TOML's pieces.
    let mut state: u64 = 1;
    for _ in 0..3000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text.push_str(fragments[(state >> 33) as usize % fragments.len()]);
        }
        if let Err(error) = load(&text, &[]) {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Behind [`JobConfig::accumulation_steps`], among the files that this search leaves out.
const READ_HERE: &str = "training.global_batch_size";

/// A setting of which nothing outside of the config's own files reads the field does nothing: no value of it may be taken
/// without a word.
#[test]
fn settings_that_nothing_reads_say_so() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders = vec![runtime];
    let mut code = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let own =
                path.components().any(|c| c.as_os_str() == "config") && !path.ends_with("model_files.rs");
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !own {
                code.push_str(&std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    let is_read = |field: &str| {
        let after = |at: usize| code[at + field.len() + 1..].chars().next().unwrap_or(' ');
        code.match_indices(&format!(".{field}"))
            .any(|(at, _)| !after(at).is_alphanumeric() && after(at) != '_')
    };
    let unread = |key: &KeyInfo| key.name != READ_HERE && !key.name.rsplit('.').next().is_some_and(&is_read);
    let unread: Vec<KeyInfo> = JobConfig::keys().into_iter().filter(unread).collect();
    let names: Vec<&str> = unread.iter().map(|key| key.name.as_str()).collect();
    assert!(names.contains(&"checkpoint.export_dtype") && !names.contains(&"training.seed"), "{names:?}");
    for key in unread {
        let (section, field) = key.name.rsplit_once('.').expect("a section");
        let choices = key.expected.split('"').skip(1).step_by(2).map(|word| format!("\"{word}\""));
        let values = ["true", "false", "2", "0.5", "\"2\"", "\"other\""].map(str::to_owned);
        for value in values.into_iter().chain(choices) {
            let text = format!("[{section}]\n{field} = {value}\n");
            let Ok(loaded) = load(&text, &[]) else { continue };
            let said = loaded.warnings.iter().any(|w| w.contains("run.toml:2:"));
            assert!(said || loaded.config == JobConfig::default(), "{text} is taken without a word");
        }
    }
}

#[test]
fn the_listing_has_every_key_and_those_of_the_model_file() {
    let listing = JobConfig::listing();
    assert_eq!(listing.len(), JobConfig::keys().len() + 1);
    let at = listing.iter().position(|key| key.name == "model.overrides.KEY").expect("listed");
    assert!(listing[at - 1].name.starts_with("model.") && listing[at + 1].name.starts_with("optimizer."));
    assert!(listing[at].help.contains("--model.overrides.dim 256"));
    good("", &["--model.overrides.dim", "256"]);
}

/// What a setting may be is declared once: the listing says it, and so does the refusal of a value of any other kind.
#[test]
fn every_refusal_says_what_the_listing_says() {
    for key in JobConfig::keys() {
        let (section, field) = key.name.rsplit_once('.').expect("a section");
        let mut refused = 0;
        for value in ["-8", "0", "1.5", "1e400", "\"\"", "\"/..\"", "[]", "[-8]", "1979-05-27", "true"] {
            let text = format!("[{section}]\n{field} = {value}\n");
            let Err(error) = load(&text, &[]) else { continue };
            let Some(problem) =
                error.problems.iter().find(|p| p.message.starts_with(&format!("`{}`:", key.name)))
            else {
                continue;
            };
            refused += 1;
            assert!(problem.message.contains(&format!("expected {}, found ", key.expected)), "{text}{error}");
            let flag = format!("--{}={value}", key.name);
            if let Err(error) = load("", &[&flag]) {
                assert!(
                    error.to_string().contains(&format!("expected {}, found ", key.expected)),
                    "{flag}: {error}"
                );
            }
        }
        assert!(refused > 0, "{}: anything goes", key.name);
    }
}

#[test]
fn the_listing_says_what_is_too_small() {
    let keys = JobConfig::keys();
    let expected = |name: &str| &keys.iter().find(|key| key.name == name).expect("listed").expected;
    for name in ["metrics.log_freq", "training.steps", "validation.freq", "checkpoint.interval"] {
        assert_eq!(expected(name), "an integer of at least 1");
    }
    assert_eq!(expected("training.seed"), "an integer from 0 to 9223372036854775807");
    assert_eq!(expected("training.threads"), "an integer of at least 0");
    assert_eq!(expected("training.global_batch_size"), "-1 or an integer of at least 1");
}

#[test]
fn whether_the_command_line_names_the_folder_is_known() {
    let named = |text: &str, args: &[&str]| load(text, args).expect("valid").folder_is_named;
    assert!(!named("", &[]) && !named("[job]\ndump_folder = \"a\"\n", &["--training.steps", "2"]));
    assert!(named("[job]\ndump_folder = \"a\"\n", &["--job.dump_folder", "a"]));
}

/// The configs that come with linc: valid, free of warnings, each with a model and a folder of its own.
#[test]
fn shipped_configs_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .expect("the folder of configs")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        // Sweeps are read by who carries them out.
        .filter(|name| name.ends_with(".toml") && !name.starts_with("sweep_"))
        .collect();
    names.sort();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        let path = folder.join(&name);
        let loaded = JobConfig::load_file(&path, &[], &shipped::Shipped::NONE)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{name}");
        let text = std::fs::read_to_string(&path).expect("read before");
        schema::check(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let config = loaded.config;
        let stem = name.trim_end_matches(".toml");
        assert_eq!(config.job.dump_folder, format!("./outputs/{stem}"));
        assert_ne!(config.job.description, Job::default().description, "{name}");
        ModelFiles::resolve(&config.model, &loaded.files, &shipped::Shipped::NONE)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(ratio) = stem.strip_prefix("llama3_1b_linear_") {
            assert_eq!(ratio.parse::<Ratio>().ok(), config.model.linear_attn_ratio);
        }
    }
}
