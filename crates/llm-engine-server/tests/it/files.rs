use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::stay_frozen;
use serde_json::{Value, json};
use tokio::time::advance;

use crate::harness::{Answer, Server, quick};
use crate::storing::{Storing, send_form, server_in, upload_as};

#[tokio::test]
async fn one_file_for_the_clients_of_both_dialects() {
    let it = Storing::start(&quick().await, "").await;
    let fields = [
        ("purpose", "batch"),
        ("expires_after[anchor]", "created_at"),
        ("expires_after[seconds]", "3600"),
    ];
    let uploaded = upload_as(&it.server, "k", &fields, ("a/rows.jsonl", "{}\nx"))
        .await
        .json();
    let id = uploaded["id"].as_str().unwrap();
    assert!(id.starts_with("file-"));
    let created = uploaded["created_at"].as_i64().unwrap();
    assert_eq!(
        uploaded,
        json!({
            "id": id, "object": "file", "bytes": 4, "size": 4, "created_at": created, "expires_at": created + 3600,
            "filename": "rows.jsonl", "purpose": "batch", "status": "processed",
        })
    );
    assert_eq!(it.server.get(&format!("/v1/files/{id}")).await.json(), uploaded);
    let list = it.server.get("/v1/files").await.json();
    assert_eq!(
        list,
        json!({
            "object": "list", "data": [uploaded], "files": [{ "id": id, "filename": "rows.jsonl", "size": 4 }],
            "first_id": id, "last_id": id, "has_more": false,
        })
    );
    let target = format!("/v1/files/{id}");
    let headers = [("authorization", "Bearer k")];
    let deleted = Answer::read(it.server.send("DELETE", &target, &headers, None).await).await;
    assert_eq!(
        deleted.json(),
        json!({ "id": id, "object": "file", "deleted": true })
    );
    let gone = it.server.get(&target).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(gone.json()["detail"], "The specified file could not be found.");
    assert_eq!(gone.json()["error"]["code"], "file_not_found");
}

#[tokio::test]
async fn content_is_json_for_llm_engine_s_clients_and_bytes_for_everybody_else() {
    let it = Storing::start(&quick().await, "").await;
    let text = "a \"quoted\" line\n€".repeat(40_000);
    let id = it.upload("f", &text).await;
    let target = format!("/v1/files/{id}/content");
    let ask = async |headers: &[(&str, &str)]| {
        let headers = [&[("authorization", "Bearer k")], headers].concat();
        Answer::read(it.server.send("GET", &target, &headers, None).await).await
    };
    for llm_engine_s in [("x-api-key", "k"), ("accept", "application/json")] {
        let answer = ask(&[llm_engine_s]).await;
        assert_eq!(answer.json(), json!({ "id": id, "content": text }));
    }
    for other in [("accept", "*/*"), ("accept", "application/binary")] {
        let answer = ask(&[other]).await;
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(
            answer.header("content-length"),
            Some(text.len().to_string().as_str())
        );
        assert_eq!(answer.body, text);
    }
    let openai_s = ask(&[("accept", "application/json"), ("x-stainless-lang", "python")]).await;
    assert_eq!(openai_s.body, text);
}

