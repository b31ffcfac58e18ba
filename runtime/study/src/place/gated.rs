//! A model whose layers mix both kinds of attention, with its weights on a device: what it says at any gates, how far that is
//! from the model at gates of 1, its teacher, and the derivatives in the gates.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use linc_checkpoint::load_shared_weights;
use linc_device::Device;
use linc_driver::{
    AdamWSpec, CopiedParam, Entry, Mixed, Model, OptimizerOptions, Options, UpdateOp, copies, names,
};
use linc_exec::{ExecError, Halfway};
use linc_session::{Session, SessionError};

use super::sequences::Sequence;
use crate::error::StudyError;

/// Numbers of the programs.
const LOGITS: usize = 0;
const DIVERGENCE: usize = 1;
const GRADIENTS: usize = 2;
const ALIGN: usize = 3;

/// What a placement makes of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Mean divergence from the teacher at the places that ask for something, in nats.
    pub(super) recall_kl: f64,
    /// Mean log-probability of the right token there.
    pub(super) recall_log_prob: f64,
    /// Share of these places at which the right token is the most likely one.
    pub(super) recall_right: f64,
    /// The same share of all other places that have a right token; nothing if there are none.
    pub(super) other_right: Option<f64>,
}

/// Derivatives of the divergence of each sequence of a batch in the gates of its layers: `[layer][sequence]`.
pub(super) type Gradients = Vec<Vec<f64>>;

/// The mixed model.
pub(super) struct Gated {
    session: Session,
    stop: &'static AtomicBool,
    layers: usize,
    copies: Vec<CopiedParam>,
    /// For each layer, the first step of the program of divergences that its gate matters to.
    first: Vec<usize>,
    /// Logits of the teacher for the sequences that were shown last.
    teacher: Vec<f32>,
    steps: usize,
}

/// A run of a placement, from whose middle others can go on.
pub(super) struct Trail {
    /// By the first layer whose gate may be another.
    pub(super) from: Vec<(usize, Halfway)>,
}

impl Gated {
    /// Compiles and loads the model, with the weights of a checkpoint; copies begin as what they are copies of.
    pub(super) fn open(
        model: &Model,
        checkpoint: &Path,
        (batch, seq): (usize, usize),
        device: Box<dyn Device>,
        stop: &'static AtomicBool,
    ) -> Result<Self, StudyError> {
        let mut proceed = || match stop.load(Ordering::Relaxed) {
            true => Err(StudyError::Interrupted),
            false => Ok(()),
        };
        let copies = copies(model).map_err(SessionError::from)?;
        let update = UpdateOp::AdamW(AdamWSpec { weight_decay: 0.0, ..AdamWSpec::default() });
        let optimizer = OptimizerOptions { update, ..OptimizerOptions::default() };
        let mut programs = vec![Mixed::Logits, Mixed::Divergence, Mixed::Gradients];
        if !copies.is_empty() {
            programs.push(Mixed::Align(optimizer));
        }
        let entries: Vec<(Entry, Options)> =
            programs.into_iter().map(|mixed| (Entry::Mixed(mixed), Options::new(batch, seq))).collect();
        let mut session = Session::new(model, &entries, device, &mut proceed)?;
        session.executor.initialize_constants()?;
        let shared = load_shared_weights(&mut session.executor, checkpoint, &mut |_, _| proceed())?;
        let is_copy = |name: &String| copies.iter().any(|copy| copy.name == *name);
        if let Some(name) = shared.new.iter().find(|name| !is_copy(name)).or(shared.left_out.first()) {
            return Err(StudyError::Nothing {
                message: format!(
                    "{}: {name} is in the model or in its weights, but not in both",
                    checkpoint.display()
                ),
                help: "the checkpoint was altered: take another one".into(),
            });
        }
        let layers = model.sizes.n_layers;
        let first = (0..layers).map(|layer| session.executor.first_reader(DIVERGENCE, &names::gate(layer)));
        let first = first.collect::<Result<_, _>>()?;
        let mut gated = Gated { session, stop, layers, copies, first, teacher: vec![], steps: 0 };
        for copy in gated.copies.clone() {
            let bytes = gated.session.executor.read_tensor(&copy.of)?;
            gated.session.executor.write_tensor(&copy.name, &bytes)?;
        }
        Ok(gated)
    }

    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Whether linear branches have parameters of their own.
    pub(super) fn has_copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Parameters of the model, by name and shape, and what reads those of them that a linear layer has of its own.
    pub(super) fn params(&self) -> Vec<(String, Vec<usize>)> {
        let is_copy = |name: &str| self.copies.iter().any(|copy| copy.name == name);
        self.session.params().into_iter().filter(|(name, _)| !is_copy(name)).collect()
    }

