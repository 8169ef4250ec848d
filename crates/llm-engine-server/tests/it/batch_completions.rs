use hyper::StatusCode;
use scripted_upstream::Upstream;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, config, metric, quick};
use crate::storing::Storing;

const V1: &str = "/v1/llm/batch-completions";
const V2: &str = "/v2/batch-completions";

async fn echoing() -> String {
    Upstream::answering(|exchange| {
        let prompt = exchange.body["prompt"].as_str().map(str::to_owned);
        exchange.answer_as_asked(3, &["to ", prompt.as_deref().unwrap_or("chat")]);
    })
    .await
}

fn asked(more: Value) -> Value {
    let mut asked = json!({ "output_data_path": "out.json", "model_config": { "model": "m", "labels": {} } });
    asked
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    asked
}

fn prompts(prompts: &[&str]) -> Value {
    json!({ "prompts": prompts, "max_new_tokens": 3, "temperature": 0, "stop_sequences": null })
}

/// The job, once it has ended.
async fn ended(it: &Storing, id: &Value) -> Value {
    let target = format!("{V2}/{}", id.as_str().unwrap());
    let is_over = |found: &Value| !["queued", "running"].contains(&found["job"]["status"].as_str().unwrap());
    it.until(&target, is_over).await["job"].clone()
}

async fn output(it: &Storing, job: &Value) -> Value {
    let id = job["metadata"]["output_file_id"].as_str().unwrap();
    serde_json::from_str(&it.content(id).await).unwrap()
}

#[tokio::test]
async fn prompts_of_a_request_become_a_list_of_completions() {
    let it = Storing::start(&echoing().await, "").await;
    let created = it
        .post(V1, &asked(json!({ "content": prompts(&["a", "b"]) })))
        .await;
    assert_eq!(created.status, StatusCode::OK);
    let id = created.json()["job_id"].clone();
    assert_eq!(created.json(), json!({ "job_id": id }));
    let job = ended(&it, &id).await;
    assert_eq!(
        (&job["status"], &job["output_data_path"]),
        (&json!("completed"), &json!("out.json"))
    );
    let metadata = &job["metadata"];
    assert_eq!(
        (&metadata["total"], &metadata["completed"], &metadata["failed"]),
        (&json!("2"), &json!("2"), &json!("0"))
    );
    let list = output(&it, &job).await;
    let completion = |text: &str| json!({ "text": text, "num_prompt_tokens": 3, "num_completion_tokens": 2, "tokens": null });
    assert_eq!(list, json!([completion("to a"), completion("to b")]));
    // It is called as it was asked for.
    let file = it
        .server
        .get(&format!(
            "/v1/files/{}",
            metadata["output_file_id"].as_str().unwrap()
        ))
        .await
        .json();
    assert_eq!(
        (&file["filename"], &file["purpose"]),
        (&json!("out.json"), &json!("batch_output"))
    );
    // And it is none of OpenAI's.
    assert_eq!(it.server.get("/v1/batches").await.json()["data"], json!([]));
}

#[tokio::test]
async fn prompts_of_a_file_do_as_well() {
    let it = Storing::start(&echoing().await, "").await;
    let file = it.upload("in.json", &prompts(&["a"]).to_string()).await;
    for route in [V1, V2] {
        let created = it.post(route, &asked(json!({ "input_data_path": file }))).await;
        let job = ended(&it, &created.json()["job_id"]).await;
        assert_eq!(job["input_data_path"], json!(file));
        assert_eq!(output(&it, &job).await[0]["text"], "to a");
    }
}

