//! What is asked under which path, and how it is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use linc_data::Tokenizer;
use serde_json::{Value, json};
use tokio::time::{Instant as Deadline, timeout, timeout_at};

use crate::completion::{Completion, Fields, Limits, encode};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::replies::Replies;
use crate::worker::Job;

/// How long a client may take to send the body of its request.
const BODY: Duration = Duration::from_secs(30);

/// What all handlers know.
pub(crate) struct Shared {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) limits: Limits,
    pub(crate) slots: usize,
    /// Bytes of a body.
    pub(crate) body: usize,
    /// Time of a completion.
    pub(crate) time: Duration,
    /// What `Authorization` must say, if anything.
    pub(crate) token: Option<String>,
    /// Only this machine reaches it.
    pub(crate) is_local: bool,
    pub(crate) jobs: SyncSender<Job>,
    pub(crate) metrics: Arc<Metrics>,
    /// Requests that come now are refused.
    pub(crate) ending: Arc<AtomicBool>,
    /// Numbers of answers, and seeds of requests that have none.
    pub(crate) count: AtomicU64,
    pub(crate) started: u64,
}

type Known = State<Arc<Shared>>;

/// All paths.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/tokenizer_info", get(tokenizer_info))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), watched))
        .with_state(shared)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Lets those in who may ask, and counts.
async fn watched(State(shared): Known, request: Request, next: Next) -> Response {
    const PATHS: [&str; 7] = [
        "/v1/completions",
        "/v1/models",
        "/tokenizer_info",
        "/tokenize",
        "/detokenize",
        "/metrics",
        "/health",
    ];
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let path = PATHS.into_iter().find(|path| matched.as_deref() == Some(*path)).unwrap_or("other");
    let response = match &shared.token {
        Some(token) if path != "/health" && !is_allowed(&request, token) => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "the request has no `Authorization: Bearer` with the server's token",
        )
        .into_response(),
        None if let Some(refusal) = by_a_page(&request, shared.is_local) => refusal.into_response(),
        _ => next.run(request).await,
    };
    shared.metrics.answered(path, response.status().as_u16());
    response
}

/// Compares in a time that does not tell how much of a guess is right.
fn is_allowed(request: &Request, token: &str) -> bool {
    let said = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    // The name of a scheme has no case (RFC 9110, 11.1).
    let Some((scheme, said)) = said.split_at_checked(b"Bearer ".len()) else { return false };
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return false;
    }
    let differ = said.iter().zip(token.as_bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
    said.len() == token.len() && differ == 0
}

