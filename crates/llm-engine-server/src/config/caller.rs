use std::collections::BTreeMap;
use std::path::PathBuf;

use llm_engine_gateway::{ApiKeyDigest, CallerSetup};
use schemars::JsonSchema;
use serde::Deserialize;

use super::DEVELOPMENT_KEY;
use super::error::{Mistake, Mistakes, Source};
use super::spanned::Spanned;

/// A caller, with one of the three ways to give its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Caller")]
pub(super) struct RawCaller {
    /// Whose limits it shares. By default it is a team of its own.
    team: Option<String>,
    /// The environment variable that holds its key.
    api_key_env: Option<Spanned<String>>,
    /// The file that holds its key.
    api_key_file: Option<Spanned<PathBuf>>,
    /// The SHA-256 digest of its key, in hexadecimal.
    api_key_sha256: Option<Spanned<String>>,
    /// Whether it may see what concerns other callers.
    #[serde(default)]
    operator: bool,
    /// Whether it is believed for which end user it asks.
    #[serde(default)]
    trusted_users: bool,
}

/// The callers in the order of their names. Without any there is the development key, which may do everything.
pub(super) fn check_all(
    callers: BTreeMap<Spanned<String>, RawCaller>,
    source: &Source<'_>,
    mistakes: &mut Mistakes,
) -> Vec<CallerSetup> {
    if callers.is_empty() {
        return vec![CallerSetup {
            name: "development".to_owned(),
            team: None,
            api_key: ApiKeyDigest::of(DEVELOPMENT_KEY),
            names_users: true,
            is_operator: true,
        }];
    }
    let mut checked: Vec<CallerSetup> = Vec::with_capacity(callers.len());
    for (name, caller) in callers {
        let caller = check(name, caller, &checked, source);
        checked.extend(mistakes.keep(caller));
    }
    checked
}

fn check(
    name: Spanned<String>,
    caller: RawCaller,
    others: &[CallerSetup],
    source: &Source<'_>,
) -> Result<CallerSetup, Mistake> {
    let api_key = api_key(&name, &caller, source)?;
    if let Some(other) = others.iter().find(|other| other.api_key == api_key) {
        let message = format!(
            "callers '{}' and '{}' have the same API key",
            other.name,
            name.get_ref()
        );
        return Err(source.error(name.span(), message));
    }
    Ok(CallerSetup {
        name: name.into_inner(),
        team: caller.team,
        api_key,
        names_users: caller.trusted_users,
        is_operator: caller.operator,
    })
}

fn api_key(name: &Spanned<String>, caller: &RawCaller, source: &Source<'_>) -> Result<ApiKeyDigest, Mistake> {
    let RawCaller {
        team: _,
        api_key_env,
        api_key_file,
        api_key_sha256,
        operator: _,
        trusted_users: _,
    } = caller;
    match (api_key_env, api_key_file, api_key_sha256) {
        (Some(variable), None, None) => Ok(ApiKeyDigest::of(&environment(variable, source)?)),
        (None, Some(file), None) => {
            let path = source.folder().join(file.get_ref());
            let key = std::fs::read_to_string(&path).map_err(|error| {
                source.error(
                    file.span(),
                    format!("api_key_file {} can't be read: {error}", path.display()),
                )
            })?;
            let key = key.trim();
            if key.is_empty() {
                return Err(source.error(file.span(), format!("api_key_file {} is empty", path.display())));
            }
            Ok(ApiKeyDigest::of(key))
        }
        (None, None, Some(digest)) => ApiKeyDigest::from_hex(digest.get_ref())
            .ok_or_else(|| source.error(digest.span(), "api_key_sha256 must be 64 hexadecimal digits")),
        _ => Err(source.error(
            name.span(),
            format!(
                "caller '{}' needs exactly one of api_key_env, api_key_file and api_key_sha256",
                name.get_ref()
            ),
        )),
    }
}

/// The value of an environment variable that must be there.
pub(super) fn environment(name: &Spanned<String>, source: &Source<'_>) -> Result<String, Mistake> {
    match std::env::var(name.get_ref()) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(source.error(
            name.span(),
            format!(
                "the environment variable {} is not set; set it before the server is started",
                name.get_ref()
            ),
        )),
    }
}
