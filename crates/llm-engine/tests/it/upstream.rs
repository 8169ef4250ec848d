use std::sync::mpsc;
use std::thread;

use scripted_upstream::{Exchange, Upstream};

/// A section for model `m` on an OpenAI-compatible server that answers by this function, with a place for everybody who is
/// admitted at once.
///
/// That server has a thread of its own: while a test waits until its own server is ready, its tasks stand still. It ends
/// with the process.
pub(crate) fn deployed_model(answer: impl Fn(Exchange) + Send + 'static) -> String {
    let (sender, url) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            sender.send(Upstream::answering(answer).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let url = url.recv().unwrap();
    format!("[models.m]\ndeployments = [{{ url = '{url}', model = 'upstream' }}]\nconcurrency = 1000\n")
}

/// Answers at once, with one token.
pub(crate) fn answer_at_once(exchange: Exchange) {
    exchange.answer_words(1, &["a"]);
}
