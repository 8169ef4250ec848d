use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::Server;

/// A whole request of caller `k`.
pub(crate) fn post(target: &str, body: &str) -> String {
    let length = body.len();
    let headers = "host: h\r\nauthorization: Bearer k\r\ncontent-type: application/json";
    format!("POST {target} HTTP/1.1\r\n{headers}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A connection by which any bytes can be said.
pub(crate) struct Raw {
    stream: TcpStream,
    heard: Vec<u8>,
    pub(crate) is_closed: bool,
}

impl Raw {
    pub(crate) async fn open(server: &Server) -> Self {
        Self {
            stream: TcpStream::connect(server.address).await.unwrap(),
            heard: Vec::new(),
            is_closed: false,
        }
    }

    /// Says this, as far as the server lets it.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Hears what the server has to say, without any time passing.
    pub(crate) async fn hear(&mut self, server: &Server) {
        server.settle().await;
        self.hear_now();
    }

    /// Hears what has arrived.
    pub(crate) fn hear_now(&mut self) {
        loop {
            match self.stream.try_read_buf(&mut self.heard) {
                Ok(0) => self.is_closed = true,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.is_closed = true,
            }
            return;
        }
    }

    /// Hears one answer whose end is told by the connection's.
    pub(crate) async fn hear_all(&mut self) {
        let _ = self.stream.read_to_end(&mut self.heard).await;
        self.is_closed = true;
    }

    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }

    /// The status of each answer.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let heard = self.heard();
        let answers = heard.split("HTTP/1.1 ").skip(1);
        answers.map(|answer| answer[..3].parse().unwrap()).collect()
    }
}
