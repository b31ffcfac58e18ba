//! A server of completions over HTTP, in the format of OpenAI's API, for programs that ask models: evaluation harnesses,
//! editors, scripts.
//!
//! | path | what it gives |
//! |---|---|
//! | `POST /v1/completions` | continuations of prompts, and how likely their tokens are; whole or as server-sent events |
//! | `GET /v1/models` | the name of the model and its context |
//! | `GET /tokenizer_info`, `POST /tokenize`, `POST /detokenize` | the model's tokenizer |
//! | `GET /metrics` | counters in Prometheus' format |
//! | `GET /health` | whether requests are taken |
//!
//! One thread has the model (`worker`), one has all connections (`server`); a bounded queue of jobs is between them, and
//! where it is full a request is refused. Handlers (`routes`) read requests (`completion`) and gather replies (`replies`)
//! into answers (`answer`).
//!
//! Invariants: a parameter is honoured or refused, never ignored; what is said of a prompt is what [`linc_infer::ScorePrograms`]
//! says, to the bit; nothing that a client sends or does ends the server or keeps others from their answers; a job whose
//! client left is given up before the next step; nothing grows with the time that the server runs.

mod answer;
mod client;
mod completion;
mod error;
mod metrics;
mod replies;
mod routes;
mod self_test;
mod server;
mod worker;

pub use error::ServeError;
pub use self_test::{Compared, self_test};
pub use server::{Served, Settings, serve};
