//! Why a server does not start or ends, and what a request is answered with instead of its result.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use linc_infer::InferError;
use serde_json::json;
use thiserror::Error;

/// Why a server does not start, ends, or does not answer as the model does.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {reason}\n  help: {help}")]
    Listen {
        /// Host and port.
        address: String,
        /// What the system says.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The thread of the connections ended by a panic, which said why.
    #[error(
        "the thread that has all connections ended early\n  help: start it again, and report what it said before"
    )]
    Connections,
    /// The model cannot go on.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// An answer is not what the model says.
    #[error("{0}")]
    SelfTest(String),
}

/// An answer that is no result, in the form of OpenAI's errors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    message: String,
    /// The parameter that it is about.
    param: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError { status, message: message.into(), param: None }
    }

    /// A request that says what it must not.
    pub(crate) fn parameter(name: &str, message: impl Into<String>) -> Self {
        ApiError { param: Some(name.to_owned()), ..ApiError::new(StatusCode::BAD_REQUEST, message) }
    }

    /// The same with another status than 400.
    pub(crate) fn with(self, status: StatusCode) -> Self {
        ApiError { status, ..self }
    }

    /// As an event of a stream that has begun.
    pub(crate) fn json(&self) -> serde_json::Value {
        let kind = match self.status {
            status if status == StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({"error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.status.as_u16(),
        }})
    }
}

impl From<InferError> for ApiError {
    fn from(error: InferError) -> Self {
        let status = match &error {
            InferError::Request { .. } | InferError::Data(_) => StatusCode::BAD_REQUEST,
            InferError::Session(_) | InferError::LogitsNotFinite { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = format!("{}\n", self.json());
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::TOO_MANY_REQUESTS || self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
