//! Placement: which layers of a softmax model become linear, by what each costs at tokens that ask for earlier ones.
//!
//! The model is compiled once with both kinds of attention in each layer, mixed by gates that are inputs ([`gated`]). Linear
//! branches are aligned with their softmax branches first; then layers are scored by path integration ([`scores`]), and real
//! placements are compared exactly ([`search`]), also those that other methods choose.

mod gated;
mod quadrature;
mod result;
mod scores;
mod search;
mod sequences;
mod target;
#[cfg(test)]
mod tests;

use std::path::Path as FilePath;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use linc_device::Device;
use linc_device::words::count;
use linc_driver::{AttentionFamily, Model, Placement, Ratio, layer_kinds};
use linc_eval::stats::{Estimate, Unit};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

pub use quadrature::gauss_legendre;
pub use result::{Alignment, Compared, Method, Placed};
pub use scores::{OneLayer, Path, Scores};
pub use search::{Search, Swap};
pub use sequences::{Sequence, Sequences};
pub use target::Target;

use crate::draw::shuffle;
use crate::error::StudyError;
use crate::statistics::Mean;
use gated::{Gated, Seen};
use scores::{Work, all_gates};

/// What is to be placed, and how carefully.
#[derive(Clone, Debug)]
pub struct PlaceSettings {
    /// Share of linear layers.
    pub ratio: Ratio,
    /// Sequences that are read at once.
    pub batch: usize,
    /// Steps of aligning; 0 for none.
    pub align_steps: usize,
    /// Their learning rate, which falls to nothing.
    pub align_rate: f64,
    /// Points of the path.
    pub points: usize,
    /// Steps of training gates.
    pub gate_steps: usize,
    /// Random placements to compare with.
    pub random: usize,
    /// Swaps at most.
    pub swaps: usize,
    /// Of all that is drawn.
    pub seed: u64,
}

/// Told how a placement goes.
pub trait Watcher {
    /// A line for people.
    fn message(&mut self, text: &str);

    /// So much of how much of a part of the work is done.
    fn progress(&mut self, what: &str, done: u64, total: u64);
}

/// A placement that goes on, or is done.
pub struct Placing {
    gated: Gated,
    settings: PlaceSettings,
    sequences: Sequences,
    /// What was found so far.
    pub placed: Placed,
}

impl Placing {
    /// Compiles the mixed model and loads the weights of a checkpoint into it.
    ///
    /// # Errors
    /// [`StudyError::Nothing`] for a model that is no softmax model in all of its layers, or a share that leaves nothing to
    /// choose; else what compiling and loading refuse, or [`StudyError::Interrupted`].
    pub fn new(
        model: &Model,
        checkpoint: &FilePath,
        sequences: Sequences,
        settings: PlaceSettings,
        device: Box<dyn Device>,
        stop: &'static AtomicBool,
    ) -> Result<Self, StudyError> {
        check(model)?;
        let layers = model.sizes.n_layers;
        let kinds = layer_kinds(layers, Some(settings.ratio), &Placement::Uniform);
        let kinds = kinds.map_err(|error| StudyError::Nothing {
            message: error.to_string(),
            help: "--ratio is the share of layers that become linear".into(),
        })?;
        let softmax = kinds.iter().filter(|kind| kind.family() == AttentionFamily::Softmax).count();
        if softmax == 0 || softmax == layers {
            return Err(StudyError::Nothing {
                message: format!(
                    "a ratio of {} makes {} of the {layers} layers linear: there is nothing to choose",
                    settings.ratio,
                    layers - softmax
                ),
                help: "a ratio between 0 and 1, of a model of two layers or more".into(),
            });
        }
        let shape = (settings.batch, sequences.search[0].tokens.len());
        let gated = Gated::open(model, checkpoint, shape, device, stop)?;
        let placed = Placed::new(&settings, layers, softmax, &sequences);
        Ok(Placing { gated, settings, sequences, placed })
    }

    /// Aligns, scores, searches and compares. Whatever ends it early, what was found until then is in [`Placing::placed`].
    ///
    /// # Errors
    /// [`StudyError::Interrupted`], or what the device refuses.
    pub fn run(&mut self, watcher: &mut dyn Watcher) -> Result<(), StudyError> {
        self.timed("align", |placing| placing.align(watcher))?;
        self.timed("score", |placing| placing.score(watcher))?;
        self.timed("search", |placing| placing.search(watcher))?;
        self.timed("compare", |placing| placing.compare(watcher))?;
        self.placed.complete = true;
        Ok(())
    }

    fn timed(
        &mut self,
        what: &str,
        work: impl FnOnce(&mut Self) -> Result<(), StudyError>,
    ) -> Result<(), StudyError> {
        let begun = Instant::now();
        let done = work(self);
        self.placed.seconds.push((what.into(), begun.elapsed().as_secs_f64()));
        done
    }

