use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::{Exchange, Upstream};
use serde_json::{Value, json};

use crate::harness::{Answer, Log, metric};
use crate::storing::{Storing, line, server_in, until, upload_as};

const COMPLETIONS: &str = "/v1/completions";

fn lines(count: usize) -> String {
    (0..count)
        .map(|number| line(&format!("row-{number}"), &format!("p{number}")))
        .collect()
}

/// Answers each prompt by itself, and remembers it.
fn echoing(asked: &Arc<Mutex<Vec<String>>>) -> impl Fn(Exchange) + Send + 'static + use<> {
    let asked = Arc::clone(asked);
    move |exchange| {
        let prompt = exchange.body["prompt"].as_str().unwrap().to_owned();
        exchange.answer_as_asked(3, &["to ", &prompt]);
        asked.lock().unwrap().push(prompt);
    }
}

/// An upstream that answers everything at once.
fn whole() -> impl Future<Output = String> {
    Upstream::answering(|exchange| exchange.answer_as_asked(3, &["a", "b"]))
}

#[tokio::test]
async fn a_batch_from_its_lines_to_its_answers() {
    let log = Log::default();
    let _log = log.begin();
    let asked = Arc::default();
    let it = Storing::start(&Upstream::answering(echoing(&asked)).await, "").await;
    let input = it.upload("rows.jsonl", &lines(3)).await;
    let body = json!({
        "input_file_id": input, "endpoint": COMPLETIONS, "completion_window": "24h", "metadata": { "a": "b" },
    });
    let begun = it.post("/v1/batches", &body).await.json();
    assert_eq!(
        (&begun["object"], &begun["completion_window"]),
        (&json!("batch"), &json!("24h"))
    );
    assert_eq!(begun["metadata"], json!({ "a": "b" }));
    let created = begun["created_at"].as_i64().unwrap();
    assert_eq!(begun["expires_at"], created + 86_400);

    let batch = it.ended(&begun).await;
    assert_eq!(batch["status"], "completed");
    assert_eq!(
        batch["request_counts"],
        json!({ "total": 3, "completed": 3, "failed": 0 })
    );
    assert_eq!(batch["error_file_id"], Value::Null);
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(batch[time].as_i64().unwrap() >= created, "{time}");
    }
    let answers = it.lines(&batch["output_file_id"]).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["custom_id"], format!("row-{number}"));
        assert_eq!(
            (&answer["error"], &answer["response"]["status_code"]),
            (&Value::Null, &json!(200))
        );
        let body = &answer["response"]["body"];
        assert_eq!(body["choices"][0]["text"], format!("to p{number}"));
        assert_eq!(
            body["model"], "m",
            "the deployment's own name is nobody's business"
        );
        // By which it is found in the log, and can be explained.
        let request_id = answer["response"]["request_id"].as_str().unwrap();
        let explained = it
            .server
            .get(&format!("/v1/limits/explain/{request_id}"))
            .await
            .json();
        assert_eq!(
            (&explained["caller"], &explained["route"]),
            (&json!("k"), &json!(COMPLETIONS))
        );
    }
    assert_eq!(answers.len(), 3);
    let output = it
        .server
        .get(&format!(
            "/v1/files/{}",
            batch["output_file_id"].as_str().unwrap()
        ))
        .await
        .json();
    assert_eq!(output["purpose"], "batch_output");
    assert_eq!(asked.lock().unwrap().len(), 3);

    // What only running it needed goes first, then it is reported.
    let counted = async |name: &str| metric(&it.server, name).await;
    let ended = "llm_engine_batches_total{status=\"completed\"}";
    while counted(ended).await.as_deref() != Some("1") {}
    let id = batch["id"].as_str().unwrap();
    let records: Vec<String> = log
        .lines()
        .into_iter()
        .filter(|line| line.contains("llm_engine::batch"))
        .collect();
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    for said in [
        id,
        "status=\"completed\"",
        "rows=3",
        "answered=3",
        "failed=0",
        "input_tokens=9",
        "output_tokens=6",
    ] {
        assert!(record.contains(said), "{record}");
    }
    assert_eq!(
        counted("llm_engine_batch_rows_total{outcome=\"answered\"}")
            .await
            .as_deref(),
        Some("3")
    );
    assert_eq!(counted("llm_engine_batches_unended").await.as_deref(), Some("0"));
    assert_eq!(counted("llm_engine_files").await.as_deref(), Some("2"));
    // What only running it needed is gone.
    let left: Vec<_> = std::fs::read_dir(it.folder.path().join("batches"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn rows_that_fail_are_in_the_error_file_with_what_their_route_says() {
    let it = Storing::start(&whole().await, "").await;
    let no_model = line("no model", "p").replace("\"m\"", "\"nobody\"");
    let no_tokens = line("no tokens", "p").replace("\"max_tokens\":5", "\"max_tokens\":0");
    let batch = it
        .begin(COMPLETIONS, &(no_model + &line("good", "p") + &no_tokens))
        .await;
    let batch = it.ended(&batch).await;
    assert_eq!(batch["status"], "completed");
    assert_eq!(
        batch["request_counts"],
        json!({ "total": 3, "completed": 1, "failed": 2 })
    );
    assert_eq!(it.lines(&batch["output_file_id"]).await[0]["custom_id"], "good");
    let errors = it.lines(&batch["error_file_id"]).await;
    let said = |error: &Value| {
        let response = &error["response"];
        let code = response["body"]["error"]["code"].clone();
        (error["custom_id"].clone(), response["status_code"].clone(), code)
    };
    assert_eq!(
        said(&errors[0]),
        (json!("no model"), json!(404), json!("model_not_found"))
    );
    assert_eq!(
        said(&errors[1]),
        (json!("no tokens"), json!(400), json!("invalid_request"))
    );
}

#[tokio::test]
async fn a_file_with_mistakes_is_failed_with_their_lines() {
    let it = Storing::start(&whole().await, "[batches]\nrows = 3\n").await;
    let batch = it
        .begin(COMPLETIONS, &(line("a", "p") + "{\n\n" + &line("a", "p")))
        .await;
    let batch = it.ended(&batch).await;
    assert_eq!(batch["status"], "failed");
    assert_eq!(batch["errors"]["object"], "list");
    let errors = batch["errors"]["data"].as_array().unwrap();
    let found: Vec<_> = errors
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["code"].clone()))
        .collect();
    assert_eq!(
        found,
        [(2, json!("invalid_json_line")), (4, json!("duplicate_custom_id"))]
    );
    assert_eq!(
        (&batch["output_file_id"], &batch["error_file_id"]),
        (&Value::Null, &Value::Null)
    );
    let too_many = it.ended(&it.begin(COMPLETIONS, &lines(4)).await).await;
    assert_eq!(too_many["errors"]["data"][0]["code"], "too_many_rows");
}

