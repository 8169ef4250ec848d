use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep};

use crate::batch::{Batch, Piece, Place};

/// A request from when it comes until its answer has ended. Dropped before that, its client has hung up, and it is aborted.
#[derive(Debug)]
pub(crate) struct Running {
    batch: Arc<Batch>,
    place: Option<Place>,
    pieces: Option<UnboundedReceiver<Piece>>,
    is_over: bool,
}

impl Running {
    /// Has the engine take a request with so many tokens, which takes a while.
    pub(crate) async fn submit(batch: Arc<Batch>, input: u64, output: u64) -> Self {
        let came = Instant::now();
        let base = batch.arrive();
        let mut running = Self {
            batch,
            place: None,
            pieces: None,
            is_over: false,
        };
        if !base.is_zero() {
            sleep(base).await;
        }
        let (sender, pieces) = unbounded_channel();
        running.pieces = Some(pieces);
        running.place = Some(running.batch.submit(came, input, output, sender));
        running
    }

    /// The next part of the answer.
    pub(crate) async fn next(&mut self) -> Piece {
        let piece = match &mut self.pieces {
            Some(pieces) => pieces.recv().await.unwrap_or(Piece::End),
            None => Piece::End,
        };
        self.is_over = piece == Piece::End;
        piece
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_over {
            self.batch.abort(self.place);
        }
    }
}