    fn work<'a>(
        gated: &'a mut Gated,
        sequences: &'a [Sequence],
        batch: usize,
        watcher: &'a mut dyn Watcher,
    ) -> Work<'a> {
        Work { gated, sequences, batch, watcher }
    }

    fn align(&mut self, watcher: &mut dyn Watcher) -> Result<(), StudyError> {
        let steps = self.settings.align_steps;
        if steps == 0 {
            return Ok(());
        }
        if !self.gated.has_copies() {
            watcher.message(
                "The model has no parameters that only queries and keys depend on: nothing is aligned",
            );
            return Ok(());
        }
        let batches: Vec<&[Sequence]> = self.sequences.align.chunks(self.settings.batch).collect();
        let mut alignment = Alignment { steps: 0, before: vec![], after: vec![] };
        for step in 0..steps {
            let rate = self.settings.align_rate * (1.0 - step as f64 / steps as f64);
            let batch = step % batches.len();
            let errors = finite(self.gated.align(batches[batch], rate)?, step, self.settings.align_rate)?;
            if step == 0 {
                alignment.before.clone_from(&errors);
            }
            if batch == 0 {
                alignment.after = errors;
            }
            alignment.steps = step + 1;
            self.placed.alignment = Some(alignment.clone());
            watcher.progress("aligning", step as u64 + 1, steps as u64);
        }
        // A step at a rate of nothing only reads the error, on the batch that it was read on before the first.
        let errors = self.gated.align(batches[0], 0.0)?;
        alignment.after = finite(errors, steps, self.settings.align_rate)?;
        self.placed.alignment = Some(alignment);
        Ok(())
    }

    fn score(&mut self, watcher: &mut dyn Watcher) -> Result<(), StudyError> {
        let PlaceSettings { batch, points, gate_steps, .. } = self.settings;
        let mut work = Self::work(&mut self.gated, &self.sequences.search, batch, watcher);
        let path = work.path(points)?;
        let (layers, softmax) = (self.placed.layers, self.placed.softmax);
        let share = softmax as f64 / layers as f64;
        let methods = &mut self.placed.methods;
        methods.push(Method::scored("path", &path.scores.means(), softmax));
        methods.push(Method::scored("slice", &path.slice(share), softmax));
        self.placed.linear = path.linear(softmax);
        self.placed.path = Some(path);
        let one = work.one_layer()?;
        methods.push(Method::scored("removal", &one.removal.means(), softmax));
        methods.push(Method::scored("addition", &one.addition.means(), softmax));
        methods.push(Method::scored("halo", &one.halo, softmax));
        self.placed.one_layer = Some(one);
        if gate_steps > 0 {
            let found = work.trained_gates(softmax, gate_steps)?;
            methods.push(Method::scored("trained gates", &found, softmax));
        }
        for placement in Placement::NAMED {
            methods.push(Method::named(&placement, self.settings.ratio, layers));
        }
        for number in 0..self.settings.random {
            let linear = random(layers, layers - softmax, self.settings.seed, number);
            methods.push(Method { name: format!("random {}", number + 1), linear, scores: None });
        }
        Ok(())
    }

    fn search(&mut self, watcher: &mut dyn Watcher) -> Result<(), StudyError> {
        let PlaceSettings { batch, swaps, .. } = self.settings;
        // From the best of those that differ in what they look at.
        let starts: Vec<Method> = ["path", "slice", "uniform", "middle"]
            .iter()
            .filter_map(|name| self.placed.methods.iter().find(|method| method.name == *name).cloned())
            .collect();
        let placements: Vec<Vec<usize>> = starts.iter().map(|method| method.linear.clone()).collect();
        let mut work = Self::work(&mut self.gated, &self.sequences.search, batch, watcher);
        let seen = work.look("where to start", &all_gates(&placements, self.placed.layers))?;
        let means = seen.iter().map(|seen| seen.iter().map(|seen| seen.recall_kl).sum::<f64>());
        let best = means.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(at, _)| at);
        let mut linear = starts[best].linear.clone();
        let mut search = Search { from: starts[best].name.clone(), ..Search::default() };
        let placed = &mut self.placed;
        placed.linear.clone_from(&linear);
        placed.search = Some(search.clone());
        let found = search::search(&mut work, &mut linear, swaps, &mut search, &mut |search, linear| {
            placed.linear = linear.to_vec();
            placed.search = Some(search.clone());
        });
        placed.search = Some(search);
        found?;
        placed.methods.insert(0, Method { name: "search".into(), linear, scores: None });
        Ok(())
    }

    /// All placements on sequences that nothing was chosen by.
    fn compare(&mut self, watcher: &mut dyn Watcher) -> Result<(), StudyError> {
        let PlaceSettings { batch, seed, .. } = self.settings;
        let layers = self.placed.layers;
        let methods = &self.placed.methods;
        let ends = [("all softmax", vec![]), ("all linear", (0..layers).collect::<Vec<usize>>())];
        let named = methods.iter().map(|method| (method.name.clone(), method.linear.clone()));
        let named: Vec<(String, Vec<usize>)> =
            named.chain(ends.into_iter().map(|(name, linear)| (name.to_owned(), linear))).collect();
        // Methods that agree are looked at once.
        let mut distinct: Vec<Vec<usize>> = named.iter().map(|(_, linear)| linear.clone()).collect();
        distinct.sort();
        distinct.dedup();
        let mut work = Self::work(&mut self.gated, &self.sequences.test, batch, watcher);
        let seen = work.look("comparing placements", &all_gates(&distinct, layers))?;
        let of = |linear: &Vec<usize>| distinct.binary_search(linear).ok().map(|at| &seen[at]);
        let Some(chosen) = of(&self.placed.linear) else { return Ok(()) };
        let compared = named.iter().filter_map(|(name, linear)| {
            let seen = of(linear)?;
            let estimate = |values: Vec<f64>| {
                let parts: Vec<(f64, f64)> = values.into_iter().map(|value| (value, 1.0)).collect();
                Estimate::of(&parts, Unit::Mean, seed)
            };
            let each = |value: fn(&Seen) -> f64| seen.iter().map(value).collect::<Vec<f64>>();
            let difference = seen.iter().zip(chosen).map(|(a, b)| a.recall_kl - b.recall_kl).collect();
            Some(Compared {
                name: name.clone(),
                linear: linear.clone(),
                divergence: estimate(each(|seen| seen.recall_kl)),
                difference: estimate(difference),
                recall: estimate(each(|seen| seen.recall_right)),
                loss: estimate(each(|seen| -seen.recall_log_prob)),
            })
        });
        self.placed.compared = compared.collect();
        Ok(())
    }

    /// Writes the hybrid: the checkpoint's weights, and in linear layers those that were aligned. Returns where it is, and notes
    /// in [`Placed::hybrid`] what it has.
    ///
    /// # Errors
    /// [`StudyError::Checkpoint`] if it cannot be written.
    pub fn write_hybrid(
        &mut self,
        subject: &linc_eval::Subject,
        folder: &FilePath,
    ) -> Result<std::path::PathBuf, StudyError> {
        let path = result::write_hybrid(&self.gated, subject, &self.placed.linear, folder)?;
        self.placed.hybrid = linc_checkpoint::describe(&path)?.weights_digest();
        Ok(path)
    }

    /// What was found, without the model and its memory.
    pub fn into_placed(self) -> Placed {
        self.placed
    }
}

