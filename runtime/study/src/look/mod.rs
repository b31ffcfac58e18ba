//! Looking into a model: what each head of each attention does with a text, of softmax and of linear layers alike.
//!
//! A linear layer never forms a matrix of weights, but there is one that gives the same, A with `out = A v`, whose rows sum to 1
//! as those of softmax do. Both are computed from the queries and keys that the compiled program had, some rows at a time, by
//! the formula of their kind in the compiler, so that a long text takes time but no memory by the square of its length.

mod figures;
mod head;
mod page;
mod program;
mod rank;
mod sequences;
mod tables;
mod work;
mod write;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use linc_device::Device;
use linc_driver::{AttentionFamily, LookedAt, Model, decode_support};
use linc_eval::Subject;
use serde::Serialize;

use crate::error::StudyError;
use crate::statistics::Mean;

use program::Program;
pub use sequences::Text;
use work::Looking;
pub use write::Written;

/// Different tokens of a draw, at most.
const PERIOD: usize = 128;

/// What losses are measured without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// The loss alone, as the model is.
    Nothing,
    /// The attention of each layer, one at a time.
    Attentions,
    /// Each attention, and each head of it.
    Heads,
}

/// How to look.
#[derive(Clone, Debug)]
pub struct Look {
    /// What the model reads while it is looked into.
    pub text: Text,
    /// Tokens of a sequence, at most.
    pub context: usize,
    /// Sequences, at most.
    pub sequences: usize,
    /// Keys farther away are far.
    pub beyond: usize,
    /// Cells of a side of a map.
    pub cells: usize,
    /// What is left out to see what it does.
    pub without: Without,
    /// Seed of the repeated tokens.
    pub seed: u64,
    /// How many heads are worked on at once.
    pub threads: usize,
}

/// One head of one attention.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Head {
    /// Its layer, from 0.
    pub layer: usize,
    /// Its attention, from 0, in the order of the text.
    pub attention: usize,
    /// `softmax`, `linear`, ..
    pub kind: &'static str,
    /// Its number, from 0.
    pub head: usize,
    /// Mean entropy of a query's weights, nats.
    pub entropy: f64,
    /// Mean distance of what a query looks at, tokens.
    pub distance: f64,
    /// Weight of keys farther away than was asked for.
    pub beyond: f64,
    /// Weight of the first token.
    pub first: f64,
    /// Weight of the token before.
    pub previous: f64,
    /// Keys that a query looks at, `1 / Σ a²`.
    pub positions: f64,
    /// Features that a query looks through, `1 / Σ p²`, of kinds that weigh them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<f64>,
    /// Effective rank of the matrix of weights, of at most 128 of its rows.
    pub rank: f64,
    /// Of repeated random tokens: weight of the token behind the first occurrence of a query's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub induction: Option<f64>,
    /// The same, of that occurrence itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<f64>,
    /// What the loss rises by without the head, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<Mean>,
    /// Largest difference of the weights times the values to what the program gave, as a share of its largest number.
    pub error: f64,
    /// Largest difference of the sum of a row to 1.
    pub sum_error: f64,
}

/// One attention as a whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// Its layer, from 0.
    pub layer: usize,
    /// `softmax`, `linear`, ..
    pub kind: &'static str,
    /// Whether it is of the linear family.
    pub is_linear: bool,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// What the loss rises by without it, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<Mean>,
}

/// The map of a head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Map {
    /// Its attention, from 0.
    pub attention: usize,
    /// Its head, from 0.
    pub head: usize,
    /// Rows of cells, each the mean over its queries of the weight of its keys; they sum to 1.
    pub rows: Vec<Vec<f32>>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Looked {
    /// `llama3 1B`
    pub model: String,
    /// `LLLS LLLS ..`
    pub layers: String,
    /// Where the weights are from.
    pub checkpoint: String,
    /// Optimizer steps that made them.
    pub step: usize,
    /// The file that the model read.
    pub text: String,
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Pieces of the text over which means are taken.
    pub sequences: usize,
    /// Keys farther away are far.
    pub beyond: usize,
    /// Different tokens of a repeated sequence; 0 where none was long enough.
    pub period: usize,
    /// Mean loss of the text, nats per token.
    pub loss: f64,
    /// In the order of the model's text.
    pub attentions: Vec<Attention>,
    /// Their heads.
    pub heads: Vec<Head>,
    /// The maps of the first sequence.
    #[serde(skip)]
    pub maps: Vec<Map>,
    /// The text of each cell of a map's side.
    #[serde(skip)]
    pub labels: Vec<String>,
}

