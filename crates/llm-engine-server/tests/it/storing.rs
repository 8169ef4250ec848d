//! A server that keeps files and batches, for the tests of both.

use hyper::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, Server, config};

const BOUNDARY: &str = "the-boundary";

/// A server with its folder.
pub(crate) struct Storing {
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
}

impl Storing {
    pub(crate) async fn start(upstream: &str, more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let server = server_in(&folder, upstream, more).await;
        Self { server, folder }
    }

    /// Uploads a file as caller `k`; returns its id.
    pub(crate) async fn upload(&self, name: &str, content: &str) -> String {
        let answer = upload_as(&self.server, "k", &[], (name, content)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(&self, target: &str, body: &Value) -> Answer {
        Answer::read(self.server.post(target, body).await).await
    }

    pub(crate) async fn content(&self, id: &str) -> String {
        let answer = self.server.get(&format!("/v1/files/{id}/content")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.body
    }

    /// The lines of a file.
    pub(crate) async fn lines(&self, id: &Value) -> Vec<Value> {
        let content = self.content(id.as_str().unwrap()).await;
        content
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Uploads lines and has them answered; returns the batch as it is made.
    pub(crate) async fn begin(&self, endpoint: &str, lines: &str) -> Value {
        let id = self.upload("rows.jsonl", lines).await;
        let asked = json!({ "input_file_id": id, "endpoint": endpoint, "completion_window": "24h" });
        let answer = self.post("/v1/batches", &asked).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer.json()
    }

    /// Looks at it until it is so.
    pub(crate) async fn until(&self, target: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&self.server, target, is_so).await
    }

    /// The batch, once it has ended.
    pub(crate) async fn ended(&self, batch: &Value) -> Value {
        let target = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        self.until(&target, |batch| {
            let status = batch["status"].as_str().unwrap();
            ["completed", "failed", "expired", "cancelled"].contains(&status)
        })
        .await
    }
}

/// On the same folder, after another has ended.
pub(crate) async fn server_in(folder: &TempDir, upstream: &str, more: &str) -> Server {
    let state = format!("state_folder = '{}'\n", folder.path().display());
    Server::with_config(&(state + &config(upstream, more))).await
}

/// Asks until it is so.
pub(crate) async fn until(server: &Server, target: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let answer = server.get(target).await.json();
        if is_so(&answer) {
            return answer;
        }
    }
}

/// Uploads a file with these fields before it.
pub(crate) async fn upload_as(
    server: &Server,
    key: &str,
    fields: &[(&str, &str)],
    (name, content): (&str, &str),
) -> Answer {
    let mut form = String::new();
    for (field, value) in fields {
        form +=
            &format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
    }
    form += &format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n\
         --{BOUNDARY}--\r\n"
    );
    send_form(server, key, &form).await
}

pub(crate) async fn send_form(server: &Server, key: &str, form: &str) -> Answer {
    let authorization = format!("Bearer {key}");
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", content_type.as_str()),
    ];
    Answer::read(server.send("POST", "/v1/files", &headers, Some(form)).await).await
}

/// A line of OpenAI's for a completion.
pub(crate) fn line(id: &str, prompt: &str) -> String {
    let body = json!({ "model": "m", "prompt": prompt, "max_tokens": 5 });
    json!({ "custom_id": id, "method": "POST", "url": "/v1/completions", "body": body }).to_string() + "\n"
}