/// The errors of aligning after so many steps, if they are numbers.
fn finite(errors: Vec<f64>, step: usize, rate: f64) -> Result<Vec<f64>, StudyError> {
    match errors.iter().all(|error| error.is_finite()) {
        true => Ok(errors),
        false => Err(StudyError::Nothing {
            message: format!(
                "after {} of aligning, linear branches give no finite numbers",
                count(step, "step")
            ),
            help: match step {
                0 => "linc eval shows whether the checkpoint is damaged".into(),
                _ => format!(
                    "--align-lr is {rate:e}: take a smaller one, or --align-steps 0, which aligns nothing"
                ),
            },
        }),
    }
}

/// Refuses a model that is not all softmax.
fn check(model: &Model) -> Result<(), StudyError> {
    let is_linear = |kind: &linc_driver::AttentionKind| kind.family() == AttentionFamily::Linear;
    if model.kinds.iter().any(is_linear) {
        return Err(StudyError::Nothing {
            message: format!(
                "the layers of the model are {}: a placement starts from a model with softmax attention in all layers",
                model.layer_map()
            ),
            help: "place the checkpoint that it was made from, or train one with model.linear_attn_ratio = 0"
                .into(),
        });
    }
    let attends = |layer: &usize| model.attentions.iter().any(|attention| attention.layer == *layer);
    match (0..model.sizes.n_layers).find(|layer| !attends(layer)) {
        None => Ok(()),
        Some(layer) => Err(StudyError::Nothing {
            message: format!(
                "layer {layer} of the model has no attention, and so no kind that could be chosen"
            ),
            help: "linc place weighs models with attention in every layer".into(),
        }),
    }
}

/// Gates of a placement: 0 for linear layers, 1 for others.
fn gates(linear: &[usize], layers: usize) -> Vec<f64> {
    (0..layers).map(|layer| f64::from(u8::from(!linear.contains(&layer)))).collect()
}

/// The layers that stay linear where so many of the highest scores become softmax; of equal ones the first.
fn highest(scores: &[f64], softmax: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut linear = order.split_off(softmax.min(order.len()));
    linear.sort_unstable();
    linear
}

/// Random linear layers, the same for a seed and a number.
fn random(layers: usize, linear: usize, seed: u64, number: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number as u64 + 1);
    let mut all: Vec<usize> = (0..layers).collect();
    shuffle(&mut rng, &mut all);
    all.truncate(linear);
    all.sort_unstable();
    all
}

/// The mean over sequences, for tables.
pub fn shown(mean: &Mean) -> String {
    let half = mean.half_width.map_or_else(String::new, |half| format!(" ± {half:.4}"));
    format!("{:.4}{half}", mean.mean)
}
