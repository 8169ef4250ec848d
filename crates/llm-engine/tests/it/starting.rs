//! How a server starts, with the model in place.

use crate::server::{Server, Turn, model};

const MOST_SECONDS: f64 = 3.0;

#[tokio::test]
async fn a_second_start_is_ready_within_3_seconds() {
    let turn = Turn::take();
    // The first brings the model file into memory.
    drop(Server::start(&turn, &model("m", "")));
    let server = Server::start(&turn, &model("m", ""));
    let ready = server.summary.last().unwrap();
    println!("{ready}");
    let seconds = ready
        .strip_prefix("ready after ")
        .and_then(|rest| rest.strip_suffix(" s"));
    let seconds: f64 = seconds.unwrap().parse().unwrap();
    assert!(seconds < MOST_SECONDS, "{ready}");
}

#[tokio::test]
async fn the_summary_tells_address_key_models_limits_and_what_to_try() {
    let turn = Turn::take();
    let policy =
        "[[policies]]\nname = 'per-key'\nper = ['key']\nrequests = { limit = 60, window = '1m', burst = 20 }";
    let sections = format!("{}{policy}", model("m", "aliases = ['also-m']"));
    let server = Server::start(&turn, &sections);
    let summary = server.summary.join("\n");
    let address = &server.address;
    for expected in [
        format!("address   {address}"),
        "key       root".to_owned(),
        "models    m (also as also-m)".to_owned(),
        "limits    per-key, each key: 60 requests per minute (at most 20 at once)".to_owned(),
        format!("curl {address}/v1/chat/completions"),
        format!("LLM_ENGINE_BASE_PATH={address}"),
        format!("llm-engine complete --url {address} --key root --model m"),
    ] {
        assert!(summary.contains(&expected), "no '{expected}' in:\n{summary}");
    }
}
