//! Whatever arrives, from callers or from upstreams: nothing panics, and what is taken is what it is said to be.
//!
//! In the normal run some random inputs for each; `make fuzz` drives the same targets by what they reach.

use fuzz_input::{Input, check};
use llm_engine_wire::batch_completions::{BatchCompletionsRequest, Version};
use llm_engine_wire::openai::{Assembly, BatchRequest, Chunk, Kind, Request, Response, Upstream, Usage};
use llm_engine_wire::said::Said;
use llm_engine_wire::sse::{Decoder, MAX_EVENT_BYTES};
use llm_engine_wire::translate::{to_frame, to_openai, to_sync_response};
use llm_engine_wire::v1::{AnswerReader, CompletionRequest};
use llm_engine_wire::v2;
use llm_engine_wire::validation::Body;
use llm_engine_wire::worker::{CancelRequest, CancelResponse, TokenizeRequest, TokenizeResponse};
use serde::Deserialize as _;
use serde_json::Value;
use serde_json::value::RawValue;

const OPENAI: [&str; 4] = [
    r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": true, "stream_options": {"include_usage": true}, "stop": ["a"], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "x": 1}"#,
    r#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:"}}]}], "n": 2, "temperature": 0.5, "top_p": 1, "logprobs": true, "response_format": {"type": "json_object"}}"#,
    r#"{"model": "m", "prompt": "p", "max_tokens": 16, "temperature": 1e0, "seed": -1, "stop": "x", "logit_bias": {"1": 2}, "user": "u"}"#,
    r#"{"model": "m", "prompt": [1, 2, 3], "max_completion_tokens": null, "echo": false, "best_of": 1, "suffix": null}"#,
];

const V1: [&str; 2] = [
    r#"{"prompt": "p", "max_new_tokens": 5, "temperature": 0.2, "stop_sequences": ["a"], "top_k": -1, "top_p": 0.9, "return_token_log_probs": true}"#,
    r#"{"prompt": "p", "max_new_tokens": "7", "temperature": "0.2", "guided_json": {"type": "object"}, "guided_regex": null, "presence_penalty": 2.0, "frequency_penalty": 0, "include_stop_str_in_output": true, "skip_special_tokens": null}"#,
];

const BATCHES: [&str; 4] = [
    r#"{"input_file_id": "f", "endpoint": "/v1/completions", "completion_window": "24h", "metadata": {"a": "b"}, "output_expires_after": {"anchor": "created_at", "seconds": 3600}}"#,
    r#"{"output_data_path": "o", "model_config": {"model": "m", "labels": {}}, "content": {"prompts": ["a"], "max_new_tokens": "3", "temperature": 0}, "data_parallelism": 1, "max_runtime_sec": "60"}"#,
    r#"{"output_data_path": "o", "model_config": {"model": "m"}, "content": [{"prompt": "a"}, {"messages": []}], "labels": {"a": "b"}, "priority": "p", "tool_config": null}"#,
    r#"{"output_data_path": "o", "model_config": {"model": "m"}, "input_data_path": "f", "gpus": 1, "max_runtime_sec": 172800.0}"#,
];

const EVENTS: [&str; 4] = [
    "data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\ndata: [DONE]\n\n",
    ": ping\r\n\r\nevent: x\r\nid: 1\r\ndata: {\"choices\":[]}\r\ndata: \r\n\r\n",
    "data:x\ndata\n\n\ndata: {\"error\":{\"message\":\"m\"}}\n\nretry: 5\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\",\"logprobs\":null}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\n",
];

const ERRORS: [&str; 4] = [
    r#"{"error": {"message": "m", "type": "t", "param": "p", "code": "c", "retry_after_ms": 5, "booked": true, "policy": "x"}}"#,
    r#"{"detail": [{"loc": ["body", 0], "msg": "m"}], "error": "e"}"#,
    r#"{"object": "error", "message": "m", "code": 40001}"#,
    "<html>502</html>",
];

const V1_ANSWERS: [&str; 3] = [
    r#"{"request_id": "r", "output": {"text": "a", "num_prompt_tokens": 1, "num_completion_tokens": 2, "tokens": [{"token": "a", "log_prob": -0.5}]}}"#,
    r#"{"request_id": "r", "output": {"text": "a", "finished": true, "num_prompt_tokens": 1, "num_completion_tokens": 2, "token": {"token": "a", "log_prob": -0.5}}, "error": null}"#,
    r#"{"request_id": "r", "output": null, "error": {"status_code": 500, "content": {"error": "e", "timestamp": "t"}}}"#,
];

const ANSWERS: [&str; 3] = [
    r#"{"id": "x", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": null}], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}"#,
    r#"{"id": "x", "created": 1, "model": "m", "choices": [{"index": 1, "text": "a", "finish_reason": "stop", "logprobs": {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5}], "text_offset": [0]}}]}"#,
    r#"{"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": "}}, {"index": 1, "function": {"arguments": null}}, 5], "x": [1, [], {"index": -1}], "y": {"z": "t"}}, "logprobs": {"content": [{"token": "a"}], "refusal": null}}], "x": 1.50}"#,
];

const WORKER: [&str; 4] = [
    r#"{"model": "m", "prompt": "p"}"#,
    r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}]}"#,
    r#"{"count": 5, "max_model_len": 2048}"#,
    r#"{"request_id": "r", "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}"#,
];

