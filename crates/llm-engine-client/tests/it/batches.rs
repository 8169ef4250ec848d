use std::sync::Arc;

use llm_engine_batch::{Answer, Consequence, Failed, Form, Request, Row, Usage, Work as _};
use llm_engine_client::batch::{Dialect, Prices, Sender};
use scripted_upstream::{Exchange, Upstream};
use serde_json::{Value, json};

use crate::harness::{builder, chat_answer, header, refuse, succeed};

fn row(target: Option<&str>, fields: Value) -> Request {
    let Value::Object(fields) = fields else {
        panic!("{fields} are no fields")
    };
    let row = Row {
        number: 0,
        id: json!("r"),
        target: target.map(str::to_owned),
        bytes: fields.len(),
        fields,
    };
    Request {
        row: Arc::new(row),
        key: "batch-0-0".to_owned(),
        sender: 0,
    }
}

fn sender(server: &Upstream, dialect: Dialect, form: Form) -> Sender {
    let Value::Object(defaults) = json!({ "model": "m", "temperature": 0 }) else {
        unreachable!("it is an object")
    };
    Sender::new([builder(server)], dialect, defaults, form).unwrap()
}

/// What the server says to this row, and what is made of it.
async fn sent(
    sender: &Sender,
    server: &mut Upstream,
    request: Request,
    says: impl FnOnce(Exchange),
) -> Result<Answer, Failed> {
    let answer = async { says(server.next().await) };
    let (result, ()) = tokio::join!(sender.send(request), answer);
    result
}

#[tokio::test]
async fn a_prompt_goes_to_llm_engine_s_own_route_with_what_it_says_and_what_all_have() {
    let mut server = Upstream::start().await;
    let sender = sender(&server, Dialect::LlmEngine, Form::Jsonl).prices(Prices {
        nano_usd_per_input_token: 10,
        nano_usd_per_output_token: 100,
    });
    let request = row(
        None,
        json!({ "prompt": "p", "max_new_tokens": 5, "temperature": 0.5, "stream": true }),
    );
    let answer = sent(&sender, &mut server, request, |exchange| {
        assert_eq!(exchange.path, "/v1/llm/completions-sync");
        assert_eq!(
            exchange.body,
            json!({ "prompt": "p", "max_new_tokens": 5, "temperature": 0.5 })
        );
        assert_eq!(header(&exchange, "idempotency-key"), Some("batch-0-0"));
        let output =
            json!({ "text": "t", "num_prompt_tokens": 3, "num_completion_tokens": 2, "tokens": null });
        exchange.answer(
            200,
            &[("x-llm-engine-replayed", "true")],
            json!({ "request_id": "i", "output": output }),
        );
    });
    let answer = answer.await.unwrap();
    let usage = Usage {
        input_tokens: 3,
        output_tokens: 2,
        nano_usd: 230,
    };
    assert_eq!(
        (answer.text.as_deref(), answer.usage, answer.was_replayed),
        (Some("t"), usage, true)
    );
}

#[tokio::test]
async fn a_prompt_for_another_server_is_a_message_and_has_its_names() {
    let mut server = Upstream::start().await;
    let dialect = Dialect::OpenAi { has_version: false };
    let sender = sender(&server, dialect, Form::Jsonl);
    let request = row(
        None,
        json!({ "prompt": "p", "max_new_tokens": 5, "stop_sequences": ["."] }),
    );
    let answer = sent(&sender, &mut server, request, |exchange| {
        assert_eq!(exchange.path, "/chat/completions");
        let messages = json!([{ "role": "user", "content": "p" }]);
        let body =
            json!({ "model": "m", "temperature": 0, "max_tokens": 5, "stop": ["."], "messages": messages });
        assert_eq!(exchange.body, body);
        succeed(exchange);
    });
    let answer = answer.await.unwrap();
    assert_eq!(answer.text.as_deref(), Some("hello"));
    assert_eq!(answer.finish_reason.as_deref(), Some("stop"));
    assert!(answer.response.is_none() && !answer.was_replayed);
}

