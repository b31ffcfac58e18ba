//! Ranks that share a step read the batches of one process, each its own, and are at one place after it.

use super::*;

/// Batches of a step over all ranks.
const BATCHES: usize = 4;

fn open_part(config: &Config, part: Part) -> Data {
    let Shape { batch_size, seq_len, seed } = config.shape;
    let reading =
        Reading { batch_size, seq_len, seed, validates: false, tokenizer_path: None, vocab_size: 256, part };
    quiet(|loading| Data::open(&config.data, reading, loading)).unwrap_or_else(|error| panic!("{error}"))
}

/// What each rank reads from, in their order; together they share a step.
fn world(config: &Config, ranks: usize) -> Vec<Data> {
    let part = |rank| Part { rank, ranks, batches: BATCHES / ranks };
    (0..ranks).map(|rank| open_part(config, part(rank))).collect()
}

/// The batches of some steps in their order over all ranks, and the one place where all ranks are after each step.
fn steps(world: &mut [Data], count: usize) -> Vec<(Vec<Batch>, DataState)> {
    let own = BATCHES / world.len();
    let mut all = vec![];
    for _ in 0..count {
        let mut batches = vec![];
        for data in &mut *world {
            batches.extend((0..own).map(|_| data.training.next_batch().expect("a batch")));
        }
        let states: Vec<DataState> = world.iter().map(|data| data.training.state()).collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
        all.push((batches, states[0].clone()));
    }
    all
}

#[test]
fn ranks_share_out_the_batches_of_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lines = |word: &str, count: usize| -> String {
        (0..count).map(|i| format!("{{\"text\": \"{word} {i}\"}}\n")).collect()
    };
    std::fs::write(path("a.jsonl"), lines("apple", 90)).expect("written");
    std::fs::write(path("b.jsonl"), lines("b", 200)).expect("written");
    sources::shards(&path("a.jsonl"), &path("shards"), 0.0);
    let (a, b, shards) = (path("a.jsonl"), path("b.jsonl"), path("shards"));
    let mixture = |a: &str| {
        format!(
            "[[training.datasets]]\npath = {a:?}\nweight = 2.0\n[[training.datasets]]\npath = {b:?}\nweight = 0.7\n"
        )
    };
    // The texts have fewer samples than the steps take: epochs end in the middle of steps.
    let kinds = [
        ("a text", format!("[training]\ndataset = \"text\"\ndataset_path = {a:?}\n")),
        ("in its order", format!("[training]\ndataset = \"text\"\ndataset_path = {a:?}\nshuffle = false\n")),
        (
            "documents apart",
            format!("[training]\ndataset = \"text\"\ndataset_path = {a:?}\nreset_at_document = true\n"),
        ),
        ("a mixture", mixture(&a)),
        ("shards", format!("[training]\ndataset = \"text\"\ndataset_path = {shards:?}\n")),
        ("a mixture with shards", mixture(&shards)),
        ("endless recall", "[training]\ndataset = \"mqar\"\n[training.mqar]\nvocab_size = 64\n".to_owned()),
        (
            "recall",
            "[training]\ndataset = \"mqar\"\n[training.mqar]\nvocab_size = 64\nnum_examples = 29\n"
                .to_owned(),
        ),
        ("a task", "[training]\ndataset = \"copy\"\n[training.recall]\nnum_examples = 21\n".to_owned()),
    ];
    for (kind, text) in kinds {
        let config = config(&text, &["--training.seq_len=32", "--training.batch_size=3"]);
        let expected = steps(&mut world(&config, 1), 9);
        for ranks in [2, 4] {
            let found = steps(&mut world(&config, ranks), 9);
            assert!(found == expected, "{kind}: {ranks} ranks read other batches");
        }
        // A run goes on with another number of ranks, also one whose ranks have read ahead.
        let mut before = world(&config, 4);
        steps(&mut before, 2);
        for (from, ranks) in [(3, 2), (5, 1), (6, 4)] {
            let mut after = world(&config, ranks);
            let (_, state) = &expected[from - 1];
            after.iter_mut().for_each(|data| data.training.restore(state).expect("the same data"));
            before.iter_mut().for_each(|data| data.training.restore(state).expect("the same data"));
            assert!(steps(&mut after, 2) == expected[from..from + 2], "{kind}: {ranks} ranks from {from}");
            assert!(steps(&mut before, 2) == expected[from..from + 2], "{kind}: back to {from}");
        }
    }
}