fn kind(choice: u8) -> Kind {
    if choice.is_multiple_of(2) {
        Kind::Chat
    } else {
        Kind::Completion
    }
}

/// A request that was taken is passed on as one that would be taken again, for the same.
fn passes_on(request: &Request) {
    let sent = request.upstream_body(&Upstream {
        model: "up",
        max_output_tokens: Some(7),
        stream: request.stream,
        continuous_usage: false,
    });
    let again = Request::parse(request.kind, sent.as_bytes()).expect("what is passed on is a request");
    assert_eq!(again.model, "up");
    assert_eq!(again.max_output_tokens(), Some(7));
    assert_eq!(again.stream, request.stream);
    assert_eq!(again.answers(), request.answers());
}

#[test]
fn openai_requests() {
    check!(|input: &Input| {
        let kind = kind(input.choice);
        if let Ok(request) = Request::parse(kind, &input.bytes(&OPENAI)) {
            let _ = request.check_stop_count();
            passes_on(&request);
        }
    });
}

#[test]
fn v1_requests() {
    check!(|input: &Input| {
        let content_type =
            [Some("application/json"), None, Some("text/plain")][usize::from(input.choice % 3)];
        let read = Body::read(content_type, &input.bytes(&V1));
        let Ok(body) = read.inspect_err(|problem| drop(serde_json::to_string(problem).unwrap())) else {
            return;
        };
        if let Ok(request) = CompletionRequest::read(Some("m"), &body)
            && let Ok(request) = to_openai(&request, input.choice.is_multiple_of(2))
        {
            passes_on(&request);
        }
    });
}

#[test]
fn v2_requests() {
    check!(|input: &Input| {
        if let Ok(body) = Body::read(Some("application/json"), &input.bytes(&OPENAI))
            && let Ok(request) = v2::read(kind(input.choice), &body)
        {
            passes_on(&request);
        }
    });
}

#[test]
fn batches() {
    check!(|input: &Input| {
        let bytes = input.bytes(&BATCHES);
        let _ = BatchRequest::parse(&bytes);
        if let Ok(body) = Body::read(Some("application/json"), &bytes) {
            let version = [Version::V1, Version::V2][usize::from(input.choice % 2)];
            match BatchCompletionsRequest::read(version, &body) {
                Ok(request) => assert!((1..=172_800).contains(&request.max_runtime_seconds)),
                Err(problems) => assert!(!problems.is_empty() && serde_json::to_string(&problems).is_ok()),
            }
        }
    });
}

/// The events of what arrives in these pieces; `None` if one is too long.
fn events<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Vec<u8>>> {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(event) = decoder.next_event().ok()? {
            assert!(event.len() <= MAX_EVENT_BYTES);
            events.push(event);
        }
    }
    Some(events)
}

#[test]
fn events_of_a_stream_are_the_same_however_it_is_cut() {
    check!(|input: &Input| {
        let bytes = input.bytes(&EVENTS);
        let whole = events(std::iter::once(bytes.as_slice()));
        let mut rest = bytes.as_slice();
        let mut cuts = input.cuts().iter().cycle();
        let pieces = std::iter::from_fn(|| {
            let length = usize::from(*cuts.next().unwrap_or(&1)).clamp(1, rest.len().max(1));
            let (piece, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(piece)
        });
        assert_eq!(events(pieces), whole);
    });
}

#[test]
fn chunks_and_answers_of_an_upstream() {
    check!(|input: &Input| {
        let bytes = input.bytes(&ANSWERS);
        if let Ok(chunk) = serde_json::from_slice::<Chunk>(&bytes) {
            let _ = to_frame("r", &chunk, 1);
            let mut response = Response::empty(kind(input.choice));
            response.append(chunk.clone());
            response.append(chunk);
            let _ = serde_json::to_string(&response).unwrap();
            let _ = serde_json::to_string(&to_sync_response("r", &response)).unwrap();
        }
        if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
            let _ = Usage::deserialize(&value["usage"]);
        }
    });
}

/// What was put together is JSON, or it was said that it can't be.
#[test]
fn answers_put_together() {
    check!(|input: &Input| {
        let bytes = input.bytes(&ANSWERS);
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return;
        };
        let mut assembly = Assembly::new(kind(input.choice));
        if assembly.add(text).and_then(|()| assembly.add(text)).is_ok() {
            let answer = assembly.finish("m", Usage::default());
            serde_json::from_str::<&RawValue>(&answer).expect("the answer is JSON");
        }
    });
}

#[test]
fn answers_of_a_v1_upstream() {
    check!(|input: &Input| {
        let bytes = input.bytes(&V1_ANSWERS);
        let mut reader = AnswerReader::new(&CompletionRequest::new("m", "p", 2, 0.5), 1);
        let _ = reader.whole(&bytes);
        let _ = reader.event(&bytes);
    });
}

#[test]
fn errors_of_an_upstream() {
    check!(|input: &Input| {
        let said = Said::read(&input.bytes(&ERRORS));
        assert_ne!(said.message.as_deref(), Some(""));
    });
}

#[test]
fn messages_between_gateway_and_worker() {
    check!(|input: &Input| {
        let bytes = input.bytes(&WORKER);
        let _ = serde_json::from_slice::<TokenizeRequest>(&bytes);
        let _ = serde_json::from_slice::<TokenizeResponse>(&bytes);
        let _ = serde_json::from_slice::<CancelRequest>(&bytes);
        let _ = serde_json::from_slice::<CancelResponse>(&bytes);
    });
}
