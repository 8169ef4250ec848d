//! What a run may take, before it is begun.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::HumanCount;
use llm_engine_batch::Usage;
use llm_engine_client::Call;
use serde_json::{Value, json};

use super::arguments::{Arguments, Job};

/// What the rows of one model are.
#[derive(Debug, Default)]
struct OfModel {
    rows: u64,
    most: Usage,
}

/// How many bytes of a prompt are a token, as a rule.
const BYTES_PER_TOKEN: u64 = 4;

#[expect(clippy::print_stdout, reason = "it is what was asked for")]
pub(super) async fn print(arguments: &Arguments, job: &Job) -> anyhow::Result<()> {
    let survey = job.input.survey().map_err(super::usage)?;
    let (models, bad, input_tokens) = read(job)?;
    let output_tokens: u64 = models.values().map(|model| model.most.output_tokens).sum();
    let nano_usd = input_tokens * job.prices.nano_usd_per_input_token
        + output_tokens * job.prices.nano_usd_per_output_token;
    let time = match limits(job).await {
        Some(limits) => slowest(&limits, &models),
        None => None,
    };
    if arguments.json {
        let estimate = json!({
            "rows": survey.rows, "rows_that_are_wrong": bad, "input_tokens": input_tokens,
            "output_tokens_at_most": output_tokens, "usd_at_most": nano_usd as f64 / 1e9,
            "seconds_at_these_limits": time.as_ref().map(|(time, _)| time.as_secs_f64()),
            "slowest_limit": time.as_ref().map(|(_, limit)| limit),
        });
        println!("{}", serde_json::to_string_pretty(&estimate)?);
        return Ok(());
    }
    println!("rows            {}", HumanCount(survey.rows));
    if bad > 0 {
        println!("that are wrong  {}", HumanCount(bad));
    }
    println!("input tokens    about {}", HumanCount(input_tokens));
    println!("output tokens   at most {}", HumanCount(output_tokens));
    if nano_usd > 0 {
        println!("cost            at most ${:.2}", nano_usd as f64 / 1e9);
    }
    match time {
        Some((time, limit)) => {
            let time = humantime::format_duration(Duration::from_secs(time.as_secs()));
            println!("time            {time} by the limits, because of {limit}");
        }
        None => println!("time            the server says nothing of its limits"),
    }
    Ok(())
}

/// The rows of each model, how many can't be read, and the tokens of all prompts.
fn read(job: &Job) -> anyhow::Result<(BTreeMap<String, OfModel>, u64, u64)> {
    let default = job
        .defaults
        .get("model")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut models: BTreeMap<String, OfModel> = BTreeMap::new();
    let (mut bad, mut bytes) = (0, 0);
    let mut rows = job.input.read()?;
    while rows.advance().context("the input")?.is_some() {
        let Ok(row) = rows.row() else {
            bad += 1;
            continue;
        };
        let name = if row.model().is_empty() {
            default
        } else {
            row.model()
        };
        let bound = job.sender.bound_of(&row);
        let model = models.entry(name.to_owned()).or_default();
        model.rows += 1;
        model.most.output_tokens += bound.output_tokens;
        model.most.input_tokens += row.bytes as u64 / BYTES_PER_TOKEN;
        bytes += row.bytes as u64;
    }
    Ok((models, bad, bytes / BYTES_PER_TOKEN))
}

/// What `/v1/limits` says, where there is that.
async fn limits(job: &Job) -> Option<Value> {
    let call = Call::get("/v1/limits")
        .timeout(Duration::from_secs(5))
        .max_attempts(1);
    let answer = job.limits.as_ref()?.call(call).await.ok()?;
    serde_json::from_slice(&answer.body).ok()
}

/// The limit that takes longest, and how long.
fn slowest(limits: &Value, models: &BTreeMap<String, OfModel>) -> Option<(Duration, String)> {
    let mut slowest: Option<(Duration, String)> = None;
    for of_model in limits["data"].as_array()? {
        let Some(model) = of_model["model"].as_str().and_then(|name| models.get(name)) else {
            continue;
        };
        for limit in of_model["limits"].as_array()? {
            let amount = match limit["counts"].as_str()? {
                "requests" => model.rows,
                "input_tokens" => model.most.input_tokens,
                "output_tokens" => model.most.output_tokens,
                "tokens" => model.most.tokens(),
                _ => continue,
            };
            let Some(time) = time(amount, limit) else { continue };
            if slowest.as_ref().is_none_or(|(most, _)| time > *most) {
                let words = limit["limit_in_words"].as_str().unwrap_or_default();
                let policy = limit["policy"].as_str().unwrap_or_default();
                slowest = Some((time, format!("policy {policy}: {words}")));
            }
        }
    }
    slowest
}

/// How long so much takes: what could be admitted now is no wait.
fn time(amount: u64, limit: &Value) -> Option<Duration> {
    let words = limit["limit_in_words"].as_str()?;
    let window = match words.rsplit_once(" per ")?.1 {
        "second" => Duration::from_secs(1),
        "minute" => Duration::from_secs(60),
        "hour" => Duration::from_secs(3600),
        "day" => Duration::from_secs(86_400),
        words => humantime::parse_duration(words).ok()?,
    };
    let waits = amount as f64 - limit["remaining"].as_f64()?;
    let time = window.as_secs_f64() * waits.max(0.0) / limit["limit"].as_f64()?;
    Duration::try_from_secs_f64(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_limit_says_how_long_it_takes() {
        let limit = |policy, counts, limit, words, remaining| json!({ "policy": policy, "counts": counts, "limit": limit, "limit_in_words": words, "remaining": remaining });
        let limits = json!({ "data": [
            { "model": "m", "limits": [
                limit("a", "requests", 60, "60 requests per minute", 10),
                limit("b", "tokens", 600, "600 tokens per minute", 0),
                limit("c", "usd", 10, "$10.00 per calendar day", 10),
            ] },
            { "model": "unused", "limits": [limit("d", "requests", 1, "1 request per hour", 0)] },
        ] });
        let model = OfModel {
            rows: 100,
            most: Usage {
                input_tokens: 200,
                output_tokens: 1000,
                nano_usd: 0,
            },
        };
        let models = BTreeMap::from([("m".to_owned(), model)]);
        let (time, limit) = slowest(&limits, &models).unwrap();
        assert_eq!(
            (time, limit.as_str()),
            (Duration::from_secs(120), "policy b: 600 tokens per minute")
        );
    }
}
