//! What is validated on is not what is trained on, whatever the data are read from.

use super::*;

/// Documents by their numbers, none of which is a part of another's text.
fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("{{\"text\": \"<{number:03}>\"}}\n")).collect()
}

/// Numbers of the documents in batches.
fn numbers_in<'a>(batches: impl Iterator<Item = &'a Batch>) -> Vec<usize> {
    let text: String = batches
        .flat_map(|batch| batch.tokens.chunks(64))
        .map(|row| row.iter().map(|token| *token as u8 as char).collect::<String>() + "\n")
        .collect();
    (0..400).filter(|number| text.contains(&format!("<{number:03}>"))).collect()
}

fn read(data: &mut Data) -> (Vec<usize>, Vec<usize>) {
    let training: Vec<Batch> = (0..60).map(|_| data.training.next_batch().expect("read")).collect();
    let validation = data.validation.as_ref().expect("a part");
    let validation: Vec<Batch> =
        (0..validation.batches()).map(|at| validation.batch(at).expect("read")).collect();
    (numbers_in(training.iter()), numbers_in(validation.iter()))
}

const SHAPE: [&str; 3] = ["--training.seq_len=64", "--training.batch_size=4", "--validation.enable"];

pub(super) fn shards(path: &str, out: &str, held_out: f64) -> Tokenized {
    let settings = TokenizeSettings {
        path,
        text_field: "text",
        document_separator: None,
        tokenizer_path: None,
        out: out.as_ref(),
        held_out,
        shard_tokens: 500,
    };
    quiet(|loading| tokenize(settings, loading)).expect("shards")
}

#[test]
fn a_document_of_two_datasets_is_on_one_side() {
    let (folder, a) = temporary("a.jsonl", lines(0..300).as_bytes());
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("b.jsonl"), lines(100..400)).expect("written");
    shards(&path("b.jsonl"), &path("shards"), 0.2);
    for b in ["b.jsonl", "shards"] {
        let list = format!(
            "[[training.datasets]]\npath = {a:?}\n[[training.datasets]]\npath = {:?}\n[validation]\nfraction = 0.2\n",
            path(b)
        );
        let mut data = open_data(&config(&list, &SHAPE), 256).expect("readable");
        let (trained, held_out) = read(&mut data);
        // Those at the ends of rows are cut and not found.
        assert!(trained.len() > 200 && held_out.len() > 40, "{} {}", trained.len(), held_out.len());
        let both: Vec<&usize> = trained.iter().filter(|number| held_out.contains(number)).collect();
        assert!(both.is_empty(), "{both:?}");
    }
    // Of a few large texts, which are on both sides, other parts.
    let book = |letter: char| (0..10_000).map(|i| format!("{letter}{i:05}\n")).collect::<String>();
    std::fs::write(path("c.txt"), book('c')).expect("written");
    std::fs::write(path("d.txt"), book('d')).expect("written");
    let list = ["c.txt", "d.txt"].map(|name| format!("[[training.datasets]]\npath = {:?}\n", path(name)));
    let validation = open_data(&config(&list.concat(), &SHAPE), 256).expect("readable").validation;
    let ValidationData::Text(validation) = validation.expect("a part") else { panic!("text") };
    assert!((6900..7100).contains(&validation.tokens()), "{}", validation.tokens());
}

#[test]
fn shards_that_are_trained_on_are_validated_on_by_their_held_out_part() {
    let (folder, corpus) = temporary("a.jsonl", lines(0..400).as_bytes());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = shards(&corpus, &path("out"), 0.2);
    std::fs::create_dir(path("copy")).expect("a folder");
    for entry in std::fs::read_dir(path("out")).expect("a folder").flatten() {
        std::fs::copy(entry.path(), format!("{}/{}", path("copy"), entry.file_name().display()))
            .expect("copied");
    }
    for other in ["out", "out/../out", "copy"] {
        let (training, validation) = (path("out"), path(other));
        let args = ["--training.dataset_path", &training, "--validation.dataset_path", &validation];
        let args = [&SHAPE[..], &args].concat();
        let mut data = open_data(&config("", &args), 256).expect("readable");
        let Some(ValidationData::Text(part)) = &data.validation else { panic!("text") };
        assert_eq!(part.tokens(), made.held_out);
        let (trained, held_out) = read(&mut data);
        assert!(held_out.iter().all(|number| !trained.contains(number)), "{other}");
        assert!(notes(&args).concat().contains("is the part of it that is held out"), "{other}");
    }
    shards(&corpus, &path("none"), 0.0);
    let none = path("none");
    let args = ["--training.dataset_path", &none, "--validation.dataset_path", &none];
    let refused =
        open_data(&config("", &[&SHAPE[..], &args].concat()), 256).expect_err("refused").to_string();
    assert!(refused.contains("it is trained on, and has no part to validate on"), "{refused}");
    // What cannot be compared is said.
    for (training, validation) in [(&corpus, &none), (&none, &corpus), (&path("out"), &none)] {
        let args = ["--training.dataset_path", training, "--validation.dataset_path", validation];
        let said = notes(&[&SHAPE[..], &args].concat()).concat();
        assert!(said.contains(&format!("{validation}: not compared with {training}")), "{said}");
    }
}
