//! Whatever a caller asks for: the worker takes it or says why not.

use fuzz_input::{Input, check};
use llm_engine_wire::openai::{Kind, Request};

use crate::{messages, unsupported};

const REQUESTS: [&str; 3] = [
    r#"{"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": null, "name": "n"}]}"#,
    r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 1, "logprobs": false, "tools": [], "response_format": {"type": "text"}, "stop": ["a"]}"#,
    r#"{"model": "m", "prompt": "p", "echo": false, "best_of": 1, "suffix": "", "logit_bias": {}, "seed": 5}"#,
];

#[test]
fn requests_of_the_worker() {
    check!(|input: &Input| {
        let kind = if input.choice.is_multiple_of(2) {
            Kind::Chat
        } else {
            Kind::Completion
        };
        let Ok(request) = Request::parse(kind, &input.bytes(&REQUESTS)) else {
            return;
        };
        let _ = unsupported::refuse_unsupported(&request);
        if let Some(given) = request.field("messages")
            && let Ok(lines) = messages::read(given)
        {
            assert!(!lines.is_empty());
            assert!(
                lines
                    .iter()
                    .all(|line| ["system", "user", "assistant"].contains(&line.role))
            );
        }
    });
}
