//! What records tell of linear layers.

use super::*;

const LOOKS: &str = "[metrics]\nlog_freq = 1\nlinear_health_freq = 2\n";

/// The records of a run of three steps.
fn records(training: &str, sections: &str) -> (Trainer, Vec<Record>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut trainer, _) = ready_with(folder.path(), &format!("steps = 3\n{training}"), sections);
    trainer.run(&AtomicBool::new(false), &mut Silent).unwrap_or_else(|e| panic!("{e}"));
    let text = std::fs::read_to_string(folder.path().join("run/metrics.jsonl")).expect("metrics");
    let records = text.lines().map(|line| serde_json::from_str::<Record>(line).expect("a record"));
    (trainer, records.filter(|record| record.loss.is_some()).collect())
}

#[test]
fn linear_layers_are_looked_at_now_and_then_and_no_bit_changes() {
    for training in
        ["", "global_batch_size = 2\n", "mixed_precision_param = \"float16\"\nreset_at_document = true\n"]
    {
        let (plain, without) = records(training, "[metrics]\nlog_freq = 1\n");
        let (looked, with) = records(training, LOOKS);
        assert!(tensors(&looked) == tensors(&plain), "{training}: other bits");
        assert!(without.iter().all(|record| record.linear_attention.is_empty()));
        let counts: Vec<usize> = with.iter().map(|record| record.linear_attention.len()).collect();
        assert_eq!(counts, [0, 3, 0], "{training}");
        let of = |what: &str| with[1].linear_attention[&format!("layers.0/{what}")];
        // Keys and queries are near zero at first: a query takes of everything alike. The mean over 1 to 16 keys is 8.5.
        let head = looked.model.attentions[0].head_dim as f64;
        assert!((8.0..=8.5).contains(&of("effective_positions")), "{:?}", with[1]);
        assert!((0.5 * head..=head).contains(&of("effective_features")), "{:?}", with[1]);
        assert_eq!(of("fast_path_rate"), 1.0);
    }
}

#[test]
fn where_documents_are_kept_apart_the_longest_is_looked_at() {
    use super::super::health::longest_document;
    // The first goes on from an earlier sequence, and of two of one length the first is taken.
    assert_eq!(longest_document(&[7, 8, 0, 1, 2, 0, 0, 1, 2]), 2..5);
    assert_eq!(longest_document(&[3, 4, 5]), 0..3);
    assert_eq!(longest_document(&[0, 0, 0, 1]), 2..4);
    assert_eq!(longest_document(&[]), 0..0);
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let refused = |sections: &str| {
        let config = JobConfig::load(sections, "test.toml", &[]).unwrap_or_else(|e| panic!("{e}")).config;
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/llama3_nano.toml");
        let mut of_model = config.model.clone();
        of_model.path = Some(model.display().to_string());
        let files = ModelFiles::resolve(&of_model, &[], &Shipped::NONE).unwrap_or_else(|e| panic!("{e}"));
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config;
        config.job.dump_folder = folder.path().join("run").display().to_string();
        config.model = of_model;
        let cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).unwrap_or_else(|e| panic!("{e}"));
        let device: Box<dyn Device> = Box::new(cpu);
        let made =
            Trainer::new(config, &files, Folder::Named, None, device, &AtomicBool::new(false), &mut Silent);
        made.err().expect("refused").to_string()
    };
    let training = "[lr_scheduler]\nwarmup_steps = 0\n[training]\ndataset = \"stories\"\nbatch_size = 1\nseq_len = 16\nsteps = 1\n";
    let odd =
        refused(&format!("{training}[model]\nlinear_attn_ratio = 0.5\n[metrics]\nlinear_health_freq = 15\n"));
    assert!(
        odd.contains("a record every 10 steps") && odd.contains("such as 20") && odd.contains("test.toml:"),
        "{odd}"
    );
    let none = refused(&format!("{training}[metrics]\nlinear_health_freq = 10\n"));
    assert!(none.contains("no linear layers"), "{none}");
}
