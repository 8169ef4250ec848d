use std::net::SocketAddr;

use llm_engine_server::config::{Config, DEVELOPMENT_KEY};
use llm_engine_server::policy_words;

/// What the server tells whoever starts it.
pub(super) struct Summary {
    scheme: &'static str,
    key: String,
    models: String,
    limits: Vec<String>,
    /// For the lines to try.
    example_key: &'static str,
    example_model: String,
}

/// The summary of a configuration.
pub(super) fn of(config: &Config) -> Summary {
    let models = config.models.iter().map(|model| match model.aliases.as_slice() {
        [] => model.name.clone(),
        aliases => format!("{} (also as {})", model.name, aliases.join(", ")),
    });
    let key = if config.development_key {
        format!("{DEVELOPMENT_KEY}  (the development key; it works on this machine only)")
    } else {
        let names: Vec<&str> = config.callers.iter().map(|caller| caller.name.as_str()).collect();
        format!("those of {}", names.join(", "))
    };
    Summary {
        scheme: if config.tls.is_some() { "https" } else { "http" },
        key,
        models: models.collect::<Vec<_>>().join("; "),
        limits: config.policies.iter().map(policy_words::line).collect(),
        example_key: if config.development_key {
            DEVELOPMENT_KEY
        } else {
            "YOUR_KEY"
        },
        example_model: config
            .models
            .first()
            .map(|model| model.name.clone())
            .unwrap_or_default(),
    }
}

impl Summary {
    /// The text, once the address is known.
    pub(super) fn at(&self, address: SocketAddr) -> String {
        let Self {
            scheme,
            key,
            models,
            limits,
            example_key,
            example_model,
        } = self;
        let limits = match limits.as_slice() {
            [] => "none are set; 429 comes as needed, when a model is full".to_owned(),
            limits => limits.join("\n          "),
        };
        format!(
            r#"LLM Engine

address   {scheme}://{address}
key       {key}
models    {models}
limits    {limits}

Try it from another terminal:

  curl {scheme}://{address}/v1/chat/completions -H "Authorization: Bearer {example_key}" -H "Content-Type: application/json" -d '{{"model": "{example_model}", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'

  pip install --pre scale-llm-engine && LLM_ENGINE_BASE_PATH={scheme}://{address} SCALE_API_KEY={example_key} python3 -c 'import llmengine; print(llmengine.Completion.create(model="{example_model}", prompt="Why is the sky blue?", max_new_tokens=100, temperature=0.2).output.text)'

  target/release/llm-engine complete --url {scheme}://{address} --key {example_key} --model {example_model} "Why is the sky blue?"
"#
        )
    }
}
