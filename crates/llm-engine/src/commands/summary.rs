use std::net::SocketAddr;

use llm_engine_server::config::{Config, DEVELOPMENT_KEY};
use llm_engine_server::{Match, Per, Policy, Quota, Unit};

/// What the server tells whoever starts it.
pub(super) struct Summary {
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
        key,
        models: models.collect::<Vec<_>>().join("; "),
        limits: config
            .policies
            .iter()
            .map(|policy| describe(policy, config))
            .collect(),
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

address   http://{address}
key       {key}
models    {models}
limits    {limits}

Try it from another terminal:

  curl http://{address}/v1/chat/completions -H "Authorization: Bearer {example_key}" -H "Content-Type: application/json" -d '{{"model": "{example_model}", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}'

  pip install --pre scale-llm-engine && LLM_ENGINE_BASE_PATH=http://{address} SCALE_API_KEY={example_key} python3 -c 'import llmengine; print(llmengine.Completion.create(model="{example_model}", prompt="Why is the sky blue?", max_new_tokens=100, temperature=0.2).output.text)'

  target/release/llm-engine complete --url http://{address} --key {example_key} --model {example_model} "Why is the sky blue?"
"#
        )
    }
}

/// A policy in words: `per-key, counted per key and model: 60 requests per minute (at most 20 at once)`.
fn describe(policy: &Policy, config: &Config) -> String {
    let quotas = policy
        .quotas
        .iter()
        .map(|(unit, quota)| describe_quota(*unit, quota));
    let concurrency = policy
        .concurrency
        .map(|maximum| format!("{maximum} requests at the same time"));
    let limits: Vec<String> = quotas.chain(concurrency).collect();
    format!(
        "{}{}{}: {}",
        policy.name,
        describe_match(policy.matches, config),
        describe_per(policy.per),
        limits.join(", ")
    )
}

fn describe_match(matches: Match, config: &Config) -> String {
    let Match { caller, team, model } = matches;
    let name =
        |index: u32, names: &mut dyn Iterator<Item = &str>| names.nth(index as usize).map(str::to_owned);
    let caller =
        caller.and_then(|id| name(id, &mut config.callers.iter().map(|caller| caller.name.as_str())));
    let model = model.and_then(|id| name(id, &mut config.models.iter().map(|model| model.name.as_str())));
    // Teams are known by number here; the callers that are in it say who is meant.
    let team = team.map(|team| {
        let members = config.callers.iter().filter(|caller| caller.team == team);
        members
            .map(|caller| caller.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    });
    let words = [
        ("of caller", caller),
        ("of the team of", team),
        ("for model", model),
    ];
    words
        .into_iter()
        .filter_map(|(word, name)| Some(format!(" {word} {}", name?)))
        .collect()
}

fn describe_per(per: Per) -> String {
    let Per { caller, team, model } = per;
    let words: Vec<&str> = [(caller, "key"), (team, "team"), (model, "model")]
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, word)| *word)
        .collect();
    if words.is_empty() {
        " for all together".to_owned()
    } else {
        format!(", each {}", words.join(" and "))
    }
}

fn describe_quota(unit: Unit, quota: &Quota) -> String {
    let counted = llm_engine_server::Counted::PerWindow {
        unit,
        window: quota.window(),
    };
    let strict = if quota.is_strict() { ", in any window" } else { "" };
    let burst = if quota.burst() == quota.limit() {
        String::new()
    } else {
        format!(" (at most {} at once{strict})", quota.burst())
    };
    format!("{}{burst}", counted.amount(quota.limit()))
}
