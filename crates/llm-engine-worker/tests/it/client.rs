//! HTTP over a Unix socket, one connection per request.

use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use llm_engine_wire::openai::{Chunk, ChunkChoice, DONE, Usage};
use llm_engine_wire::sse::Decoder;
use llm_engine_wire::worker::REQUEST_ID_HEADER;
use serde_json::{Value, json};
use tokio::net::UnixStream;

#[derive(Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Sends a request; the answer's body is still to be read.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        id: Option<&str>,
        body: Vec<u8>,
    ) -> Response<Incoming> {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        // Ends with the connection, which ends when the sender and the body are dropped.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "worker");
        if let Some(id) = id {
            request = request.header(REQUEST_ID_HEADER, id);
        }
        sender
            .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.send("POST", path, None, body.to_string().into_bytes()).await).await
    }

    /// The answer to a chat of one question.
    pub(crate) async fn ask(&self, mut fields: Value, question: &str) -> Value {
        fields["messages"] = json!([{"role": "user", "content": question}]);
        fields["model"] = json!(crate::running::MODEL);
        let (status, answer) = self.post("/v1/chat/completions", &fields).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Starts a stream.
    pub(crate) async fn stream(&self, path: &str, id: Option<&str>, mut fields: Value) -> EventStream {
        fields["model"] = json!(crate::running::MODEL);
        fields["stream"] = json!(true);
        let response = self.send("POST", path, id, fields.to_string().into_bytes()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        EventStream {
            body: response.into_body(),
            decoder: Decoder::default(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.send("GET", path, None, Vec::new()).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) async fn cancel(&self, id: &str) -> Option<Usage> {
        let (status, body) = self.post("/cancel", &json!({"request_id": id})).await;
        (status == StatusCode::OK).then(|| serde_json::from_value(body["usage"].clone()).unwrap())
    }
}

async fn read(response: Response<Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

/// The events of a streamed answer.
pub(crate) struct EventStream {
    body: Incoming,
    decoder: Decoder,
}

impl EventStream {
    /// The next event's data; `None` when the body has ended.
    pub(crate) async fn next_data(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.decoder.next_event().unwrap() {
                return Some(String::from_utf8(data).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.decoder.push(frame.data_ref().unwrap());
        }
    }

    pub(crate) async fn next_chunk(&mut self) -> Chunk {
        serde_json::from_str(&self.next_data().await.unwrap()).unwrap()
    }

    /// All chunks up to `[DONE]`.
    pub(crate) async fn chunks(&mut self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        loop {
            let data = self.next_data().await.expect("[DONE] comes before the end");
            if data == DONE {
                assert_eq!(self.next_data().await, None);
                return chunks;
            }
            chunks.push(serde_json::from_str(&data).unwrap());
        }
    }
}

/// The text of a stream's chunks.
pub(crate) fn text(chunks: &[Chunk]) -> String {
    chunks
        .iter()
        .flat_map(|chunk| &chunk.choices)
        .map(ChunkChoice::added_text)
        .collect()
}