/// Why a request to a server without a token may be one that a web page makes a browser send: its user trusts the page with
/// nothing, and the server takes what comes from the user's machine. Pages reach other servers by the page's own host name, whose
/// address they change, and, without being asked, only with the types of bodies that forms have.
fn by_a_page(request: &Request, is_local: bool) -> Option<ApiError> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let is_here = |host: &str| {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    };
    let hosts = [header(header::HOST), request.uri().host()];
    if is_local && !hosts.into_iter().flatten().all(is_here) {
        let message = "the request names another host than localhost, 127.0.0.1 or [::1]; --api-key-file lets other names in";
        return Some(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let kind = header(header::CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    if request.method() == Method::POST && !kind.trim().eq_ignore_ascii_case("application/json") {
        let message = "the request has no `Content-Type: application/json`";
        return Some(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    None
}

async fn nowhere(request: Request) -> ApiError {
    let message = format!(
        "there is no {}; there are POST /v1/completions, /tokenize, /detokenize, GET /v1/models, /tokenizer_info, /health, /metrics",
        request.uri().path()
    );
    ApiError::new(StatusCode::NOT_FOUND, message)
}

async fn not_so(request: Request) -> ApiError {
    let message = format!("{} cannot be asked for by {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// The whole body, if it is not too large and does not take too long.
async fn read(shared: &Shared, body: Body) -> Result<Vec<u8>, ApiError> {
    match timeout(BODY.min(shared.time), axum::body::to_bytes(body, shared.body)).await {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        Ok(Err(error)) => {
            let is_long =
                std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
            Err(match is_long {
                true => {
                    let message = format!("the body has more than {} bytes", shared.body);
                    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
                }
                false => ApiError::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
            })
        }
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// Work on texts, which may take long, on a thread that is for that.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be read");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

async fn completions(State(shared): Known, request: Request) -> Result<Response, ApiError> {
    let since = Instant::now();
    let deadline = Deadline::now() + shared.time;
    let body = read(&shared, request.into_body()).await?;
    if shared.ending.load(Ordering::SeqCst) {
        return Err(ending());
    }
    let number = shared.count.fetch_add(1, Ordering::Relaxed);
    let chance = shared.started.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number << 16);
    let of_request = Arc::clone(&shared);
    let (asked, scores, requests) = apart(move || {
        let asked = Completion::parse(&body, &of_request.limits, &of_request.tokenizer, chance)?;
        let scores = match asked.scores_prompts() {
            true => asked.prompts.iter().map(|prompt| prompt.ids.clone()).collect(),
            false => vec![],
        };
        let requests = asked.requests();
        Ok((asked, scores, requests))
    })
    .await?;
    let (reply, replies) = tokio::sync::mpsc::unbounded_channel();
    shared.metrics.queued();
    if let Err(error) = shared.jobs.try_send(Job { scores, requests, reply, since }) {
        shared.metrics.turned_away();
        return Err(match error {
            TrySendError::Full(_) => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "the queue is full; try again in a moment")
            }
            TrySendError::Disconnected(_) => ending(),
        });
    }
    let mut replies = Replies::new(Arc::clone(&shared), asked, replies, number, since, deadline);
    if replies.asked.stream {
        return Ok(replies.stream());
    }
    match timeout_at(deadline, replies.all()).await {
        Ok(answer) => answer.map(|answer| as_json(&answer)),
        Err(_) => Err(too_long(shared.time)),
    }
}

fn ending() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is about to end")
}

pub(crate) fn too_long(time: Duration) -> ApiError {
    let message = format!("the answer took more than {} s", time.as_secs_f64());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)
}

fn as_json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

async fn models(State(shared): Known) -> Response {
    as_json(&json!({"object": "list", "data": [{
        "id": shared.limits.model,
        "object": "model",
        "created": shared.started,
        "owned_by": "linc",
        "max_model_len": shared.limits.context,
    }]}))
}

async fn tokenizer_info(State(shared): Known) -> Response {
    let tokenizer = &shared.tokenizer;
    // Where no token ends a document, the one that begins the next does.
    let bos = tokenizer.bos().map(|id| tokenizer.token(id));
    let eos = tokenizer.eos().map(|id| tokenizer.token(id)).or_else(|| bos.clone());
    as_json(&json!({
        "tokenizer_class": "linc",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": eos,
        "chat_template": null,
        "vocab_size": shared.limits.vocab,
        "model_max_length": shared.limits.context,
    }))
}

async fn tokenize(State(shared): Known, request: Request) -> Result<Response, ApiError> {
    const TAKEN: [&str; 3] = ["model", "prompt", "add_special_tokens"];
    let body = read(&shared, request.into_body()).await?;
    let ids = {
        let shared = Arc::clone(&shared);
        apart(move || {
            let mut fields = Fields::parse(&body)?;
            fields.text("model")?;
            let Some(text) = fields.text("prompt")? else {
                return Err(ApiError::parameter("prompt", "there is no prompt; expected a text"));
            };
            let with_bos = fields.truth("add_special_tokens")?.unwrap_or(true);
            fields.end(&TAKEN)?;
            encode(&shared.tokenizer, &text, with_bos)
        })
        .await?
    };
    Ok(as_json(&json!({"count": ids.len(), "max_model_len": shared.limits.context, "tokens": ids})))
}

async fn detokenize(State(shared): Known, request: Request) -> Result<Response, ApiError> {
    const TAKEN: [&str; 2] = ["model", "tokens"];
    let body = read(&shared, request.into_body()).await?;
    let text = apart(move || {
        let mut fields = Fields::parse(&body)?;
        fields.text("model")?;
        let Some(ids) = fields.ids("tokens")? else {
            return Err(ApiError::parameter("tokens", "there are no tokens; expected a list of token ids"));
        };
        fields.end(&TAKEN)?;
        if let Some(id) = ids.iter().find(|id| **id as usize >= shared.limits.vocab) {
            let message = format!("there is no token {id}; the model has 0 to {}", shared.limits.vocab - 1);
            return Err(ApiError::parameter("tokens", message));
        }
        Ok(shared.tokenizer.decode(&ids))
    })
    .await?;
    Ok(as_json(&json!({"prompt": text})))
}

async fn metrics(State(shared): Known) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.metrics.text(shared.slots)).into_response()
}

async fn health(State(shared): Known) -> Result<Response, ApiError> {
    match shared.ending.load(Ordering::SeqCst) {
        true => Err(ending()),
        false => Ok(as_json(&json!({"status": "ok"}))),
    }
}
