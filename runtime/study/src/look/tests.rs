//! Looking into models whose weights are written by hand, so that it is known what each head looks at.

use std::fs;

use linc_checkpoint::{Contents, ModelRecord, State, Tensor};
use linc_data::DataState;
use linc_device::cpu::{Cpu, CpuOptions};
use linc_driver::Source;
use tempfile::TempDir;

use super::*;

/// Tokens that there are, and of a sequence whose second half repeats the first.
const VOCAB: usize = 8;
const SEQ: usize = 16;
const DIM: usize = 32;
/// Where positions begin among the features of a token, and what attention writes.
const POSITIONS: usize = VOCAB;
const COPIED: usize = 24;

/// Tokens and positions as units, and one layer after the other that may copy.
const COPY: &str = "\
model copy(tokens: [batch, seq] int) {
  param table [vocab_size, dim] init zeros
  param positions [seq, dim] init zeros
  x = embedding(tokens, table) + positions
  for layer in layers {
    block attention {
      param wq [n_heads * head_dim, dim] init zeros
      param wk [n_kv_heads * head_dim, dim] init zeros
      param wv [n_kv_heads * head_dim, dim] init zeros
      param wo [dim, n_heads * head_dim] init zeros
      q = split_heads(x @ wq.T, n_heads)
      k = split_heads(x @ wk.T, n_kv_heads)
      v = split_heads(x @ wv.T, n_kv_heads)
      x = x + merge_heads(attention(q, k, v)) @ wo.T
    }
  }
  param output [vocab_size, dim] init zeros
  logits = x @ output.T
}
";

/// A matrix `[rows, columns]` with some numbers.
fn matrix(rows: usize, columns: usize, numbers: &[(usize, usize, f32)]) -> Vec<f32> {
    let mut all = vec![0.0; rows * columns];
    numbers.iter().for_each(|(row, column, number)| all[row * columns + column] = *number);
    all
}

/// Weights of a head that copies: the query of a place asks for the place behind the one that is half a sequence before it,
/// the key of a place is the place, and the value of a token the token. Before there is such a place, or where `copies` is false,
/// it asks for nothing, and takes a little of everything.
fn weights(name: &str, copies: bool) -> Vec<f32> {
    const SHARP: f32 = 12.0;
    let half = SEQ / 2;
    let all: Vec<(usize, usize, f32)> = match name {
        "table" => (0..VOCAB).map(|token| (token, token, 1.0)).collect(),
        "positions" => (0..SEQ).map(|t| (t, POSITIONS + t, 1.0)).collect(),
        "wq" if copies => (half - 1..SEQ).map(|t| (t + 1 - half, POSITIONS + t, SHARP)).collect(),
        "wk" => (0..SEQ).map(|t| (t, POSITIONS + t, SHARP)).collect(),
        "wv" => (0..VOCAB).map(|token| (token, token, 1.0)).collect(),
        "wo" => (0..VOCAB).map(|token| (COPIED + token, token, 1.0)).collect(),
        "output" => (0..VOCAB).map(|token| (token, COPIED + token, 1.0)).collect(),
        _ => vec![],
    };
    let rows = match name {
        "table" | "output" => VOCAB,
        "positions" => SEQ,
        _ => DIM,
    };
    matrix(rows, DIM, &all)
}

