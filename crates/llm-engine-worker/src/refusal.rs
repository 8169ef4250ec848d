use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use axum::response::IntoResponse;
use llm_engine_wire::openai::{ErrorBody, ErrorObject, InvalidRequest};

/// A request that gets no answer, and why. The one place that maps to HTTP.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// In a box, so that the results that carry a refusal stay small.
    pub(crate) body: Box<ErrorBody>,
}

impl Refusal {
    /// The caller's mistake, in the field `param`.
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request(message.into(), Some(param), "invalid_value")
    }

    /// A feature of the dialect that the model runner doesn't have. Never silently ignored.
    pub(crate) fn unsupported(param: &str, what: &str) -> Self {
        let message = format!("{what} is not supported by this model runner");
        Self::bad_request(message, Some(param), "unsupported_parameter")
    }

    /// Prompt and answer together don't fit into what one request may have.
    pub(crate) fn too_long(param: &str, message: String) -> Self {
        Self::bad_request(message, Some(param), "context_length_exceeded")
    }

    pub(crate) fn body_too_large(most_bytes: usize) -> Self {
        let message = format!("the request body is larger than {most_bytes} bytes");
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            ..Self::bad_request(message, None, "request_too_large")
        }
    }

    pub(crate) fn unknown_model(asked: &str, served: &str) -> Self {
        let message = format!("the model '{asked}' is not served here; '{served}' is");
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::bad_request(message, Some("model"), "model_not_found")
        }
    }

    pub(crate) fn unknown_request(id: &str) -> Self {
        let message = format!("no request '{id}' is known");
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::bad_request(message, Some("request_id"), "request_not_found")
        }
    }

    pub(crate) fn unknown_route() -> Self {
        let message = "there is no such route".to_owned();
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::bad_request(message, None, "route_not_found")
        }
    }

    pub(crate) fn already_running(id: &str) -> Self {
        let message = format!("a request '{id}' is running already");
        Self {
            status: StatusCode::CONFLICT,
            ..Self::bad_request(message, None, "request_id_in_use")
        }
    }

    /// All places and all places to wait are taken. The gateway normally prevents it.
    pub(crate) fn full() -> Self {
        let message = "too many requests are waiting for the model".to_owned();
        Self::of(
            StatusCode::TOO_MANY_REQUESTS,
            message,
            "rate_limit_error",
            "queue_full",
        )
    }

    /// Our fault, or llama.cpp's.
    pub(crate) fn failed(message: &str) -> Self {
        Self::of(
            StatusCode::INTERNAL_SERVER_ERROR,
            message.to_owned(),
            "server_error",
            "engine_failed",
        )
    }

    fn bad_request(message: String, param: Option<&str>, code: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            body: Box::new(ErrorBody::invalid_request(message, param, code)),
        }
    }

    fn of(status: StatusCode, message: String, kind: &str, code: &str) -> Self {
        let error = ErrorObject {
            message,
            kind: kind.to_owned(),
            param: None,
            code: code.into(),
        };
        Self {
            status,
            body: Box::new(ErrorBody { error }),
        }
    }
}

impl From<InvalidRequest> for Refusal {
    fn from(invalid: InvalidRequest) -> Self {
        Self::bad_request(invalid.message, invalid.param, "invalid_value")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        // Serialising the error body cannot fail: it holds texts only.
        let body = serde_json::to_vec(&self.body).unwrap_or_default();
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}
