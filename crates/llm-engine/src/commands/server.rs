//! Asking a server.

use llm_engine_client::{Client, Error};

use super::Usage;

/// A client of the server at this address.
pub(super) fn client(url: &str, key: &str) -> anyhow::Result<Client> {
    Client::new(url, key).map_err(|error| Usage(format!("--url or --key: {error}")).into())
}

/// Why there is no answer, in the server's own words if there are any.
pub(super) fn failed(error: Error) -> anyhow::Error {
    let Some(status) = error.status() else {
        return error.into();
    };
    let message = without_full_stop(error.message());
    match error.attempts().len() {
        0 | 1 => anyhow::anyhow!("{status} {message}"),
        attempts => anyhow::anyhow!("{status} {message} ({attempts} attempts)"),
    }
}

/// Messages on the command line have none.
pub(super) fn without_full_stop(sentence: &str) -> &str {
    sentence.trim_end_matches('.')
}

pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}