/// Hears how many pieces of work of how many are done.
pub type Tell<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Looks into a model. Nothing if `stop` is set before the end: a part of what was asked for would be another answer.
///
/// # Errors
/// A text that is too short or cannot be read, a model that does not fit, or what the device refuses.
pub fn look(
    subject: &Subject,
    asked: &Look,
    device: Box<dyn Device>,
    stop: &AtomicBool,
    tell: &mut Tell<'_>,
) -> Result<Option<Looked>, StudyError> {
    if asked.context < 2 {
        return Err(StudyError::Nothing {
            message: format!("the context is {}, in which no token has one before it", asked.context),
            help: "give a --context of at least 2".to_owned(),
        });
    }
    let ids = asked.text.read(subject.tokenizer.as_ref())?;
    if ids.len() < 2 {
        return Err(StudyError::Nothing {
            message: "the text has less than two tokens".to_owned(),
            help: "give one with a few sentences".to_owned(),
        });
    }
    let model = &subject.model;
    let seq = length(model, asked.context, ids.len())?;
    let mut program = Program::load(model, &subject.checkpoint, seq, device)?;
    let sequences = sequences::cut(&ids, seq.min(asked.context), asked.sequences.max(1));
    let mut looking = Looking::new(asked, &program, sequences.len(), stop, tell);

    let Some(heads) = looking.heads(&mut program, &sequences)? else { return Ok(None) };
    let (mut heads, maps, losses) = heads;
    let period = period(model, seq);
    if period > 1 && !looking.repeated(&mut program, period, &mut heads)? {
        return Ok(None);
    }
    let mut attentions: Vec<Attention> = program.attentions.iter().map(attention).collect();
    if !looking.without(&mut program, &sequences, &losses, &mut attentions, &mut heads)? {
        return Ok(None);
    }
    let Some(loss) = Mean::of(&losses).map(|mean| mean.mean) else { return Ok(None) };
    let first = sequences.first().copied().unwrap_or_default();
    let path = match &asked.text {
        Text::File(path) | Text::Ids(path) => path.display().to_string(),
    };
    Ok(Some(Looked {
        model: model.title(),
        layers: model.layer_map(),
        checkpoint: subject.path.display().to_string(),
        step: subject.state.step,
        text: path,
        tokens: first.len(),
        sequences: sequences.len(),
        beyond: asked.beyond,
        period: if period > 1 { period } else { 0 },
        loss,
        attentions,
        heads,
        maps,
        labels: labels(subject, first, asked.cells),
    }))
}

/// Tokens of the program's sequences: no more than are needed, and as many as the model must have.
fn length(model: &Model, context: usize, tokens: usize) -> Result<usize, StudyError> {
    let support = decode_support(model);
    // The text may compute with that number, or have parameters for each position.
    let trained = model.reads_seq.then_some(model.shape.seq);
    let longest = support.as_ref().ok().and_then(|support| support.longest).or(trained);
    if let Some(longest) = longest.filter(|longest| context > *longest) {
        return Err(StudyError::Nothing {
            message: format!("the context is {context}, but the model reads sequences of {longest}"),
            help: format!("give a --context of at most {longest}"),
        });
    }
    if support.is_ok() {
        return Ok(trained.unwrap_or(context.min(tokens)));
    }
    // What is behind a token reaches it: padding would, too.
    let seq = trained.unwrap_or(context);
    if tokens < seq || context != seq {
        return Err(StudyError::Nothing {
            message: format!(
                "the model is not causal: a sequence of it has {seq} tokens, and the text has {tokens}"
            ),
            help: match trained {
                Some(seq) => format!("give a text of at least {seq} tokens, and no other --context"),
                None => format!("give a longer text, or --context {tokens}"),
            },
        });
    }
    Ok(seq)
}

/// Different tokens of a sequence that is repeated within the program's; none for a model to which padding matters.
fn period(model: &Model, seq: usize) -> usize {
    let is_causal = decode_support(model).is_ok();
    if is_causal { PERIOD.min(seq / 2).min(model.sizes.vocab_size) } else { 0 }
}

fn attention(of: &LookedAt) -> Attention {
    Attention {
        layer: of.layer,
        kind: of.kind.label(),
        is_linear: of.kind.family() == AttentionFamily::Linear,
        heads: of.heads,
        kv_heads: of.kv_heads,
        head_dim: of.head_dim,
        without: None,
    }
}

/// The text of each cell of a map.
fn labels(subject: &Subject, ids: &[u32], cells: usize) -> Vec<String> {
    const MOST: usize = 40;
    let side = cells.min(ids.len());
    let mut parts: Vec<Vec<u32>> = vec![vec![]; side];
    for (t, id) in ids.iter().enumerate() {
        if let Some(part) = parts.get_mut(head::cell_of(t, ids.len(), side)) {
            part.push(*id);
        }
    }
    let text = |ids: &Vec<u32>| match &subject.tokenizer {
        Some(tokenizer) => tokenizer.decode(ids),
        None => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
    };
    let short = |text: String| match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    };
    parts.iter().map(|ids| short(text(ids))).collect()
}

impl Looked {
    /// Writes the page, the numbers and the maps into a folder.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Written, StudyError> {
        write::write(self, folder)
    }

    /// What it shows, in sentences.
    pub fn sentences(&self) -> Vec<String> {
        tables::sentences(self)
    }

    /// A row for each attention: headings and cells.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let table = tables::attentions(self);
        (table.header, table.rows)
    }
}

/// The files that looking writes.
pub fn files(folder: &Path) -> [PathBuf; 4] {
    ["look.html", "look.json", "look.heads.csv", "look.maps.json"].map(|name| folder.join(name))
}

#[cfg(test)]
mod tests;