    /// The values of a parameter in a model with these linear layers.
    pub(super) fn value(&self, name: &str, linear: &[usize]) -> Result<Vec<u8>, ExecError> {
        let copy = self.copies.iter().find(|copy| copy.of == name && linear.contains(&copy.layer));
        self.session.executor.read_tensor(copy.map_or(name, |copy| &copy.name))
    }

    fn feed<T: bytemuck::NoUninit>(
        &mut self,
        program: usize,
        name: &str,
        values: &[T],
    ) -> Result<(), ExecError> {
        self.session.executor.write_input(program, name, bytemuck::cast_slice(values))
    }

    fn feed_tokens(&mut self, program: usize, shown: &[Sequence]) -> Result<(), ExecError> {
        let tokens: Vec<i32> = shown.iter().flat_map(|sequence| &sequence.tokens).copied().collect();
        self.feed(program, names::TOKENS, &tokens)
    }

    fn feed_gates(
        &mut self,
        program: usize,
        gates: &[f64],
        batch: usize,
        from: usize,
    ) -> Result<(), ExecError> {
        for (layer, gate) in gates.iter().enumerate() {
            if self.first[layer] >= from {
                self.feed(program, &names::gate(layer), &vec![*gate as f32; batch])?;
            }
        }
        Ok(())
    }

    fn run(&mut self, program: usize) -> Result<(), StudyError> {
        match self.session.executor.run_until(program, self.stop)? {
            true => Ok(()),
            false => Err(StudyError::Interrupted),
        }
    }

    /// Has the teacher read a batch of sequences, which the next questions are about.
    pub(super) fn show(&mut self, shown: &[Sequence]) -> Result<(), StudyError> {
        self.teacher = self.logits(shown, &vec![1.0; self.layers])?;
        Ok(())
    }

    /// The logits of a batch of sequences at these gates.
    pub(super) fn logits(&mut self, shown: &[Sequence], gates: &[f64]) -> Result<Vec<f32>, StudyError> {
        self.feed_tokens(LOGITS, shown)?;
        self.feed_gates(LOGITS, gates, shown.len(), 0)?;
        self.run(LOGITS)?;
        Ok(self.session.executor.output(LOGITS, names::LOGITS)?)
    }

    /// Feeds everything that a comparison with the teacher reads.
    fn feed_all(&mut self, program: usize, shown: &[Sequence], gates: &[f64]) -> Result<(), ExecError> {
        self.feed_tokens(program, shown)?;
        let targets: Vec<i32> = shown.iter().flat_map(|sequence| &sequence.targets).copied().collect();
        self.feed(program, names::TARGETS, &targets)?;
        if program == GRADIENTS {
            let weights: Vec<f32> = shown.iter().flat_map(weights).collect();
            self.feed(program, names::WEIGHTS, &weights)?;
        }
        let teacher = std::mem::take(&mut self.teacher);
        let fed = self.feed(program, names::TEACHER, &teacher);
        self.teacher = teacher;
        fed?;
        self.feed_gates(program, gates, shown.len(), 0)
    }

    /// What the model at these gates says of the sequences that were shown.
    pub(super) fn look(&mut self, shown: &[Sequence], gates: &[f64]) -> Result<Vec<Seen>, StudyError> {
        self.feed_all(DIVERGENCE, shown, gates)?;
        self.run(DIVERGENCE)?;
        self.seen(shown)
    }

    /// The derivatives of each sequence's divergence at these gates.
    pub(super) fn gradients(&mut self, shown: &[Sequence], gates: &[f64]) -> Result<Gradients, StudyError> {
        self.feed_all(GRADIENTS, shown, gates)?;
        self.run(GRADIENTS)?;
        let found = self.session.executor.output(GRADIENTS, names::GATE_GRADIENTS)?;
        Ok(found.chunks(shown.len()).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect())
    }

