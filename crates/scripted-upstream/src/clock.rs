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
    let frozen = stay_frozen();
    tokio::time::pause();
    frozen
}

/// Keeps tokio's clock still where it has been paused from the start, by `#[tokio::test(start_paused = true)]`.
///
/// There a timer of whole milliseconds fires exactly at its time. After [`freeze`] it may need up to a millisecond more:
/// timers count whole milliseconds since the runtime began, and the clock has stopped somewhere between two of them.
#[must_use]
pub fn stay_frozen() -> Frozen {
    let (sender, receiver) = mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || {
        // Returns when the sender is dropped.
        let _ = receiver.recv();
    });
    Frozen {
        _thawed_by_drop: sender,
    }
}