#[tokio::test]
async fn a_request_for_a_batch_is_told_what_is_wrong() {
    let it = Storing::start(&whole().await, "").await;
    let id = it.upload("f", "x").await;
    let good = json!({ "input_file_id": id, "endpoint": COMPLETIONS, "completion_window": "24h" });
    for (field, value) in [
        ("input_file_id", json!("file-none")),
        ("input_file_id", json!(1)),
        ("endpoint", json!("/v1/responses")),
        ("completion_window", json!("1h")),
        ("metadata", json!({ "a": 1 })),
        (
            "output_expires_after",
            json!({ "anchor": "created_at", "seconds": 1 }),
        ),
    ] {
        let mut asked = good.clone();
        asked[field] = value;
        let answer = it.post("/v1/batches", &asked).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{field}");
        assert_eq!(answer.json()["error"]["param"], field);
    }
    assert_eq!(it.server.get("/v1/batches").await.json()["data"], json!([]));
}

#[tokio::test]
async fn another_caller_s_batches_are_as_if_they_were_not_there() {
    let it = Storing::start(&whole().await, "").await;
    let batch = it.begin(COMPLETIONS, &lines(1)).await;
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    assert_eq!(
        it.server.get_as("other", &target).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        it.server.get_as("other", "/v1/batches").await.json()["data"],
        json!([])
    );
    let cancelled = it
        .server
        .post_as("other", &format!("{target}/cancel"), &json!({}))
        .await;
    assert_eq!(Answer::read(cancelled).await.status, StatusCode::NOT_FOUND);
    let ended = it.ended(&batch).await;
    let output = ended["output_file_id"].as_str().unwrap();
    assert_eq!(
        it.server
            .get_as("other", &format!("/v1/files/{output}"))
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    // Nor does the other API know them.
    let job = it
        .server
        .get(&target.replace("/v1/batches", "/v2/batch-completions"))
        .await;
    assert_eq!(job.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn batches_are_listed_in_pages_the_newest_first() {
    let it = Storing::start(&whole().await, "").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.insert(0, it.begin(COMPLETIONS, &lines(1)).await["id"].clone());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let page = async |query: &str| {
        let page = it.server.get(&format!("/v1/batches?{query}")).await.json();
        let data = page["data"].as_array().unwrap();
        (
            data.iter().map(|batch| batch["id"].clone()).collect::<Vec<_>>(),
            page["has_more"] == true,
        )
    };
    assert_eq!(page("").await, (ids.clone(), false));
    assert_eq!(page("limit=2").await, (ids[..2].to_vec(), true));
    assert_eq!(
        page(&format!("after={}", ids[1].as_str().unwrap())).await,
        (ids[2..].to_vec(), false)
    );
    assert_eq!(
        it.server.get("/v1/batches?limit=101").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn one_that_is_sent_again_with_its_key_is_one_batch() {
    let it = Storing::start(&whole().await, "").await;
    let id = it.upload("f", &lines(1)).await;
    let asked = json!({ "input_file_id": id, "endpoint": COMPLETIONS, "completion_window": "24h" });
    let key = [("idempotency-key", "one")];
    let first = it.server.post_with(&key, "/v1/batches", &asked).await;
    let again = it.server.post_with(&key, "/v1/batches", &asked).await;
    assert_eq!(first.json()["id"], again.json()["id"]);
    assert_eq!(
        it.server.get("/v1/batches").await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn cancelled_it_keeps_what_was_on_its_way_and_says_what_is_missing() {
    let mut upstream = Upstream::start().await;
    // Three places for rows.
    let it = Storing::start(upstream.url(), "concurrency = 4").await;
    let batch = it.begin(COMPLETIONS, &lines(5)).await;
    let running = [
        upstream.next().await,
        upstream.next().await,
        upstream.next().await,
    ];
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    // The input may go.
    let input = format!("/v1/files/{}", batch["input_file_id"].as_str().unwrap());
    let headers = [("authorization", "Bearer k")];
    Answer::read(it.server.send("DELETE", &input, &headers, None).await).await;
    let cancelled = it.post(&format!("{target}/cancel"), &json!({})).await.json();
    assert_eq!(cancelled["status"], "cancelling");
    for exchange in running {
        exchange.answer_as_asked(3, &["x"]);
    }
    let ended = it.ended(&batch).await;
    assert_eq!(ended["status"], "cancelled");
    assert_eq!(
        ended["request_counts"],
        json!({ "total": 5, "completed": 3, "failed": 2 })
    );
    assert_eq!(it.lines(&ended["output_file_id"]).await.len(), 3);
    let errors = it.lines(&ended["error_file_id"]).await;
    assert!(
        errors
            .iter()
            .all(|error| error["error"]["code"] == "batch_cancelled" && error["response"].is_null())
    );
    assert!(upstream.arrived().is_none());
    let again = it.post(&format!("{target}/cancel"), &json!({})).await;
    assert_eq!(
        (again.status, &again.json()["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("batch_ended"))
    );
}

#[tokio::test]
async fn after_a_restart_it_goes_on_and_no_row_is_answered_twice() {
    let mut upstream = Upstream::start().await;
    let url = upstream.url().to_owned();
    let it = Storing::start(&url, "concurrency = 2").await;
    let batch = it.begin(COMPLETIONS, &lines(4)).await;
    let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    upstream.next().await.answer_as_asked(3, &["first"]);
    it.until(&target, |batch| batch["request_counts"]["completed"] == 1)
        .await;
    let running = upstream.next().await;
    let Storing { server, folder } = it;
    server.shut_down();
    running.answer_as_asked(3, &["second"]);
    server.ended().await;
    assert!(upstream.arrived().is_none(), "no row is begun at the end");

    let server = server_in(&folder, &url, "concurrency = 2").await;
    for text in ["third", "fourth"] {
        upstream.next().await.answer_as_asked(3, &[text]);
    }
    let ended = until(&server, &target, |batch| batch["status"] == "completed").await;
    assert_eq!(
        ended["request_counts"],
        json!({ "total": 4, "completed": 4, "failed": 0 })
    );
    let output = format!("/v1/files/{}/content", ended["output_file_id"].as_str().unwrap());
    let content = server.get(&output).await.body;
    for text in ["first", "second", "third", "fourth"] {
        assert_eq!(content.matches(text).count(), 1);
    }
}

#[tokio::test]
async fn a_batch_s_rows_leave_places_to_those_who_wait_for_their_answers() {
    let mut upstream = Upstream::start().await;
    let it = Storing::start(upstream.url(), "concurrency = 4").await;
    it.begin(COMPLETIONS, &lines(10)).await;
    let rows = [
        upstream.next().await,
        upstream.next().await,
        upstream.next().await,
    ];
    let (answer, ()) = tokio::join!(it.server.complete(), async {
        let interactive = upstream.next().await;
        assert_eq!(interactive.body["prompt"], "p");
        interactive.answer_words(3, &["a"]);
    });
    assert_eq!(answer.status, StatusCode::OK);
    drop(rows);
}

#[tokio::test]
async fn embeddings_and_chats_go_to_their_routes() {
    let upstream = Upstream::answering(|exchange| {
        if exchange.path.ends_with("/embeddings") {
            let data = json!([{ "object": "embedding", "index": 0, "embedding": [0.5] }]);
            let usage = json!({ "prompt_tokens": 3, "total_tokens": 3 });
            exchange.answer(
                200,
                &[],
                json!({ "object": "list", "model": "up", "data": data, "usage": usage }),
            );
        } else {
            assert!(exchange.path.ends_with("/chat/completions"));
            exchange.answer_as_asked(3, &["hello"]);
        }
    });
    let it = Storing::start(&upstream.await, "").await;
    let row = |url: &str, body: Value| {
        json!({ "custom_id": "a", "method": "POST", "url": url, "body": body }).to_string()
    };
    let embedding = row("/v1/embeddings", json!({ "model": "m", "input": "x" }));
    let ended = it.ended(&it.begin("/v1/embeddings", &embedding).await).await;
    let answer = &it.lines(&ended["output_file_id"]).await[0]["response"]["body"];
    assert_eq!(answer["data"][0]["embedding"], json!([0.5]));
    // A stream has no place in a line.
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let chat = row(
        "/v1/chat/completions",
        json!({ "model": "m", "messages": messages, "stream": true }),
    );
    let ended = it.ended(&it.begin("/v1/chat/completions", &chat).await).await;
    let answer = &it.lines(&ended["output_file_id"]).await[0]["response"]["body"];
    assert_eq!(answer["choices"][0]["message"]["content"], "hello");
}

#[tokio::test]
async fn the_oldest_that_have_ended_make_room_and_one_that_runs_does_not() {
    let mut upstream = Upstream::start().await;
    let it = Storing::start(
        upstream.url(),
        "[batches]\nper_caller = 2\nrunning_per_caller = 1\n",
    )
    .await;
    let first = it.begin(COMPLETIONS, "").await;
    it.ended(&first).await;
    let second = it.begin(COMPLETIONS, &lines(1)).await;
    let running = upstream.next().await;
    let third = it.begin(COMPLETIONS, &lines(1)).await;
    let listed = it.server.get("/v1/batches").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let id = it.upload("f", "").await;
    let asked = json!({ "input_file_id": id, "endpoint": COMPLETIONS, "completion_window": "24h" });
    let refused = it.post("/v1/batches", &asked).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("too_many_batches"))
    );
    // It is one after the other.
    let target = format!("/v1/batches/{}", third["id"].as_str().unwrap());
    assert_eq!(it.server.get(&target).await.json()["status"], "validating");
    running.answer_as_asked(3, &["x"]);
    assert_eq!(it.ended(&second).await["status"], "completed");
    upstream.next().await.answer_as_asked(3, &["x"]);
    assert_eq!(it.ended(&third).await["status"], "completed");
    let other = upload_as(&it.server, "other", &[], ("f", "")).await;
    assert_eq!(other.status, StatusCode::OK);
}
