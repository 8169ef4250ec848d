use std::path::Path;

use llm_engine_server::config::Config;

/// The message for a configuration that is wrong.
fn message(text: &str) -> String {
    Config::parse(text, Path::new("llm-engine.toml"))
        .unwrap_err()
        .to_string()
}

const MODEL: &str = "[models.m]\ngguf = 'm.gguf'\n";

#[test]
fn the_built_in_configuration_is_valid_and_serves_loopback_only() {
    let config = Config::built_in().unwrap();
    assert!(config.listen.ip().is_loopback());
    assert!(config.development_key);
    assert_eq!(config.models[0].aliases, ["llama-7b"]);
}

#[test]
fn the_commented_example_is_valid() {
    let text = include_str!("../../../../examples/llm-engine.toml");
    let config = Config::parse(text, Path::new("examples/llm-engine.toml")).unwrap();
    assert_eq!(
        (config.models.len(), config.callers.len(), config.policies.len()),
        (2, 2, 2)
    );
}

#[test]
fn an_empty_file_is_the_built_in_model_without_limits() {
    let config = Config::parse("", Path::new("x")).unwrap();
    assert_eq!(config.models[0].name, "smollm2-135m");
    assert!(config.policies.is_empty());
}

#[test]
fn each_mistake_is_told_with_its_line() {
    let policy = |lines: &str| message(&format!("{MODEL}[[policies]]\nname = 'p'\n{lines}"));
    for (found, expected) in [
        (message("lisen = 'x'"), "llm-engine.toml:1: unknown field `lisen`"),
        (
            message("[models.m]\n"),
            "llm-engine.toml:1: model 'm' needs either gguf",
        ),
        (
            message(&format!("{MODEL}context_tokns = 5")),
            "llm-engine.toml:3: unknown field `context_tokns`",
        ),
        (
            message(&format!("{MODEL}sha256 = 'abc'")),
            "llm-engine.toml:3: sha256 must be 64 hexadecimal digits",
        ),
        (
            message(&format!("{MODEL}[models.n]\ngguf = 'n'\naliases = ['m']")),
            "two models have the name 'm'",
        ),
        (
            message(&format!("{MODEL}queue_wait = 'soon'")),
            "llm-engine.toml:3: queue_wait is 'soon'; it must be a duration",
        ),
        (policy(""), "llm-engine.toml:4: policy 'p' limits nothing"),
        (
            policy("requests = { limit = 0, window = '1m' }"),
            "llm-engine.toml:5: requests: the limit is 0",
        ),
        (
            policy("requests = { limit = 5, window = '1 parsec' }"),
            "llm-engine.toml:5: window is '1 parsec'",
        ),
        (
            policy("tokens = { limit = 5, window = '1m', strict = true }"),
            "llm-engine.toml:5: tokens: strict = true needs",
        ),
        (
            policy("concurrency = 1\nper = ['planet']"),
            "llm-engine.toml:6: unknown variant `planet`",
        ),
        (
            policy("concurrency = 1\nmatch = { caller = 'bob' }"),
            "llm-engine.toml:6: there is no caller 'bob'",
        ),
        (
            message(&format!("{MODEL}[callers.a]\nteam = 't'")),
            "llm-engine.toml:3: caller 'a' needs exactly one of",
        ),
        (
            message(&format!("{MODEL}[callers.a]\napi_key_env = 'LLM_ENGINE_UNSET'")),
            "LLM_ENGINE_UNSET is not set",
        ),
        (
            message("listen = '0.0.0.0:5000'"),
            "llm-engine.toml:1: listen is '0.0.0.0:5000', which others can reach",
        ),
        (
            message("listen = 'nowhere'"),
            "llm-engine.toml:1: listen is 'nowhere'",
        ),
        (
            message("[models.m]\ndeployments = []"),
            "llm-engine.toml:2: a model has exactly one deployment",
        ),
        (
            message("[models.m]\ndeployments = [{ url = 'ftp://x', model = 'y' }]"),
            "it must begin with http://",
        ),
    ] {
        assert!(found.contains(expected), "{found}\n  does not say\n{expected}");
    }
}

#[test]
fn a_limit_that_can_not_be_counted_exactly_is_refused_when_it_is_read() {
    let found = message(&format!(
        "{MODEL}[[policies]]\nname = 'p'\ntokens = {{ limit = 999999937, window = '1m' }}"
    ));
    assert!(found.contains("can't be counted exactly"), "{found}");
}

#[test]
fn callers_of_a_team_share_its_number_and_others_are_teams_of_one() {
    let digest = |digit: &str| format!("api_key_sha256 = '{}'", digit.repeat(64));
    let text = format!(
        "{MODEL}[callers.a]\nteam = 't'\n{}\n[callers.b]\nteam = 't'\n{}\n[callers.c]\n{}\n[callers.d]\n{}\n",
        digest("a"),
        digest("b"),
        digest("c"),
        digest("d")
    );
    let teams: Vec<u32> = Config::parse(&text, Path::new("x"))
        .unwrap()
        .callers
        .iter()
        .map(|c| c.team)
        .collect();
    assert_eq!(teams[0], teams[1]);
    assert!(teams[2] != teams[0] && teams[3] != teams[0] && teams[2] != teams[3]);
}
