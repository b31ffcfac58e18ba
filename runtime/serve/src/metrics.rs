//! What the server counts, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use linc_infer::Work;

/// Upper bounds of the buckets of times, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// What was counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Answers by path and status.
    answers: BTreeMap<(&'static str, u16), u64>,
    /// Jobs that wait in the queue.
    queued: u64,
    /// Jobs that were given up because nobody waited any more.
    left: u64,
    jobs: u64,
    running: usize,
    work: Work,
    scored: usize,
    scoring: f64,
    seconds: Histogram,
    waited: Histogram,
    first_token: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.count += 1;
        self.sum += seconds;
        for (count, bound) in self.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP linc_{name} {help}\n# TYPE linc_{name} histogram");
        for (count, bound) in self.counts.iter().zip(BUCKETS) {
            let _ = writeln!(out, "linc_{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let Histogram { count, sum, .. } = self;
        let _ = writeln!(
            out,
            "linc_{name}_bucket{{le=\"+Inf\"}} {count}\nlinc_{name}_sum {sum}\nlinc_{name}_count {count}"
        );
    }
}

impl Metrics {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer whose head was sent.
    pub(crate) fn answered(&self, path: &'static str, status: u16) {
        *self.counts().answers.entry((path, status)).or_default() += 1;
    }

    /// A completion that was answered to its end, in that time.
    pub(crate) fn completed(&self, time: Duration) {
        self.counts().seconds.add(time);
    }

    /// A job that waits.
    pub(crate) fn queued(&self) {
        self.counts().queued += 1;
    }

    /// A job that had no place in the queue after all.
    pub(crate) fn turned_away(&self) {
        let mut counts = self.counts();
        counts.queued = counts.queued.saturating_sub(1);
    }

    /// A job that the model takes after it waited for so long.
    pub(crate) fn taken(&self, waited: Duration) {
        let mut counts = self.counts();
        counts.queued = counts.queued.saturating_sub(1);
        counts.jobs += 1;
        counts.waited.add(waited);
    }

    /// The first token of a job.
    pub(crate) fn first_token(&self, time: Duration) {
        self.counts().first_token.add(time);
    }

    /// A job that is done, or that nobody waits for any more.
    pub(crate) fn ended(&self, left: bool) {
        self.counts().left += u64::from(left);
    }

    /// What the engine has done.
    pub(crate) fn at_work(&self, running: usize, work: &Work) {
        let mut counts = self.counts();
        counts.running = running;
        counts.work = *work;
    }

    /// Prompts that were scored.
    pub(crate) fn scored(&self, tokens: usize, time: Duration) {
        let mut counts = self.counts();
        counts.scored += tokens;
        counts.scoring += time.as_secs_f64();
    }

    /// All of it; `slots` sequences can run at once.
    pub(crate) fn text(&self, slots: usize) -> String {
        let counts = self.counts();
        let mut out = String::new();
        let mut number = |name: &str, kind: &str, help: &str, value: f64| {
            let _ =
                writeln!(out, "# HELP linc_{name} {help}\n# TYPE linc_{name} {kind}\nlinc_{name} {value}");
        };
        let work = &counts.work;
        number("requests_waiting", "gauge", "Requests that wait in the queue.", counts.queued as f64);
        number("sequences_running", "gauge", "Sequences that have a slot.", counts.running as f64);
        number("slots", "gauge", "Sequences that can have a slot at once.", slots as f64);
        number("jobs_total", "counter", "Requests that the model took.", counts.jobs as f64);
        number(
            "jobs_left_total",
            "counter",
            "Requests whose client left before their end.",
            counts.left as f64,
        );
        number(
            "prompt_tokens_total",
            "counter",
            "Tokens of prompts that were read to be continued.",
            work.read as f64,
        );
        number("generated_tokens_total", "counter", "Tokens that were written.", work.written as f64);
        number("scored_tokens_total", "counter", "Tokens of prompts that were scored.", counts.scored as f64);
        number("prefill_seconds_total", "counter", "Time of reading prompts in blocks.", work.reading);
        number("decode_seconds_total", "counter", "Time of writing tokens.", work.writing);
        number(
            "decode_steps_total",
            "counter",
            "Steps in which each sequence gets a token.",
            work.steps as f64,
        );
        number("score_seconds_total", "counter", "Time of scoring prompts.", counts.scoring);
        out.push_str("# HELP linc_http_responses_total Answers by path and status.\n# TYPE linc_http_responses_total counter\n");
        for ((path, status), count) in &counts.answers {
            let _ = writeln!(out, "linc_http_responses_total{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        counts.seconds.write(
            &mut out,
            "request_seconds",
            "Time of a completion from its arrival to its end.",
        );
        counts.waited.write(&mut out, "queue_seconds", "Time that a request waits in the queue.");
        counts.first_token.write(
            &mut out,
            "first_token_seconds",
            "Time from a request's arrival to its first token.",
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_a_type_for_each_number_and_whole_histograms() {
        let metrics = Metrics::default();
        metrics.answered("/health", 200);
        for milliseconds in [1, 30, 400_000] {
            metrics.completed(Duration::from_millis(milliseconds));
        }
        metrics.queued();
        metrics.queued();
        metrics.taken(Duration::ZERO);
        let text = metrics.text(4);
        for line in [
            "linc_requests_waiting 1",
            "linc_slots 4",
            "linc_http_responses_total{path=\"/health\",status=\"200\"} 1",
            "linc_request_seconds_bucket{le=\"0.005\"} 1",
            "linc_request_seconds_bucket{le=\"0.05\"} 2",
            "linc_request_seconds_bucket{le=\"300\"} 2",
            "linc_request_seconds_bucket{le=\"+Inf\"} 3",
            "linc_request_seconds_count 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(text.contains(&format!("# TYPE {base} ")), "{name} has no type");
        }
    }
}
