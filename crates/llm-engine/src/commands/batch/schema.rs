use std::path::Path;

use llm_engine_client::batch::CheckText;
use serde_json::Value;

use super::{read_json, usage};

/// Says of an answer's text whether it is JSON of this schema.
pub(super) fn check(path: &Path) -> anyhow::Result<Box<CheckText>> {
    let schema = read_json(path)?;
    let validator = jsonschema::validator_for(&schema)
        .map_err(|error| usage(format!("{}: it is no JSON schema: {error}", path.display())))?;
    Ok(Box::new(move |text| {
        let value: Value = serde_json::from_str(text.trim())
            .map_err(|error| format!("the answer is not the JSON that was asked for: {error}"))?;
        validator.validate(&value).map_err(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "/" } else { &place };
            format!("the answer does not fit the schema at {place}: {error}")
        })
    }))
}
