use std::time::Duration;

use llm_engine_client::openai::{ChatRequest, Message};
use llm_engine_client::v1::CompletionRequest;
use llm_engine_client::{Call, Client, ErrorKind, Fault, Reason};
use serde_json::json;

use crate::harness::{CHAT, chat_answer, chat_call, header, scripted, succeed};

#[tokio::test]
async fn a_call_says_who_it_is_and_how_long_it_can_wait() {
    let (mut server, client) = scripted().await;
    let (answer, ()) = tokio::join!(client.call(chat_call().timeout(Duration::from_secs(20))), async {
        let exchange = server.next().await;
        assert_eq!(exchange.path, CHAT);
        assert_eq!(header(&exchange, "authorization"), Some("Bearer secret-key"));
        assert_eq!(header(&exchange, "content-type"), Some("application/json"));
        assert_eq!(header(&exchange, "accept"), Some("application/json"));
        assert_eq!(header(&exchange, "x-llm-engine-attempt"), Some("1"));
        assert_eq!(header(&exchange, "x-llm-engine-keep-seconds"), Some("30"));
        assert_eq!(header(&exchange, "idempotency-key").unwrap().len(), 36);
        let left: u64 = header(&exchange, "x-request-timeout-ms")
            .unwrap()
            .parse()
            .unwrap();
        assert!((10_000..=20_000).contains(&left), "{left}");
        assert!(
            header(&exchange, "user-agent")
                .unwrap()
                .starts_with("llm-engine-client/")
        );
        succeed(exchange);
    });
    let answer = answer.unwrap();
    assert_eq!((answer.status.as_u16(), answer.attempts()), (200, 1));
    assert_eq!(answer.request_id(), Some("r"));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(),
        chat_answer("hello")
    );
}

#[tokio::test]
async fn what_does_not_generate_is_not_kept() {
    let (mut server, client) = scripted().await;
    let (answer, ()) = tokio::join!(client.call(Call::get("/v1/limits")), async {
        let exchange = server.next().await;
        assert_eq!(header(&exchange, "idempotency-key"), None);
        assert_eq!(header(&exchange, "x-llm-engine-keep-seconds"), None);
        assert_eq!(header(&exchange, "content-type"), None);
        exchange.answer(200, &[], json!({}));
    });
    answer.unwrap();
}

#[tokio::test]
async fn unknown_fields_pass_both_ways() {
    let (mut server, client) = scripted().await;
    let mut request = ChatRequest::new("m", [Message::user("hi")]);
    request.extra.insert("seed".to_owned(), 7.into());
    let (answer, ()) = tokio::join!(client.chat(&request), async {
        let exchange = server.next().await;
        assert_eq!(exchange.body["seed"], 7);
        let message = json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "t" }] });
        let choice =
            json!({ "index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": null });
        exchange.answer(
            200,
            &[],
            json!({ "id": "c", "choices": [choice], "service_tier": "x" }),
        );
    });
    let answer = answer.unwrap();
    assert_eq!(answer.extra["service_tier"], "x");
    let message = answer.choices[0].message.as_ref().unwrap();
    assert_eq!(message.extra["tool_calls"][0]["id"], "t");
    assert_eq!(answer.text(), "");
}

#[tokio::test]
async fn a_name_is_one_part_of_the_path() {
    let (mut server, client) = scripted().await;
    let (error, ()) = tokio::join!(client.model_endpoint("a b/c?d"), async {
        let exchange = server.next().await;
        assert_eq!(exchange.path, "/v1/llm/model-endpoints/a%20b%2Fc%3Fd");
        exchange.answer(
            404,
            &[],
            json!({ "detail": "Model Endpoint a b/c?d  was not found." }),
        );
    });
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.fault()),
        (ErrorKind::NotFound, Fault::Caller)
    );
    assert_eq!(error.to_string(), "404: Model Endpoint a b/c?d  was not found");
}

#[tokio::test]
async fn an_answer_of_another_form_is_an_error_and_not_asked_for_again() {
    let (mut server, client) = scripted().await;
    let request = CompletionRequest::new("m", "p", 5, 0.2);
    let (error, ()) = tokio::join!(client.complete(&request), async {
        server
            .next()
            .await
            .answer(200, &[("x-request-id", "r7")], json!({ "hello": 1 }));
    });
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.reason()),
        (ErrorKind::Unexpected, Reason::Permanent)
    );
    assert_eq!((error.status(), error.request_id()), (Some(200), Some("r7")));
    assert!(server.arrived().is_none());
}

#[tokio::test]
async fn what_can_t_be_sent_is_said_before() {
    let (mut server, client) = scripted().await;
    let nameless = client.chat(&json!({ "messages": [] })).await.unwrap_err();
    assert_eq!(nameless.to_string(), "the request must name its model");
    let no_object = client.chat(&["a"]).await.unwrap_err();
    assert_eq!(no_object.to_string(), "the request must be a JSON object");
    let bad_key = client
        .call(chat_call().idempotency_key("a\nb"))
        .await
        .unwrap_err();
    assert_eq!(
        (bad_key.kind(), bad_key.attempts()),
        (ErrorKind::Invalid, &[][..])
    );
    assert!(server.arrived().is_none());
}

#[test]
fn a_builder_says_what_is_wrong_and_shows_no_key() {
    let error = Client::builder("http://h")
        .api_key("secret\n")
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the API key has characters that no HTTP header may have"
    );
    let error = Client::builder("http://user:secret@h")
        .build()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("does not belong there") && !error.contains("secret"),
        "{error}"
    );
    let error = Client::builder("http://h")
        .root_certificates("no PEM")
        .build()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the root certificates can't be used: no certificate is in it"
    );
    let client = Client::new("http://h:1/", "secret").unwrap();
    assert_eq!(client.base_url(), "http://h:1");
    assert!(!format!("{client:?} {:?}", Client::builder("http://h").api_key("secret")).contains("secret"));
}
