//! The program that shows what attention does: a sequence in, and out what each attention read and gave, and how likely each
//! token was.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use linc_checkpoint::load_weights;
use linc_device::Device;
use linc_driver::{Entry, LookedAt, Model, Options, Precision, looked_at, names};
use linc_infer::InferError;
use linc_session::look::{Seen, feed_factors};
use linc_session::{Session, target};

use crate::error::StudyError;

/// A loaded model that can be looked into.
pub(super) struct Program {
    session: Session,
    /// Its attentions, in the order of the text.
    pub(super) attentions: Vec<LookedAt>,
    /// Tokens of a sequence.
    pub(super) seq: usize,
    vocab: usize,
}

impl Program {
    /// Loads a checkpoint's weights into a program for sequences of `seq` tokens.
    ///
    /// # Errors
    /// What does not compile or fit, or cannot be read.
    pub(super) fn load(
        model: &Model,
        checkpoint: &Path,
        seq: usize,
        device: Box<dyn Device>,
    ) -> Result<Self, StudyError> {
        let target = target(&*device);
        let attentions = looked_at(model, target).map_err(InferError::from)?;
        let options = Options { seq, ..linc_infer::options(Precision::Float32, target) };
        let mut session = linc_infer::session(model, &[(Entry::Look { context: seq }, options)], device)?;
        session.executor.initialize_constants().map_err(InferError::from)?;
        load_weights(&mut session.executor, checkpoint, &mut |_, _| Ok::<_, StudyError>(()))?;
        Ok(Program { session, attentions, seq, vocab: model.sizes.vocab_size })
    }

    /// Runs a sequence, padded to the program's length, with a factor for what each head of each attention gives; what each token
    /// but the first cost, in nats. Nothing if `stop` is set before it is through.
    ///
    /// # Errors
    /// A token that the model does not have, or what the device refuses.
    pub(super) fn run(
        &mut self,
        ids: &[u32],
        factor: &dyn Fn(usize, usize) -> f32,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f64>>, StudyError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab) {
            return Err(StudyError::Nothing {
                message: format!("there is no token {id}: the model has tokens 0 to {}", self.vocab - 1),
                help: "use the tokenizer that the model was trained with".to_owned(),
            });
        }
        let mut tokens: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        tokens.resize(self.seq, 0);
        let mut targets: Vec<i32> = ids.iter().skip(1).map(|id| *id as i32).collect();
        targets.resize(self.seq, -1);
        let x = &mut self.session.executor;
        let mut feed = |name: &str, bytes: &[u8]| x.write_input(0, name, bytes).map_err(InferError::from);
        feed(names::TOKENS, bytemuck::cast_slice(&tokens))?;
        feed(names::TARGETS, bytemuck::cast_slice(&targets))?;
        feed_factors(x, 0, &self.attentions, factor).map_err(InferError::from)?;
        if !x.run_until(0, stop).map_err(InferError::from)? {
            return Ok(None);
        }
        let log_probs = x.output(0, names::LOG_PROBS).map_err(InferError::from)?;
        let costs: Vec<f64> =
            log_probs[..ids.len().saturating_sub(1)].iter().map(|log_prob| -f64::from(*log_prob)).collect();
        match costs.iter().position(|cost| cost.is_nan()) {
            Some(at) => Err(InferError::LogitsNotFinite { tokens: at + 1, logit: f32::NAN }.into()),
            None => Ok(Some(costs)),
        }
    }

    /// Number of tokens that there are.
    pub(super) fn vocab(&self) -> usize {
        self.vocab
    }

    /// What an attention read and gave in the last run.
    ///
    /// # Errors
    /// What the device refuses.
    pub(super) fn seen(&self, attention: usize) -> Result<Seen, StudyError> {
        Ok(Seen::read(&self.session.executor, 0, attention).map_err(InferError::from)?)
    }
}
