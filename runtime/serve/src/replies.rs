//! What the model says of a request, gathered into one answer or passed on piece by piece.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use linc_infer::Scores;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant as Deadline, timeout_at};

use crate::answer::{Choice, Echo};
use crate::completion::Completion;
use crate::error::ApiError;
use crate::routes::{Shared, now, too_long};
use crate::worker::Reply;

/// The replies to a request. When it is dropped, the model stops to work for it.
pub(crate) struct Replies {
    shared: Arc<Shared>,
    pub(crate) asked: Completion,
    replies: UnboundedReceiver<Reply>,
    choices: Vec<Choice>,
    scores: Vec<Option<Scores>>,
    id: String,
    created: u64,
    since: Instant,
    deadline: Deadline,
    has_first: bool,
    /// Events that were not sent yet, and whether they are the last.
    events: Vec<String>,
    is_over: bool,
}

impl Replies {
    pub(crate) fn new(
        shared: Arc<Shared>,
        asked: Completion,
        replies: UnboundedReceiver<Reply>,
        number: u64,
        since: Instant,
        deadline: Deadline,
    ) -> Self {
        let count = asked.prompts.len() * asked.n;
        let choices = (0..count).map(|index| Choice::new(index, &asked)).collect();
        let scores = vec![None; asked.prompts.len()];
        let mut replies = Replies {
            id: format!("cmpl-{:x}-{number:x}", shared.started),
            shared,
            asked,
            replies,
            choices,
            scores,
            created: now(),
            since,
            deadline,
            has_first: false,
            events: vec![],
            is_over: false,
        };
        if replies.asked.echo && !replies.asked.scores_prompts() {
            (0..replies.scores.len()).for_each(|prompt| replies.echo(prompt));
        }
        replies
    }

    /// Repeats a prompt in all of its choices.
    fn echo(&mut self, prompt: usize) {
        let Replies { asked, choices, scores, shared, .. } = self;
        let scores = scores[prompt].as_ref();
        let told = scores.filter(|_| asked.is_told_by_scores() && asked.max_tokens == 1);
        let given = &asked.prompts[prompt];
        let echo = Echo::new(asked, given, scores, &shared.tokenizer);
        for choice in &mut choices[prompt * asked.n..][..asked.n] {
            choice.echo(&echo);
            if let Some(scores) = told {
                choice.follow(asked, given, scores, &shared.tokenizer);
            }
        }
    }

    /// Takes a reply; the choices that it is about.
    fn hear(&mut self, reply: Reply) -> Result<std::ops::Range<usize>, ApiError> {
        if !std::mem::replace(&mut self.has_first, true) {
            self.shared.metrics.first_token(self.since.elapsed());
        }
        match reply {
            Reply::Scored(prompt, scores) => {
                self.scores[prompt] = Some(scores);
                self.echo(prompt);
                Ok(prompt * self.asked.n..(prompt + 1) * self.asked.n)
            }
            Reply::Written(index, written) => {
                self.choices[index].write(&written, &self.shared.tokenizer);
                Ok(index..index + 1)
            }
            Reply::Failed(error) => Err(error),
        }
    }

    fn is_whole(&self) -> bool {
        self.choices.iter().all(Choice::is_whole)
    }

    async fn next(&mut self) -> Result<std::ops::Range<usize>, ApiError> {
        match self.replies.recv().await {
            Some(reply) => self.hear(reply),
            None => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the model cannot go on")),
        }
    }

    /// The whole answer.
    pub(crate) async fn all(&mut self) -> Result<Value, ApiError> {
        while !self.is_whole() {
            self.next().await?;
        }
        self.shared.metrics.completed(self.since.elapsed());
        let choices: Vec<Value> = self.choices.iter_mut().map(Choice::take).collect();
        let mut answer = self.answer(choices);
        answer["usage"] = self.usage();
        Ok(answer)
    }

