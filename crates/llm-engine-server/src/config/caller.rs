use std::collections::BTreeMap;
use std::path::PathBuf;

use llm_engine_gateway::{ApiKeyDigest, CallerSetup};
use serde::Deserialize;
use toml::Spanned;

use super::DEVELOPMENT_KEY;
use super::error::{ConfigError, Source};

/// `[callers.NAME]` as written: one of the three ways to give the key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCaller {
    team: Option<String>,
    api_key_env: Option<Spanned<String>>,
    api_key_file: Option<Spanned<PathBuf>>,
    api_key_sha256: Option<Spanned<String>>,
}

/// The named teams, each with its number.
pub(super) type Teams = BTreeMap<String, u32>;

/// The callers in the order of their names, and the named teams. Without any caller there is the development key.
pub(super) fn check_all(
    callers: BTreeMap<Spanned<String>, RawCaller>,
    source: &Source<'_>,
) -> Result<(Vec<CallerSetup>, Teams), ConfigError> {
    let mut teams = Teams::new();
    let mut next_team = 0;
    let mut new_team = || {
        next_team += 1;
        next_team
    };
    if callers.is_empty() {
        let api_key = ApiKeyDigest::of(DEVELOPMENT_KEY);
        let development = CallerSetup {
            name: "development".to_owned(),
            team: new_team(),
            api_key,
        };
        return Ok((vec![development], teams));
    }
    let mut checked: Vec<CallerSetup> = Vec::with_capacity(callers.len());
    for (name, caller) in callers {
        let api_key = api_key(&name, &caller, source)?;
        if let Some(other) = checked.iter().find(|other| other.api_key == api_key) {
            let message = format!(
                "callers '{}' and '{}' have the same API key",
                other.name,
                name.get_ref()
            );
            return Err(source.error(name.span(), message));
        }
        // A caller without a team is a team of one.
        let team = match caller.team {
            Some(team) => *teams.entry(team).or_insert_with(&mut new_team),
            None => new_team(),
        };
        checked.push(CallerSetup {
            name: name.into_inner(),
            team,
            api_key,
        });
    }
    Ok((checked, teams))
}

fn api_key(
    name: &Spanned<String>,
    caller: &RawCaller,
    source: &Source<'_>,
) -> Result<ApiKeyDigest, ConfigError> {
    let RawCaller {
        team: _,
        api_key_env,
        api_key_file,
        api_key_sha256,
    } = caller;
    match (api_key_env, api_key_file, api_key_sha256) {
        (Some(variable), None, None) => Ok(ApiKeyDigest::of(&environment(variable, source)?)),
        (None, Some(file), None) => {
            let base = source.path.parent().unwrap_or(std::path::Path::new(""));
            let path = base.join(file.get_ref());
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
pub(super) fn environment(name: &Spanned<String>, source: &Source<'_>) -> Result<String, ConfigError> {
    match std::env::var(name.get_ref()) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(source.error(
            name.span(),
            format!("the environment variable {} is not set", name.get_ref()),
        )),
    }
}
