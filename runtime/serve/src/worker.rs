//! The model's own thread: takes jobs off a queue, scores prompts, and continues sequences in slots, a token each at a time, so
//! that a job begins as soon as a slot is free and not when others end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use linc_infer::{Engine, InferError, Request, ScorePrograms, Scores, Written};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// How often a worker without work looks whether it is to end.
const IDLE: Duration = Duration::from_millis(20);
/// Tokens that are scored between two steps at most, but for a sequence that has more by itself.
const SCORED: usize = 512;

/// What a request asks of the model.
pub(crate) struct Job {
    /// Prompts to be scored, before anything is written.
    pub(crate) scores: Vec<Vec<u32>>,
    /// Continuations.
    pub(crate) requests: Vec<Request>,
    /// Who hears of it. A job whose hearer is gone is given up.
    pub(crate) reply: UnboundedSender<Reply>,
    pub(crate) since: Instant,
}

/// What became of a part of a job.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A prompt, by its number among those that are scored.
    Scored(usize, Scores),
    /// A token of a continuation, by its number.
    Written(usize, Written),
    /// The job cannot be done.
    Failed(ApiError),
}

/// A job that was begun.
struct Open {
    number: u64,
    job: Job,
    /// Prompts that were scored.
    scored: usize,
    /// Continuations that have or had a slot.
    begun: usize,
    /// When it got its last slot, and when prompts of it were last scored, in turns of all jobs.
    slot_turn: u64,
    score_turn: u64,
    ended: usize,
    failed: bool,
}

impl Open {
    fn is_done(&self) -> bool {
        self.failed || (self.scored == self.job.scores.len() && self.ended == self.job.requests.len())
    }

    fn say(&self, reply: Reply) {
        // A hearer that is gone is found out before the next step.
        let _ = self.job.reply.send(reply);
    }
}