    fn answer(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.shared.limits.model,
            "choices": choices,
        })
    }

    fn usage(&self) -> Value {
        let read: usize = self.asked.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let written: usize = self.choices.iter().map(|choice| choice.written).sum();
        json!({"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written})
    }

    /// Events as they come: an answer with what is new, each; `[DONE]` at the end.
    pub(crate) fn stream(self) -> Response {
        let events = stream::unfold(self, |mut replies| async move {
            let event = replies.event().await?;
            Some((Ok::<_, std::convert::Infallible>(event), replies))
        });
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(events)).into_response()
    }

    /// The next events.
    async fn event(&mut self) -> Option<String> {
        if self.is_over {
            return None;
        }
        if self.is_whole() {
            // Prompts that are repeated and not continued are whole before anything is heard.
            let untold = self.choices.iter_mut().filter(|choice| !choice.is_told());
            let choices: Vec<Value> = untold.map(Choice::take).collect();
            let answer = self.answer(choices);
            self.events.push(format!("data: {answer}\n\n"));
            self.finish();
            return Some(self.events.drain(..).collect());
        }
        // Where a client reads slowly there always is a reply, and the time would never be looked at.
        if Deadline::now() >= self.deadline {
            self.fail(&too_long(self.shared.time));
            return Some(self.events.drain(..).collect());
        }
        match timeout_at(self.deadline, self.next()).await {
            Ok(Ok(of)) => {
                let choices: Vec<Value> = self.choices[of].iter_mut().map(Choice::take).collect();
                let answer = self.answer(choices);
                self.events.push(format!("data: {answer}\n\n"));
                if self.is_whole() {
                    self.finish();
                }
            }
            Ok(Err(error)) => self.fail(&error),
            Err(_) => self.fail(&too_long(self.shared.time)),
        }
        Some(self.events.drain(..).collect())
    }

    fn finish(&mut self) {
        if self.asked.with_usage {
            let mut answer = self.answer(vec![]);
            answer["usage"] = self.usage();
            self.events.push(format!("data: {answer}\n\n"));
        }
        self.events.push("data: [DONE]\n\n".into());
        self.shared.metrics.completed(self.since.elapsed());
        self.is_over = true;
    }

    fn fail(&mut self, error: &ApiError) {
        self.events.push(format!("data: {}\n\n", error.json()));
        self.is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};
    use std::time::Duration;

    use linc_data::Tokenizer;
    use linc_infer::Written;

    use super::*;
    use crate::completion::Limits;
    use crate::metrics::Metrics;

    #[test]
    fn an_answer_whose_time_is_over_ends_though_there_is_always_more_of_it() {
        let tokenizer = Arc::new(Tokenizer::bytes());
        let limits = Limits { model: "m".into(), context: 64, vocab: 256 };
        let body = br#"{"prompt": "a", "max_tokens": 60, "stream": true}"#;
        let asked = Completion::parse(body, &limits, &tokenizer, 0).expect("a request");
        let shared = Arc::new(Shared {
            tokenizer,
            limits,
            slots: 1,
            body: 1,
            time: Duration::ZERO,
            token: None,
            is_local: true,
            jobs: std::sync::mpsc::sync_channel(1).0,
            metrics: Arc::new(Metrics::default()),
            ending: Arc::new(AtomicBool::new(false)),
            count: AtomicU64::new(0),
            started: 0,
        });
        let (reply, replies) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..2 {
            let written = Written { token: 97, text: "a".into(), offset: 0, score: None, end: None };
            reply.send(Reply::Written(0, written)).expect("sent");
        }
        let deadline = |late| Deadline::now() + Duration::from_secs(late);
        let mut replies = Replies::new(shared, asked, replies, 0, Instant::now(), deadline(60));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            assert!(replies.event().await.is_some_and(|event| event.contains("\"text\":\"a\"")));
            replies.deadline = deadline(0);
            assert!(replies.event().await.is_some_and(|event| event.contains("the answer took more than")));
            assert_eq!(replies.event().await, None);
        });
    }
}