#[tokio::test]
async fn openai_s_lines_go_where_they_say_and_their_answers_are_kept_whole() {
    let mut server = Upstream::start().await;
    let sender = sender(&server, Dialect::LlmEngine, Form::OpenAi);
    let request = row(
        Some("/v1/completions"),
        json!({ "model": "other", "prompt": "p" }),
    );
    let answer = sent(&sender, &mut server, request, |exchange| {
        assert_eq!(exchange.path, "/v1/completions");
        assert_eq!(
            exchange.body,
            json!({ "model": "other", "prompt": "p", "temperature": 0 })
        );
        succeed(exchange);
    });
    let answer = answer.await.unwrap();
    let response: Value = serde_json::from_str(answer.response.unwrap().get()).unwrap();
    assert_eq!(response, chat_answer("hello"));
    assert_eq!(answer.request_id.as_deref(), Some("r"));
}

#[tokio::test]
async fn a_row_that_is_told_to_come_later_comes_later_however_often() {
    let mut server = Upstream::start().await;
    let sender = sender(&server, Dialect::LlmEngine, Form::Jsonl);
    let request = row(None, json!({ "model": "patient", "messages": [] }));
    let refusals = async {
        for _ in 0..30 {
            refuse(server.next().await, 1, true);
        }
        succeed(server.next().await);
    };
    let (answer, ()) = tokio::join!(sender.send(request), refusals);
    assert_eq!(answer.unwrap().text.as_deref(), Some("hello"));
    assert_eq!(sender.refusals(), 30);
}

#[tokio::test]
async fn each_failure_has_its_consequence() {
    let mut server = Upstream::start().await;
    let sender = sender(&server, Dialect::LlmEngine, Form::Jsonl);
    let error = |code: &str| json!({ "error": { "code": code, "message": "no" } });
    for (status, code, consequence) in [
        (400, "never_fits", Consequence::EndRow),
        (404, "model_not_found", Consequence::EndRow),
        (401, "invalid_api_key", Consequence::EndRun),
        (402, "budget_exhausted", Consequence::EndRun),
        (429, "rate_limited", Consequence::ComeAgain),
        (409, "answer_not_kept", Consequence::TryAnew),
        (500, "upstream_failed", Consequence::TryAgain),
    ] {
        // Each in a line of its own, so that no refusal holds the next.
        let request = row(None, json!({ "model": code, "messages": [] }));
        let failed = sent(&sender, &mut server, request, |exchange| {
            exchange.answer(status, &[], error(code));
        });
        let failed = failed.await.unwrap_err();
        assert_eq!(
            (failed.consequence, failed.may_be_done),
            (consequence, false),
            "{failed:?}"
        );
        assert_eq!(
            (failed.error.code.as_str(), failed.error.status),
            (code, Some(status))
        );
    }
    // The connection breaks.
    let request = row(None, json!({ "messages": [] }));
    let failed = sent(&sender, &mut server, request, drop).await.unwrap_err();
    assert_eq!(
        (failed.consequence, failed.may_be_done),
        (Consequence::TryAgain, true)
    );
    // The row comes again with its key, so the server is not told to end it: what it hears next is another row. That has
    // no answer.
    let request = row(None, json!({ "messages": [] }));
    let failed = sent(&sender, &mut server, request, |exchange| {
        assert_eq!(exchange.path, "/v1/chat/completions");
        exchange.answer(200, &[], json!([]));
    });
    assert_eq!(failed.await.unwrap_err().consequence, Consequence::TryAgain);
    // Without a model there is nobody to ask.
    let nobody = Sender::new(
        [builder(&server)],
        Dialect::LlmEngine,
        Default::default(),
        Form::Jsonl,
    )
    .unwrap();
    let failed = nobody
        .send(row(None, json!({ "prompt": "p" })))
        .await
        .unwrap_err();
    assert_eq!(failed.consequence, Consequence::EndRow);
}

#[tokio::test]
async fn a_row_that_is_given_up_is_cancelled() {
    let mut server = Upstream::start().await;
    let sender = Arc::new(sender(&server, Dialect::LlmEngine, Form::Jsonl));
    let running = tokio::spawn({
        let sender = Arc::clone(&sender);
        async move { sender.send(row(None, json!({ "messages": [] }))).await }
    });
    let exchange = server.next().await;
    running.abort();
    assert_eq!(server.next().await.path, "/v1/requests/batch-0-0");
    drop(exchange);
}
