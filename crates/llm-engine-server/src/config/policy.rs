use std::collections::BTreeSet;
use std::num::NonZeroU32;

use llm_engine_gateway::{CallerSetup, Match, Per, Policy, Quota, QuotaError, Unit};
use serde::Deserialize;
use toml::Spanned;

use super::caller::Teams;
use super::error::{ConfigError, Source};
use super::model::{ModelConfig, duration};

/// One of `[[policies]]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    name: Spanned<String>,
    #[serde(default, rename = "match")]
    matches: RawMatch,
    #[serde(default)]
    per: Vec<RawPer>,
    requests: Option<Spanned<RawQuota>>,
    input_tokens: Option<Spanned<RawQuota>>,
    output_tokens: Option<Spanned<RawQuota>>,
    tokens: Option<Spanned<RawQuota>>,
    concurrency: Option<NonZeroU32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    caller: Option<Spanned<String>>,
    team: Option<Spanned<String>>,
    model: Option<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawPer {
    Key,
    Team,
    Model,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuota {
    limit: u64,
    window: Spanned<String>,
    burst: Option<u64>,
    #[serde(default)]
    strict: bool,
}

/// What policies can speak of.
pub(super) struct Names<'a> {
    pub(super) models: &'a [ModelConfig],
    pub(super) callers: &'a [CallerSetup],
    pub(super) teams: &'a Teams,
}

pub(super) fn check_all(
    policies: Vec<RawPolicy>,
    names: &Names<'_>,
    source: &Source<'_>,
) -> Result<Vec<Policy>, ConfigError> {
    let mut seen = BTreeSet::new();
    let mut checked = Vec::with_capacity(policies.len());
    for policy in policies {
        let name = &policy.name;
        let printable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.get_ref().is_empty() || !name.get_ref().chars().all(printable) {
            let message = format!(
                "policy '{}': a name has letters, digits, '-', '_' and '.' only",
                name.get_ref()
            );
            return Err(source.error(name.span(), message));
        }
        if !seen.insert(name.get_ref().clone()) {
            return Err(source.error(
                name.span(),
                format!("two policies have the name '{}'", name.get_ref()),
            ));
        }
        checked.push(check(policy, names, source)?);
    }
    Ok(checked)
}

fn check(raw: RawPolicy, names: &Names<'_>, source: &Source<'_>) -> Result<Policy, ConfigError> {
    let RawPolicy {
        name,
        matches,
        per,
        requests,
        input_tokens,
        output_tokens,
        tokens,
        concurrency,
    } = raw;
    let quotas = [
        (Unit::Requests, requests),
        (Unit::InputTokens, input_tokens),
        (Unit::OutputTokens, output_tokens),
        (Unit::Tokens, tokens),
    ];
    let quotas: Vec<(Unit, Quota)> = quotas
        .into_iter()
        .filter_map(|(unit, quota)| quota.map(|quota| Ok((unit, check_quota(unit, &quota, source)?))))
        .collect::<Result<_, ConfigError>>()?;
    if quotas.is_empty() && concurrency.is_none() {
        let message = format!(
            "policy '{}' limits nothing; give it requests, input_tokens, output_tokens, tokens or concurrency",
            name.get_ref()
        );
        return Err(source.error(name.span(), message));
    }
    Ok(Policy {
        matches: check_match(&matches, names, source)?,
        per: Per {
            caller: per.iter().any(|per| matches!(per, RawPer::Key)),
            team: per.iter().any(|per| matches!(per, RawPer::Team)),
            model: per.iter().any(|per| matches!(per, RawPer::Model)),
        },
        quotas,
        concurrency,
        name: name.into_inner().into(),
    })
}

fn check_quota(unit: Unit, raw: &Spanned<RawQuota>, source: &Source<'_>) -> Result<Quota, ConfigError> {
    let RawQuota {
        limit,
        window,
        burst,
        strict,
    } = raw.get_ref();
    let window = duration(window, "window", source)?;
    let quota = match (strict, burst) {
        (true, Some(burst)) => Quota::strict(*limit, window, *burst),
        (true, None) => {
            let message = format!("{}: strict = true needs a burst below the limit", unit.name());
            return Err(source.error(raw.span(), message));
        }
        (false, Some(burst)) => Quota::with_burst(*limit, window, *burst),
        (false, None) => Quota::new(*limit, window),
    };
    quota.map_err(|error: QuotaError| source.error(raw.span(), format!("{}: {error}", unit.name())))
}

/// Turns names into the numbers by which the limiter knows them.
fn check_match(raw: &RawMatch, names: &Names<'_>, source: &Source<'_>) -> Result<Match, ConfigError> {
    let RawMatch { caller, team, model } = raw;
    let number = |name: &Option<Spanned<String>>, what: &str, find: &dyn Fn(&str) -> Option<u32>| {
        let Some(name) = name else { return Ok(None) };
        let unknown = || source.error(name.span(), format!("there is no {what} '{}'", name.get_ref()));
        find(name.get_ref()).map(Some).ok_or_else(unknown)
    };
    let position = |position: usize| u32::try_from(position).ok();
    Ok(Match {
        caller: number(caller, "caller", &|name| {
            position(names.callers.iter().position(|caller| caller.name == name)?)
        })?,
        team: number(team, "team", &|name| names.teams.get(name).copied())?,
        model: number(model, "model", &|name| {
            let named =
                |model: &ModelConfig| model.name == name || model.aliases.iter().any(|alias| alias == name);
            position(names.models.iter().position(named)?)
        })?,
    })
}
