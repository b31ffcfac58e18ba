//! What attention reads and gives in a program that shows it, [`Entry::Look`](linc_driver::Entry::Look): head by head, for whoever looks
//! into a model, or at one in training.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use linc_driver::names::{Exposed, Part};
use linc_driver::{HeadWeights, LookedAt};
use linc_exec::{ExecError, Executor};

/// Gives such a program a factor for what each head of each attention gives; with 1 it computes what it would without.
///
/// # Errors
/// [`ExecError`]: the program has no such input.
pub fn feed_factors(
    executor: &mut Executor,
    program: usize,
    attentions: &[LookedAt],
    factor: &dyn Fn(usize, usize) -> f32,
) -> Result<(), ExecError> {
    for (attention, of) in attentions.iter().enumerate() {
        let factors: Vec<f32> =
            (0..of.heads).flat_map(|head| vec![factor(attention, head); of.head_dim]).collect();
        let name = Exposed { attention, part: Part::Factor }.to_string();
        executor.write_input(program, &name, bytemuck::cast_slice(&factors))?;
    }
    Ok(())
}

/// What an attention read and gave: queries and output `[seq, heads, head_dim]`, keys and values `[seq, kv_heads, head_dim]`.
pub struct Seen {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    output: Vec<f32>,
}

/// The rows of one head, `[seq, head_dim]` each.
pub struct SeenHead {
    /// As the operation of its kind reads them.
    pub queries: Vec<f32>,
    /// Likewise.
    pub keys: Vec<f32>,
    /// Of the key/value head that serves it.
    pub values: Vec<f32>,
    /// What it gave.
    pub output: Vec<f32>,
}

impl Seen {
    /// Of an attention, by its number, in the last run of a program.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn read(executor: &Executor, program: usize, attention: usize) -> Result<Seen, ExecError> {
        let part = |part: Part| executor.output(program, &Exposed { attention, part }.to_string());
        Ok(Seen {
            queries: part(Part::Queries)?,
            keys: part(Part::Keys)?,
            values: part(Part::Values)?,
            output: part(Part::Output)?,
        })
    }

    /// The same of the first tokens alone, where what stands behind them only fills the program's length.
    #[must_use]
    pub fn of_first(mut self, tokens: usize, attention: &LookedAt) -> Seen {
        let LookedAt { heads, kv_heads, head_dim, .. } = *attention;
        for (rows, heads) in [
            (&mut self.queries, heads),
            (&mut self.keys, kv_heads),
            (&mut self.values, kv_heads),
            (&mut self.output, heads),
        ] {
            rows.truncate(tokens * heads * head_dim);
        }
        self
    }

    /// The part of one query head, and of the key/value head that serves it.
    fn head(&self, attention: &LookedAt, head: usize) -> SeenHead {
        let LookedAt { heads, kv_heads, head_dim, .. } = *attention;
        let rows = |x: &[f32], of: usize, head: usize| -> Vec<f32> {
            x.chunks_exact(of * head_dim)
                .flat_map(|row| &row[head * head_dim..][..head_dim])
                .copied()
                .collect()
        };
        let group = head / (heads / kv_heads).max(1);
        SeenHead {
            queries: rows(&self.queries, heads, head),
            keys: rows(&self.keys, kv_heads, group),
            values: rows(&self.values, kv_heads, group),
            output: rows(&self.output, heads, head),
        }
    }

    /// What is asked of each head of the attention, in their order, on so many threads; nothing if `stop` was set.
    pub fn each_head<T: Send>(
        &self,
        attention: &LookedAt,
        threads: usize,
        stop: &AtomicBool,
        ask: &(dyn Fn(&dyn HeadWeights, &SeenHead) -> T + Sync),
    ) -> Option<Vec<T>> {
        let next = AtomicUsize::new(0);
        let found: Mutex<Vec<(usize, T)>> = Mutex::new(vec![]);
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, attention.heads) {
                scope.spawn(|| {
                    loop {
                        let head = next.fetch_add(1, Ordering::Relaxed);
                        if head >= attention.heads || stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let rows = self.head(attention, head);
                        let weights = attention.weights(&rows.queries, &rows.keys);
                        let answer = ask(&*weights, &rows);
                        found.lock().unwrap_or_else(PoisonError::into_inner).push((head, answer));
                    }
                });
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(head, _)| *head);
        (found.len() == attention.heads).then(|| found.into_iter().map(|(_, answer)| answer).collect())
    }
}