/// A model that does jobs.
pub(crate) struct Worker<'a> {
    pub(crate) engine: Engine<'a>,
    pub(crate) scores: ScorePrograms,
    pub(crate) metrics: Arc<Metrics>,
    open: VecDeque<Open>,
    /// The job and the continuation of each sequence that runs.
    running: BTreeMap<u64, (u64, usize)>,
    next: u64,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(engine: Engine<'a>, scores: ScorePrograms, metrics: Arc<Metrics>) -> Self {
        Worker { engine, scores, metrics, open: VecDeque::new(), running: BTreeMap::new(), next: 0 }
    }

    /// Does jobs until nobody can send any more, or `end` is set and none is left.
    ///
    /// # Errors
    /// What the device refuses: no job can be done any more.
    pub(crate) fn run(&mut self, jobs: &Receiver<Job>, end: &AtomicBool) -> Result<(), InferError> {
        loop {
            self.forget();
            self.metrics.at_work(self.engine.running(), &self.engine.work());
            if !self.admit(jobs, end) {
                return Ok(());
            }
            self.begin();
            self.score()?;
            self.step()?;
        }
    }

    /// Gives up what nobody waits for, and lets go of what is done.
    fn forget(&mut self) {
        let engine = &mut self.engine;
        let running = &mut self.running;
        self.open.retain(|open| {
            let has_left = !open.is_done() && open.job.reply.is_closed();
            let is_over = open.is_done() || has_left;
            if is_over {
                let left: Vec<u64> = running
                    .iter()
                    .filter(|(_, (job, _))| *job == open.number)
                    .map(|(number, _)| *number)
                    .collect();
                for number in left {
                    engine.cancel(number);
                    running.remove(&number);
                }
                self.metrics.ended(has_left);
            }
            !is_over
        });
    }

    /// Takes jobs as long as there may be room for them; false if there will be none.
    fn admit(&mut self, jobs: &Receiver<Job>, end: &AtomicBool) -> bool {
        // Jobs that wait here are no longer in the queue, whose length is the limit: no more than can begin soon.
        while self.open.len() <= self.engine.sequences() {
            let job = if self.open.is_empty() {
                match jobs.recv_timeout(IDLE) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) if end.load(Ordering::SeqCst) => return false,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            } else {
                match jobs.try_recv() {
                    Ok(job) => job,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
                }
            };
            self.metrics.taken(job.since.elapsed());
            self.next += 1;
            self.open.push_back(Open {
                number: self.next,
                job,
                scored: 0,
                begun: 0,
                slot_turn: 0,
                score_turn: 0,
                ended: 0,
                failed: false,
            });
        }
        true
    }

    /// Gives free slots to continuations of jobs whose prompts are scored: each to the job that has the fewest, and of those to
    /// the one that got one least lately, so that a job of many continuations does not keep others from their first.
    fn begin(&mut self) {
        while self.engine.has_room() {
            let running = &self.running;
            let slots = |open: &Open| running.values().filter(|(job, _)| *job == open.number).count();
            let waits = |open: &&mut Open| {
                let has_more = open.begun < open.job.requests.len();
                open.scored == open.job.scores.len() && has_more && !open.failed
            };
            let next = self.open.iter_mut().filter(waits).min_by_key(|open| (slots(open), open.slot_turn));
            let Some(open) = next else { return };
            self.next += 1;
            open.slot_turn = self.next;
            match self.engine.begin(self.next, open.job.requests[open.begun].clone()) {
                Ok(()) => {
                    self.running.insert(self.next, (open.number, open.begun));
                    open.begun += 1;
                }
                Err(error) => {
                    open.failed = true;
                    open.say(Reply::Failed(error.into()));
                }
            }
        }
    }

    /// Scores some prompts of one of the jobs that have any left, in turns.
    fn score(&mut self) -> Result<(), InferError> {
        let has_more = |open: &&mut Open| open.scored < open.job.scores.len() && !open.failed;
        let Some(open) = self.open.iter_mut().filter(has_more).min_by_key(|open| open.score_turn) else {
            return Ok(());
        };
        self.next += 1;
        open.score_turn = self.next;
        let mut tokens = 0;
        let rest = &open.job.scores[open.scored..];
        let within = |prompt: &&Vec<u32>| {
            tokens += prompt.len();
            tokens <= SCORED
        };
        let count = rest.iter().take_while(within).count().max(1);
        let prompts: Vec<&[u32]> = rest[..count].iter().map(Vec::as_slice).collect();
        let begun = Instant::now();
        let mut found: Vec<(usize, Scores)> = vec![];
        let scored =
            self.scores.score(self.engine.session(), &prompts, &AtomicBool::new(false), &mut |at, scores| {
                found.push((at, scores));
            });
        match scored {
            Ok(_) => {
                self.metrics.scored(prompts.iter().map(|prompt| prompt.len()).sum(), begun.elapsed());
                for (at, scores) in found {
                    open.say(Reply::Scored(open.scored + at, scores));
                }
                open.scored += count;
                Ok(())
            }
            Err(
                error @ (InferError::Request { .. }
                | InferError::LogitsNotFinite { .. }
                | InferError::Data(_)),
            ) => {
                open.failed = true;
                open.say(Reply::Failed(error.into()));
                Ok(())
            }
            Err(error @ InferError::Session(_)) => Err(error),
        }
    }

    /// A token for each sequence that is ready.
    fn step(&mut self) -> Result<(), InferError> {
        if self.engine.running() == 0 {
            return Ok(());
        }
        let Worker { engine, open, running, .. } = self;
        engine.step(&mut |number, event| {
            let Some((job, index)) = running.get(&number).copied() else { return };
            let Some(open) = open.iter_mut().find(|open| open.number == job) else { return };
            match event {
                Ok(written) => {
                    if written.end.is_some() {
                        running.remove(&number);
                        open.ended += 1;
                    }
                    open.say(Reply::Written(index, written));
                }
                Err(error) => {
                    running.remove(&number);
                    open.failed = true;
                    open.say(Reply::Failed(error.into()));
                }
            }
        })
    }
}
