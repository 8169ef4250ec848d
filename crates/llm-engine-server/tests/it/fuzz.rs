//! Whatever stands in a configuration: it is taken, or refused by one message that says where.
//!
//! In the normal run some random inputs; `make fuzz` drives the same target by what it reaches.

use std::path::Path;

use fuzz_input::{Input, check};
use llm_engine_server::config::Config;

const FILES: [&str; 3] = [
    include_str!("../../../../examples/llm-engine.toml"),
    "listen = '127.0.0.1:0'\nconnections = 5\n[models.m]\ndeployments = [{ url = 'http://h/v1', model = 'm', timeouts = { connect = '5s', total = '1m' } }]\n",
    "[[policies]]\nname = 'p'\nusd = { limit = 1.5, window = 'calendar-week', time_zone = 'Europe/Berlin' }\ntokens = { limit = 10, window = '1m', burst = 5, strict = true }\n",
];

#[test]
fn configurations() {
    check!(|input: &Input| {
        let text = input.text(&FILES);
        if let Err(error) = Config::parse(&text, Path::new("engine.toml")) {
            let message = error.to_string();
            assert!(message.starts_with("engine.toml"), "{message}");
        }
    });
}
