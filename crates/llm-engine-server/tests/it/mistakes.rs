//! What a configuration with mistakes is told: where each is, and what was meant.

use std::path::Path;

use llm_engine_server::config::Config;

fn told(text: &str) -> Vec<String> {
    let error = Config::parse(text, Path::new("engine.toml")).unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

const MODEL: &str = "[models.m]\ngguf = 'm.gguf'\n";

#[test]
fn the_name_that_was_meant_is_told() {
    assert_eq!(
        told("lisen = 'x'"),
        ["engine.toml:1:1: unknown field `lisen`; did you mean `listen`?"]
    );
    assert_eq!(
        told(&format!(
            "{MODEL}[[policies]]\nname = 'p'\nconcurrency = 1\nmode = 'obsrve'"
        )),
        ["engine.toml:6:8: unknown variant `obsrve`; did you mean `observe`?"]
    );
    let research = "[callers.a]\nteam = 'research'\napi_key_sha256 = \
                    '8254c329a92850f6d539dd376f4816ee2764517da5e0235514af433164480d7a'\n";
    let policy = "[[policies]]\nname = 'p'\nconcurrency = 1\nmatch = { team = 'reserch' }";
    assert_eq!(
        told(&format!("{MODEL}{research}{policy}")),
        ["engine.toml:9:18: there is no team 'reserch'; did you mean 'research'?"]
    );
}

#[test]
fn a_place_counts_characters_not_bytes() {
    let text =
        format!("{MODEL}[[policies]]\nname = 'p'\nrequests = {{ limit = 1, window = '1m', bürst = 1 }}");
    assert!(told(&text)[0].starts_with("engine.toml:5:"), "{:?}", told(&text));
    let text = "[models.'ä']\ngguf = 'm'\naliases = ['ö', 'ä']";
    assert_eq!(told(text), ["engine.toml:3:17: two models have the name 'ä'"]);
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_file() {
    let text = "listen = 'nowhere'\n[models.m]\nqueue_wait = 'soon'\ngguf = 'm.gguf'\n[callers.a]\nteam = 't'\n\
                [callers.b]\napi_key_env = 'LLM_ENGINE_UNSET'\n[replay]\nkeep = '2 days'\n";
    let places: Vec<String> = told(text)
        .iter()
        .map(|mistake| mistake.split(':').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(places, ["1", "3", "5", "8", "10"], "{:?}", told(text));
    let policies = "[[policies]]\nname = 'a'\nconcurrency = 1\nhold = '1h'\n[[policies]]\nname = 'b'\n";
    assert_eq!(told(&format!("{MODEL}{policies}")).len(), 2);
}

#[test]
fn what_refers_to_a_model_with_a_mistake_is_not_called_a_second_one() {
    let text = "[models.m]\n[[policies]]\nname = 'p'\nconcurrency = 1\nmatch = { model = 'm' }\n";
    let [only] = told(text).try_into().unwrap();
    assert!(
        only.starts_with("engine.toml:1:9: model 'm' needs either gguf"),
        "{only}"
    );
}