#[tokio::test]
async fn requests_of_version_2_become_a_list_of_its_answers() {
    let it = Storing::start(&echoing().await, "").await;
    let content = json!([
        { "model": null, "prompt": "a", "max_tokens": 4, "stream": false },
        { "messages": [{ "role": "user", "content": "hi" }], "stream": true },
        { "prompt": "b", "temperature": 7 },
    ]);
    let more =
        json!({ "content": content, "labels": { "team": "x" }, "priority": "high", "max_runtime_sec": 60 });
    let created = it.post(V2, &asked(more)).await.json();
    assert_eq!(created["status"], "queued");
    assert_eq!(
        (&created["priority"], &created["metadata"]["team"]),
        (&json!("high"), &json!("x"))
    );
    assert_eq!(created["model_config"]["model"], "m");
    let job = ended(&it, &created["job_id"]).await;
    assert_eq!(job["status"], "completed");
    assert_eq!(
        (&job["metadata"]["completed"], &job["metadata"]["failed"]),
        (&json!("2"), &json!("1"))
    );
    let list = output(&it, &job).await;
    assert_eq!(list[0]["choices"][0]["text"], "to a");
    assert_eq!(list[1]["choices"][0]["message"]["content"], "to chat");
    assert_eq!(
        (&list[2]["error"]["status"], &list[2]["error"]["code"]),
        (&json!(422), &json!("invalid_request"))
    );
}

#[tokio::test]
async fn a_row_without_an_answer_keeps_its_place_in_the_list() {
    let refusing = Upstream::answering(|exchange| {
        if exchange.body["prompt"] == "bad" {
            exchange.answer(
                400,
                &[],
                json!({ "error": { "message": "too long", "code": "context_length_exceeded" } }),
            );
        } else {
            exchange.answer_words(3, &["x"]);
        }
    });
    let it = Storing::start(&refusing.await, "").await;
    let created = it
        .post(V1, &asked(json!({ "content": prompts(&["a", "bad", "b"]) })))
        .await;
    let job = ended(&it, &created.json()["job_id"]).await;
    let list = output(&it, &job).await;
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert_eq!((&list[0]["text"], &list[2]["text"]), (&json!("x"), &json!("x")));
    assert_eq!(
        (&list[1]["text"], &list[1]["error"]["code"]),
        (&json!(""), &json!("context_length_exceeded"))
    );
}

#[tokio::test]
async fn what_can_t_be_a_batch_is_said_at_once() {
    let it = Storing::start(&quick().await, "[batches]\nrows = 2\n").await;
    let broken = it.upload("f", "[{\"prompts\": 1}").await;
    let wrong = it
        .upload("f", r#"{"prompts": [1], "max_new_tokens": 3, "temperature": 0}"#)
        .await;
    let content = |more: Value| {
        let mut content = prompts(&["a"]);
        content
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "content": content })
    };
    for (more, status, said) in [
        (
            json!({ "input_data_path": "s3://bucket/in.json" }),
            400,
            "no file of yours",
        ),
        (json!({ "input_data_path": broken }), 400, "it is no JSON"),
        (
            json!({ "input_data_path": wrong }),
            400,
            "prompts.0: Input should be a valid string",
        ),
        (json!({}), 400, "There are no rows"),
        (
            json!({ "content": prompts(&["a", "b", "c"]) }),
            400,
            "a batch may have up to 2",
        ),
        (
            json!({ "content": prompts(&["a"]), "output_data_path": "s3://bucket/out.json" }),
            400,
            "name of up to",
        ),
        (
            json!({ "content": prompts(&["a"]), "tool_config": { "name": "x" } }),
            400,
            "no tools",
        ),
        (
            json!({ "content": prompts(&["a"]), "model_config": { "model": "nobody" } }),
            404,
            "could not be found",
        ),
        (
            content(json!({ "max_new_tokens": 0 })),
            400,
            "max_new_tokens must be at least 1.",
        ),
        (content(json!({ "top_k": 5 })), 400, "top_k and top_p"),
    ] {
        let answer = it.post(V1, &asked(more.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{more}: {}", answer.body);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(said), "{more}: {detail}");
    }
    let answer = it
        .post(V1, &asked(content(json!({ "temperature": 2, "prompts": "a" }))))
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let problems = answer.json()["detail"].clone();
    let locs: Vec<&Value> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| &problem["loc"])
        .collect();
    assert_eq!(
        locs,
        [
            &json!(["body", "content", "prompts"]),
            &json!(["body", "content", "temperature"])
        ]
    );
    let answer = it.post(V2, &json!({ "data_parallelism": 65 })).await;
    let problems = answer.json()["detail"].clone();
    let fields: Vec<&Value> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| &problem["loc"][1])
        .collect();
    assert_eq!(fields, ["output_data_path", "data_parallelism", "model_config"]);
}

