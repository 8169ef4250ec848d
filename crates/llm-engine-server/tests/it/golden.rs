use std::collections::BTreeSet;

use scripted_upstream::Upstream;
use serde_json::Value;

use crate::harness::{Answer, Server};
use crate::storing::Storing;

const PAIRS: &str = include_str!("../data/contract-golden.jsonl");

/// Every pair of the contract, compared as the pair says: `full` is the status, the listed headers
/// and the JSON (a member `error` beside `detail` is allowed), `keys` the status and the set of keys, `status` the status.
#[tokio::test]
async fn every_recorded_pair_is_answered_as_recorded() {
    let upstream = Upstream::answering(|exchange| exchange.answer_as_asked(1, &["x", "y"])).await;
    let Storing {
        server,
        folder: _folder,
    } = Storing::start(&upstream, "").await;
    let mut replayed = 0;
    let mut wrong = Vec::new();
    for pair in PAIRS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
    {
        let name = pair["name"].as_str().unwrap();
        replayed += 1;
        let answer = replay(&server, &pair["request"]).await;
        if let Err(difference) = compare(&pair, &answer) {
            wrong.push(format!("{name}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(replayed, 67);
}

async fn replay(server: &Server, request: &Value) -> Answer {
    let headers: Vec<(&str, &str)> = request["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let method = request["method"].as_str().unwrap();
    let target = request["target"].as_str().unwrap();
    Answer::read(
        server
            .send(method, target, &headers, request["body"].as_str())
            .await,
    )
    .await
}

fn compare(pair: &Value, answer: &Answer) -> Result<(), String> {
    let expected = &pair["response"];
    if expected["status"] != answer.status.as_u16() {
        return Err(format!(
            "status {} instead of {}: {}",
            answer.status, expected["status"], answer.body
        ));
    }
    let how = pair["compare"].as_str().unwrap();
    if how == "status" {
        return Ok(());
    }
    let body: Value =
        serde_json::from_str(expected["body"].as_str().unwrap_or("null")).unwrap_or(Value::Null);
    if how == "keys" {
        let (expected, found) = (keys(&body), keys(&answer.json()));
        return if expected == found {
            Ok(())
        } else {
            Err(format!("keys {found:?} instead of {expected:?}"))
        };
    }
    for (name, value) in expected["headers"].as_object().unwrap() {
        if answer.header(name) != value.as_str() {
            return Err(format!("{name}: {:?} instead of {value}", answer.header(name)));
        }
    }
    if body.is_null() {
        return Ok(());
    }
    let mut found = answer.json();
    found.as_object_mut().unwrap().remove("error");
    if found == body {
        Ok(())
    } else {
        Err(format!("{found} instead of {body}"))
    }
}

/// The paths of all keys of a value.
fn keys(value: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            all.insert(name.clone());
            all.extend(keys(value).into_iter().map(|key| format!("{name}.{key}")));
        }
    }
    all
}
