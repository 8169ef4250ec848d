use std::sync::mpsc;

/// Keeps tokio's clock frozen until it is dropped.
#[derive(Debug)]
pub struct Frozen {
    _thawed_by_drop: mpsc::Sender<()>,
}

/// Stops tokio's clock; from here on only `tokio::time::advance` moves it. Needs a current-thread runtime.
///
/// A paused tokio clock jumps to the next timer whenever no task can run, also while a socket is waited for, so every
/// time-out would fire during the first request. It does not jump while a blocking task is running, and that is what
/// keeps it still here.
#[must_use]
pub fn freeze() -> Frozen {
    let (sender, receiver) = mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || {
        // Returns when the sender is dropped.
        let _ = receiver.recv();
    });
    tokio::time::pause();
    Frozen {
        _thawed_by_drop: sender,
    }
}
