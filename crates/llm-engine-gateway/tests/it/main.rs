//! What carrying a request promises when things go wrong, tested through the public interface against an upstream that
//! does what each test tells it, over real sockets and in frozen time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod a_day;
mod adaptive;
mod broken_streams;
mod callers;
mod connections;
mod cooling;
mod counting;
mod deployments;
mod dialects;
mod draining;
mod dropping;
mod harness;
mod holding;
mod policies;
mod proxies;
mod queueing;
mod raw_upstream;
mod reloading;
mod supervised;
mod timing;
mod tls;
mod tls_upstream;
mod upstream_errors;
mod visible;
mod whole;
mod worker;
mod worker_harness;