    /// As [`Gated::look`], and keeps what others need that differ from some of these layers on.
    pub(super) fn look_with_trail(
        &mut self,
        shown: &[Sequence],
        gates: &[f64],
        layers: &[usize],
    ) -> Result<(Vec<Seen>, Trail), StudyError> {
        self.feed_all(DIVERGENCE, shown, gates)?;
        let mut layers = layers.to_vec();
        layers.sort_by_key(|layer| self.first[*layer]);
        layers.dedup();
        let (mut from, mut done): (Vec<(usize, Halfway)>, usize) = (vec![], 0);
        for layer in layers {
            let step = self.first[layer];
            self.session.executor.run_steps(DIVERGENCE, done..step)?;
            let earlier = from.last().map(|(_, halfway)| halfway);
            let halfway = self.session.executor.keep(DIVERGENCE, step, earlier)?;
            from.push((layer, halfway));
            done = step;
        }
        let end = self.session.executor.steps(DIVERGENCE);
        self.session.executor.run_steps(DIVERGENCE, done..end)?;
        Ok((self.seen(shown)?, Trail { from }))
    }

    /// As [`Gated::look`] at gates that are those of a trail up to a layer, whose steps are not run again.
    pub(super) fn look_from(
        &mut self,
        trail: &Trail,
        layer: usize,
        shown: &[Sequence],
        gates: &[f64],
    ) -> Result<Vec<Seen>, StudyError> {
        let Some((_, halfway)) = trail.from.iter().find(|(known, _)| *known == layer) else {
            return self.look(shown, gates);
        };
        if self.stop.load(Ordering::Relaxed) {
            return Err(StudyError::Interrupted);
        }
        self.session.executor.go_back(halfway)?;
        // Those of earlier layers were read, and other values may lie there by now.
        self.feed_gates(DIVERGENCE, gates, shown.len(), halfway.step())?;
        self.session.executor.go_on(halfway)?;
        self.seen(shown)
    }

    /// Steps that a run from a trail does, and those of a whole run.
    pub(super) fn steps_from(&self, trail: &Trail, layer: usize) -> (usize, usize) {
        let all = self.session.executor.steps(DIVERGENCE);
        let done =
            trail.from.iter().find(|(known, _)| *known == layer).map_or(0, |(_, halfway)| halfway.step());
        (all - done, all)
    }

    fn seen(&self, shown: &[Sequence]) -> Result<Vec<Seen>, StudyError> {
        let executor = &self.session.executor;
        let divergences = executor.output(DIVERGENCE, names::DIVERGENCE)?;
        let log_probs = executor.output(DIVERGENCE, names::LOG_PROBS)?;
        let best = executor.output_ids(DIVERGENCE, names::BEST)?;
        if divergences.iter().any(|x| !x.is_finite()) {
            return Err(StudyError::Nothing {
                message: "the model's predictions are not numbers".into(),
                help: "linc eval shows whether the checkpoint is damaged".into(),
            });
        }
        let of = |(number, sequence): (usize, &Sequence)| {
            let at = |place: usize| number * sequence.tokens.len() + place;
            let is_right = |place: usize| f64::from(u8::from(best[at(place)] == sequence.targets[place]));
            let over = |values: &dyn Fn(usize) -> f64| {
                sequence.recall.iter().map(|place| values(*place)).sum::<f64>() / sequence.recall.len() as f64
            };
            let others = (0..sequence.tokens.len())
                .filter(|place| sequence.targets[*place] >= 0 && !sequence.recall.contains(place));
            let others: Vec<f64> = others.map(is_right).collect();
            Seen {
                recall_kl: over(&|place| f64::from(divergences[at(place)])),
                recall_log_prob: over(&|place| f64::from(log_probs[at(place)])),
                recall_right: over(&is_right),
                other_right: (!others.is_empty()).then(|| others.iter().sum::<f64>() / others.len() as f64),
            }
        };
        Ok(shown.iter().enumerate().map(of).collect())
    }

    /// A step of training the linear branches on what the teacher makes of some sequences; the error of each layer before it.
    pub(super) fn align(&mut self, shown: &[Sequence], rate: f64) -> Result<Vec<f64>, StudyError> {
        self.steps += 1;
        self.feed_tokens(ALIGN, shown)?;
        self.feed(ALIGN, names::LEARNING_RATE, &[rate as f32])?;
        let step = self.steps as f32;
        self.feed(ALIGN, names::STEP, &[step])?;
        self.run(ALIGN)?;
        let errors = self.session.executor.output(ALIGN, names::ALIGNMENT)?;
        Ok(errors.into_iter().map(f64::from).collect())
    }
}

/// The weight of each place in the divergence of a sequence: all that ask for something count alike.
fn weights(sequence: &Sequence) -> Vec<f32> {
    let mut weights = vec![0.0; sequence.tokens.len()];
    for place in &sequence.recall {
        weights[*place] = 1.0 / sequence.recall.len() as f32;
    }
    weights
}