#[tokio::test]
async fn another_caller_s_files_are_as_if_they_were_not_there() {
    let it = Storing::start(&quick().await, "").await;
    let id = it.upload("f", "x").await;
    for target in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
        assert_eq!(
            it.server.get_as("other", &target).await.status,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(
        it.server.get_as("other", "/v1/files").await.json()["data"],
        json!([])
    );
    let headers = [("authorization", "Bearer other")];
    let target = format!("/v1/files/{id}");
    let deleted = Answer::read(it.server.send("DELETE", &target, &headers, None).await).await;
    assert_eq!(deleted.status, StatusCode::NOT_FOUND);
    assert_eq!(it.content(&id).await, "x");
    let asked = json!({ "input_file_id": id, "endpoint": "/v1/completions", "completion_window": "24h" });
    let batch = Answer::read(it.server.post_as("other", "/v1/batches", &asked).await).await;
    assert_eq!(
        (batch.status, &batch.json()["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("input_file_id"))
    );
}

#[tokio::test]
async fn lists_come_in_pages_in_either_order_and_by_purpose() {
    let it = Storing::start(&quick().await, "").await;
    let mut ids: Vec<Value> = Vec::new();
    for (purpose, name) in [("batch", "a"), ("user_data", "b"), ("batch", "c")] {
        let answer = upload_as(&it.server, "k", &[("purpose", purpose)], (name, "")).await;
        ids.push(answer.json()["id"].clone());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let list = async |query: &str| {
        let page = it.server.get(&format!("/v1/files?{query}")).await.json();
        let data = page["data"].as_array().unwrap();
        let found: Vec<Value> = data.iter().map(|file| file["id"].clone()).collect();
        (found, page["has_more"] == true)
    };
    let [a, b, c] = [0, 1, 2].map(|place| ids[place].clone());
    assert_eq!(list("").await, (ids.clone(), false));
    assert_eq!(
        list("order=desc&limit=2").await,
        (vec![c.clone(), b.clone()], true)
    );
    assert_eq!(
        list(&format!("after={}&limit=1", a.as_str().unwrap())).await,
        (vec![b.clone()], true)
    );
    assert_eq!(list("purpose=batch").await, (vec![a, c], false));
    assert_eq!(list("after=file-none").await, (vec![], false));
    for wrong in ["limit=0", "limit=x", "limit=10001", "order=up"] {
        assert_eq!(
            it.server.get(&format!("/v1/files?{wrong}")).await.status,
            StatusCode::BAD_REQUEST,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_form_that_is_none_is_told_what_is_wrong() {
    let it = Storing::start(&quick().await, "").await;
    let part = |name: &str, more: &str| {
        format!("--the-boundary\r\ncontent-disposition: form-data; name=\"{name}\"{more}\r\n\r\nx\r\n")
    };
    let file = part("file", "; filename=\"f\"");
    for (form, said) in [
        (part("purpose", ""), "purpose must be one of assistants, batch"),
        (part("other", ""), "there is no field 'file'"),
        (format!("{file}{file}"), "more than one 'file'"),
        (part("expires_after[seconds]", ""), "from 3600 to 2592000"),
        (part("expires_after[anchor]", ""), "must be created_at"),
    ] {
        let answer = send_form(&it.server, "k", &(form + "--the-boundary--\r\n")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(said), "{detail}");
    }
    let cut = send_form(&it.server, "k", &file).await;
    assert_eq!(cut.status, StatusCode::BAD_REQUEST, "its end is missing");
    let headers = [
        ("authorization", "Bearer k"),
        ("content-type", "application/json"),
    ];
    let json = Answer::read(it.server.send("POST", "/v1/files", &headers, Some("{}")).await).await;
    assert!(
        json.json()["detail"]
            .as_str()
            .unwrap()
            .contains("multipart/form-data")
    );
    assert_eq!(
        upload_as(&it.server, "nobody", &[], ("f", "x")).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(it.server.get("/v1/files").await.json()["data"], json!([]));
}

#[tokio::test]
async fn what_is_too_much_is_refused_and_another_s_room_is_another_s() {
    let bounds = "[files]\nfile_bytes = 10\nbytes_per_caller = 16\nfiles_per_caller = 2\n";
    let it = Storing::start(&quick().await, bounds).await;
    let put = async |key: &str, content: &str| {
        let answer = upload_as(&it.server, key, &[], ("f", content)).await;
        let code = answer.json()["error"]["code"].clone();
        (
            answer.status.as_u16(),
            code,
            answer.header("x-should-retry").map(str::to_owned),
        )
    };
    let no = Some("false".to_owned());
    let refused = |code: &str| (413, json!(code), no.clone());
    let kept = (200, Value::Null, None);
    assert_eq!(put("k", "eleven byte").await, refused("file_too_large"));
    assert_eq!(put("k", "ten bytes!").await, kept);
    assert_eq!(put("k", "seven b").await, refused("storage_full"));
    assert_eq!(put("other", "ten bytes!").await, kept);
    assert_eq!(put("k", "six by").await, kept);
    assert_eq!(put("k", "").await, refused("storage_full"));
}

#[tokio::test(start_paused = true)]
async fn files_go_when_their_time_is_over() {
    let _frozen = stay_frozen();
    let it = Storing::start(&quick().await, "[files]\nkeep = '2h'\n").await;
    let id = it.upload("f", "x").await;
    advance(Duration::from_secs(7199)).await;
    assert_eq!(it.content(&id).await, "x");
    advance(Duration::from_secs(1)).await;
    assert_eq!(
        it.server.get(&format!("/v1/files/{id}")).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(it.server.get("/v1/files").await.json()["data"], json!([]));
}

#[tokio::test]
async fn files_are_there_after_a_restart() {
    let upstream = quick().await;
    let Storing { server, folder } = Storing::start(&upstream, "").await;
    let uploaded = upload_as(&server, "k", &[], ("f", "x")).await.json();
    server.shut_down();
    server.ended().await;
    let server = server_in(&folder, &upstream, "").await;
    assert_eq!(server.get("/v1/files").await.json()["data"], json!([uploaded]));
}

#[tokio::test]
async fn without_a_folder_it_is_said_what_to_do() {
    let server = Server::start(&quick().await, "").await;
    for target in [
        "/v1/files",
        "/v1/files/f",
        "/v1/files/f/content",
        "/v1/batches",
        "/v1/batches/b",
        "/v2/batch-completions/b",
    ] {
        let answer = server.get(target).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{target}");
        assert!(
            answer.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("state_folder")
        );
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert_eq!(
            server.get_as("nobody", target).await.status,
            StatusCode::UNAUTHORIZED,
            "{target}"
        );
    }
}
