use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server of bytes, for what no HTTP server would do.
pub(crate) struct RawUpstream(TcpListener);

impl RawUpstream {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.0.local_addr().unwrap())
    }

    /// Takes the next connection and reads a whole request from it.
    pub(crate) async fn next(&self) -> Connection {
        let (stream, _) = self.0.accept().await.unwrap();
        let mut connection = Connection {
            stream,
            seen: String::new(),
        };
        connection.read_request().await;
        connection
    }
}

/// Dropped, it is closed.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The latest request.
    pub(crate) seen: String,
}

impl Connection {
    pub(crate) async fn read_request(&mut self) {
        let mut seen = Vec::new();
        while !is_whole(&String::from_utf8_lossy(&seen)) {
            assert_ne!(
                self.stream.read_buf(&mut seen).await.unwrap(),
                0,
                "the request breaks off"
            );
        }
        self.seen = String::from_utf8(seen).unwrap();
    }

    pub(crate) async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Whether the other side has not closed it, as far as is known.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut rest = [0; 1];
        let read = self.stream.try_read(&mut rest);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Waits until the other side has closed it.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // What has not been read there makes it an error.
        let _ = self.stream.read_to_end(&mut rest).await;
    }

    /// A whole answer of that type.
    pub(crate) async fn answer(&mut self, content_type: &str, body: &str) {
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    }
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() == length.map_or(0, |length| length.parse().unwrap())
}