/// A checkpoint with layers of these kinds, each of which copies or does not.
fn checkpoint(layers: &[(&str, bool)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let numbers = format!(
        "name = \"copy\"\nflavor = \"tiny\"\narchitecture = \"copy.linc\"\ndim = {DIM}\nn_layers = {}\nn_heads = 1\n\
         head_dim = {DIM}\nvocab_size = {VOCAB}\n[linear_attention]\ntemperature = 1.0\n",
        layers.len()
    );
    let record = ModelRecord {
        name: "copy".into(),
        flavor: "tiny".into(),
        linear_attn_ratio: "0".into(),
        linear_attn_placement: "uniform".into(),
        layers: layers.iter().map(|(kind, _)| (*kind).to_owned()).collect(),
        params: 0,
        model_path: "copy.toml".into(),
        model_toml: numbers,
        architecture_path: "copy.linc".into(),
        architecture: COPY.into(),
        overrides: vec![],
        seq_len: SEQ,
        batch_size: 1,
    };
    let tensor = |name: String, shape: [usize; 2], data: Vec<f32>| Tensor {
        name,
        shape: shape.to_vec(),
        read: Box::new(move || Ok(data.iter().flat_map(|x| x.to_le_bytes()).collect())),
    };
    let mut params = vec![
        tensor("table.weight".into(), [VOCAB, DIM], weights("table", true)),
        tensor("positions.weight".into(), [SEQ, DIM], weights("positions", true)),
        tensor("output.weight".into(), [VOCAB, DIM], weights("output", true)),
    ];
    for (layer, (_, copies)) in layers.iter().enumerate() {
        for name in ["wq", "wk", "wv", "wo"] {
            let full = format!("layers.{layer}.attention.{name}.weight");
            params.push(tensor(full, [DIM, DIM], weights(name, *copies)));
        }
    }
    let data = DataState { kind: "mqar".into(), seq_len: SEQ, ..DataState::default() };
    let state = State::new(1, 0, 0, data, record);
    let contents = Contents { params, optimizer: vec![], tokenizer: &[], shard_bytes: u64::MAX, state };
    linc_checkpoint::save(folder.path(), &contents).expect("saved");
    let ids = "3 1 4 0 5 7 2 6  3 1 4 0 5 7 2 6\n1 0 2 3 4 5 6 7  1 0 2 3 4 5 6 7\n";
    fs::write(folder.path().join("ids.txt"), ids).expect("written");
    folder
}

fn asked(folder: &TempDir) -> Look {
    Look {
        text: Text::Ids(folder.path().join("ids.txt")),
        context: SEQ,
        sequences: 4,
        beyond: 4,
        cells: SEQ,
        without: Without::Heads,
        seed: 0,
        threads: 2,
    }
}

fn subject(folder: &TempDir) -> Subject {
    let llama = Source { path: "none.linc".into(), text: String::new() };
    let imported = folder.path().join("imported");
    Subject::open(&folder.path().join("step-1"), &imported, &llama, &mut |_, _| true).expect("a checkpoint")
}

fn cpu() -> Box<dyn Device> {
    Box::new(Cpu::new(CpuOptions { threads: Some(1), level: None }).expect("a CPU"))
}

fn looked(folder: &TempDir, asked: &Look) -> Result<Looked, StudyError> {
    let stop = AtomicBool::new(false);
    let found = look(&subject(folder), asked, cpu(), &stop, &mut |_, _, _| {});
    found.map(|looked| looked.expect("nobody asked to stop"))
}

#[test]
fn the_map_of_a_copy_shows_the_copy() {
    let folder = checkpoint(&[("softmax", true), ("linear", true), ("softmax", false)]);
    let found = looked(&folder, &asked(&folder)).expect("a look");
    assert_eq!((found.layers.as_str(), found.sequences, found.tokens), ("SLS", 2, SEQ));
    assert_eq!((found.heads.len(), found.maps.len(), found.period), (3, 3, VOCAB));
    let half = SEQ / 2;
    for (map, head) in found.maps.iter().zip(&found.heads) {
        assert!(head.sum_error < 1e-9 && head.error < 1e-5, "{head:?}");
        for row in &map.rows {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        }
        // The last of the three spreads its weight evenly over what it sees.
        let copied = |t: usize| if head.attention == 2 { 1.0 / (t + 1) as f32 } else { 1.0 };
        for t in half..SEQ {
            let weight = map.rows[t][t + 1 - half];
            assert!((weight - copied(t)).abs() < 0.02, "{}: {t}: {weight}", head.kind);
        }
    }
    let [softmax, linear, idle] = &found.heads[..] else { panic!("{:?}", found.heads) };
    for copying in [softmax, linear] {
        let induction = copying.induction.expect("a causal model");
        assert!(induction > 0.95 && copying.duplicate.expect("one") < 0.05, "{copying:?}");
        assert!(copying.rank > idle.rank && copying.positions < 3.0, "{copying:?}");
        // Without either the other copies still, less surely.
        let rise = copying.without.expect("measured");
        assert!(rise.mean > 0.02 && rise.mean < 1.0 && rise.half_width.is_some(), "{rise:?}");
    }
    assert!(
        softmax.features.is_none()
            && linear.features.is_some_and(|features| features > 1.0 && features < 32.0)
    );
    assert!(idle.induction.expect("one") < 0.2 && idle.positions > 5.0, "{idle:?}");
    let said = found.sentences().join("\n");
    assert!(
        said.contains("2 sequences of 16 tokens") && said.contains("strongest induction head is head 0"),
        "{said}"
    );
    // The same from one thread or from several.
    assert_eq!(looked(&folder, &Look { threads: 1, ..asked(&folder) }).expect("a look"), found);
}

#[test]
fn what_is_written_says_what_was_seen() {
    let folder = checkpoint(&[("linear", true), ("softmax", true)]);
    let found = looked(&folder, &Look { cells: 5, ..asked(&folder) }).expect("a look");
    let to = folder.path().join("<b>look</b>");
    let written = found.write(&to).expect("written");
    let page = fs::read_to_string(&written.page).expect("the page");
    assert!(page.contains("Content-Security-Policy") && page.contains("id=\"look\""));
    assert_eq!(page.matches("class=\"map\"").count(), 2);
    assert!(!page.contains(" src=\"") && !page.contains("<link"));
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(&written.json).expect("numbers")).expect("JSON");
    assert_eq!(
        (json["heads"][0]["kind"].as_str(), json["attentions"][1]["kind"].as_str()),
        (Some("linear"), Some("softmax"))
    );
    let csv = fs::read_to_string(&written.csv).expect("a table");
    assert_eq!(csv.lines().count(), 3);
    assert!(csv.lines().all(|line| line.split(',').count() == tables::COLUMNS.len()), "{csv}");
    let maps: serde_json::Value =
        serde_json::from_slice(&fs::read(&written.maps).expect("maps")).expect("JSON");
    let rows = maps["maps"][1]["rows"].as_array().expect("rows");
    assert_eq!(
        (maps["cells"].as_u64(), rows.len(), maps["labels"].as_array().map(Vec::len)),
        (Some(5), 5, Some(5))
    );
    for row in rows {
        let sum: f64 = row.as_array().expect("a row").iter().filter_map(serde_json::Value::as_f64).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_refused() {
    let folder = checkpoint(&[("softmax", true)]);
    let refused = |asked: Look, expected: &str| {
        let error = looked(&folder, &asked).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("help: "), "{error}");
    };
    let of = |text: &str| {
        let path = folder.path().join("other.txt");
        fs::write(&path, text).expect("written");
        Look { text: Text::Ids(path), ..asked(&folder) }
    };
    refused(of("1"), "less than two tokens");
    refused(of("1 99"), "there is no token 99");
    refused(Look { context: 17, ..asked(&folder) }, "reads sequences of 16");
    refused(Look { text: Text::File(folder.path().join("ids.txt")), ..asked(&folder) }, "reads no text");
    refused(Look { text: Text::Ids(folder.path().join("none")), ..asked(&folder) }, "cannot be read");
    // A short text is as long as it is.
    let short = looked(&folder, &of("3 1 4 3 1 4")).expect("a look");
    assert_eq!((short.tokens, short.maps[0].rows.len()), (6, 6));
    let stop = AtomicBool::new(true);
    let ended = look(&subject(&folder), &asked(&folder), cpu(), &stop, &mut |_, _, _| {});
    assert!(ended.expect("no error").is_none());
}
