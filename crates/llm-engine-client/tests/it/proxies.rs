use std::env;
use std::process::Stdio;

use llm_engine_client::blocking::Client;
use scripted_upstream::Upstream;
use serde_json::json;
use tokio::process::Command;

/// Tells the test below that it is the other process.
const INSIDE: &str = "LLM_ENGINE_TEST_PROXY";

#[test]
fn the_proxy_variables_are_honoured() {
    if env::var_os(INSIDE).is_some() {
        let client = Client::new("http://llm.example.invalid", "k").unwrap();
        assert_eq!(client.models().unwrap().data[0].id, "through the proxy");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let proxy = Upstream::answering(|exchange| {
            assert_eq!(exchange.headers["host"], "llm.example.invalid");
            let model =
                json!({ "id": "through the proxy", "object": "model", "created": 0, "owned_by": "x" });
            exchange.answer(200, &[], json!({ "object": "list", "data": [model] }));
        })
        .await;
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "proxies::the_proxy_variables_are_honoured"]);
        for name in ["NO_PROXY", "no_proxy", "HTTP_PROXY", "REQUEST_METHOD"] {
            command.env_remove(name);
        }
        command
            .env("http_proxy", proxy.trim_end_matches("/v1"))
            .env(INSIDE, "1");
        let output = command.stdout(Stdio::piped()).output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    });
}