#[tokio::test]
async fn version_2_takes_a_batch_without_rows_and_says_that_it_has_failed() {
    let it = Storing::start(&quick().await, "").await;
    let job = it.post(V2, &asked(json!({}))).await;
    assert_eq!(
        (job.status, &job.json()["status"]),
        (StatusCode::OK, &json!("failed"))
    );
    assert!(
        job.json()["metadata"]["error"]
            .as_str()
            .unwrap()
            .contains("There are no rows")
    );
}

#[tokio::test]
async fn cancelled_it_says_so_and_has_what_was_done() {
    let mut upstream = Upstream::start().await;
    let it = Storing::start(upstream.url(), "concurrency = 1").await;
    let created = it
        .post(V1, &asked(json!({ "content": prompts(&["a", "b"]) })))
        .await;
    let id = created.json()["job_id"].clone();
    let running = upstream.next().await;
    let target = format!("{V2}/{}/actions/cancel", id.as_str().unwrap());
    assert_eq!(
        it.post(&target, &json!({})).await.json(),
        json!({ "success": true })
    );
    running.answer_words(3, &["x"]);
    let job = ended(&it, &id).await;
    assert_eq!(job["status"], "cancelled");
    let list = output(&it, &job).await;
    assert_eq!(
        (&list[0]["text"], &list[1]["error"]["code"]),
        (&json!("x"), &json!("batch_cancelled"))
    );
    assert_eq!(
        it.post(&target, &json!({})).await.json(),
        json!({ "success": false })
    );
    let unknown = it.post(&format!("{V2}/none/actions/cancel"), &json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn one_whose_caller_is_gone_fails() {
    let upstream = quick().await;
    let slow = Upstream::start().await;
    let it = Storing::start(slow.url(), "").await;
    let created = it
        .post(V1, &asked(json!({ "content": prompts(&["a"]) })))
        .await
        .json();
    let Storing { server, folder } = it;
    server.shut_down();
    drop(slow);
    server.ended().await;
    // Another caller has the name and the key of nobody.
    let state = format!("state_folder = '{}'\n", folder.path().display());
    let text = state + &config(&upstream, "").replace("[callers.k]", "[callers.k2]");
    let server = Server::with_config(&text).await;
    let target = format!("{V2}/{}", created["job_id"].as_str().unwrap());
    let gone = Answer::read(
        server
            .send("GET", &target, &[("authorization", "Bearer k")], None)
            .await,
    )
    .await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "it is another's");
    let counted = async || {
        let name = "llm_engine_batches_total{status=\"failed\"}";
        metric(&server, name).await
    };
    while counted().await.as_deref() != Some("1") {}
}

#[tokio::test]
async fn one_that_is_cancelled_before_it_began_has_no_output() {
    let mut upstream = Upstream::start().await;
    let it = Storing::start(upstream.url(), "[batches]\nrunning_per_caller = 1\n").await;
    let body = asked(json!({ "content": prompts(&["a"]) }));
    let first = it.post(V1, &body).await.json();
    let running = upstream.next().await;
    let second = it.post(V1, &body).await.json()["job_id"].clone();
    let target = format!("{V2}/{}", second.as_str().unwrap());
    assert_eq!(it.server.get(&target).await.json()["job"]["status"], "queued");
    it.post(&format!("{target}/actions/cancel"), &json!({})).await;
    let job = ended(&it, &second).await;
    let metadata = &job["metadata"];
    assert_eq!(
        (&job["status"], &metadata["total"], &metadata["output_file_id"]),
        (&json!("cancelled"), &json!("1"), &Value::Null)
    );
    running.answer_words(3, &["x"]);
    assert_eq!(ended(&it, &first["job_id"]).await["status"], "completed");
}
