use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::time::Instant;

use super::*;
use crate::ProxySetup;
use crate::metrics::Metrics;

/// What makes spans that go to this collector, what sends them, and what is counted of them.
fn sending_to(endpoint: &str) -> (SdkTracer, Sending, SpanCounts) {
    let proxies = Arc::new(Proxies::new(&ProxySetup::default()).expect("no proxies"));
    let resource = Resource::builder_empty().build();
    let counts = Metrics::default().spans();
    let collector = (Some(endpoint.to_owned()), HeaderMap::new());
    let (outbox, sending) = outbox(collector, &proxies, &resource, counts.clone()).expect("an outbox");
    let provider = SdkTracerProvider::builder().with_span_processor(outbox).build();
    (provider.tracer("t"), sending, counts)
}

/// Where nobody listens.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("http://{}", listener.local_addr().expect("its address"))
}

#[tokio::test]
async fn what_has_no_room_is_lost_at_once_and_the_rest_when_nobody_takes_it() {
    let (tracer, sending, counts) = sending_to(&nowhere());
    for _ in 0..ROOM + 3 {
        tracer.start("s").end();
    }
    assert_eq!(counts.lost.get(), 3);
    let stop = CancellationToken::new();
    stop.cancel();
    sending.until(stop).await;
    assert_eq!((counts.sent.get(), counts.lost.get()), (0, ROOM as u64 + 3));
}

#[tokio::test(start_paused = true)]
async fn a_whole_batch_is_sent_before_its_time() {
    let (tracer, sending, counts) = sending_to(&nowhere());
    let stop = CancellationToken::new();
    let task = tokio::spawn(sending.until(stop.clone()));
    let begun = Instant::now();
    for _ in 0..BATCH {
        tracer.start("s").end();
    }
    while counts.lost.get() < BATCH as u64 {
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() < GATHER);
    stop.cancel();
    task.await.expect("it ends");
}
