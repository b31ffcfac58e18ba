//! A thread that reads batches before they are asked for, so that a step does not wait for a disk.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::locked;
use super::mix::Mix;
use super::sampler::Spot;
use crate::Batch;
use crate::error::DataError;

/// Batches that are read and not asked for yet.
const BATCHES: usize = 4;

/// A batch, and where each source is behind it.
type Read = Result<(Batch, Vec<Spot>), DataError>;

#[derive(Debug)]
pub(super) struct Ahead {
    batches: Receiver<Read>,
    thread: JoinHandle<()>,
}

impl Ahead {
    /// Begins to read where a mixture is; `None` if the machine gives no thread.
    pub(super) fn start(mix: &Arc<Mutex<Mix>>, batch_size: usize, seq_len: usize) -> Option<Self> {
        let (sender, batches) = sync_channel(BATCHES);
        let mix = Arc::clone(mix);
        let work = move || {
            loop {
                let next = {
                    let mut mix = locked(&mix);
                    mix.next_batch(batch_size, seq_len).map(|batch| (batch, mix.spots()))
                };
                let is_last = next.is_err();
                // Nobody asks any more once the receiver is gone.
                if sender.send(next).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("linc-read-ahead".to_owned()).spawn(work).ok()?;
        Some(Self { batches, thread })
    }

    pub(super) fn next(&self) -> Read {
        let ended = |_| {
            Err(DataError::Unreadable {
                path: "the shards".into(),
                reason: "the thread that reads them has ended".to_owned(),
                help: "start again: the run goes on from its last checkpoint",
            })
        };
        self.batches.recv().unwrap_or_else(ended)
    }

    /// Waits for the thread, which then has left the mixture somewhere.
    pub(super) fn end(self) {
        drop(self.batches);
        // What it had to say was a batch.
        let _ = self.thread.join();
    }
}
