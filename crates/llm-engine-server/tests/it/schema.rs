//! The schema of configurations, for editors.

use std::collections::BTreeSet;
use std::path::Path;

use llm_engine_server::config::Config;
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../../../examples/llm-engine.toml");

fn in_json(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

#[test]
fn the_file_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema/llm-engine.schema.json");
    let file = std::fs::read_to_string(path).unwrap_or_default();
    let expected = format!("{:#}\n", Config::schema());
    assert!(
        file == expected,
        "write it anew: llm-engine check --schema > schema/llm-engine.schema.json"
    );
}

/// The names of all settings.
fn settings(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                found.extend(properties.keys().cloned());
            }
            fields.values().for_each(|value| settings(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| settings(value, found)),
        _ => {}
    }
}

#[test]
fn the_example_has_every_setting_and_names_the_schema() {
    let mut names = BTreeSet::new();
    settings(&Config::schema(), &mut names);
    assert!(names.len() > 40, "{names:?}");
    let words: BTreeSet<&str> = EXAMPLE
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    for name in &names {
        assert!(words.contains(name.as_str()), "{name} is not in the example");
    }
    assert_eq!(
        EXAMPLE.lines().next(),
        Some("#:schema ../schema/llm-engine.schema.json")
    );
}

#[test]
fn the_schema_allows_what_can_be_read_and_little_else() {
    let validator = jsonschema::validator_for(&Config::schema()).unwrap();
    let is_allowed = |text: &str| validator.is_valid(&in_json(text));
    assert!(is_allowed(EXAMPLE));
    assert!(is_allowed(""));
    for wrong in [
        "lisen = 'x'",
        "listen = 5000",
        "[models.m]\nthreads = 0",
        "[models.m]\nprice = { input_usd_per_million = -1 }",
        "[[policies]]\nconcurrency = 1",
        "[[policies]]\nname = 'p'\nmode = 'watch'",
        "[[policies]]\nname = 'p'\nrequests = { limit = 5 }",
        "[[policies]]\nname = 'p'\nper = ['planet']",
    ] {
        assert!(!is_allowed(wrong), "{wrong}");
        assert!(Config::parse(wrong, Path::new("x")).is_err(), "{wrong}");
    }
}
