use llm_engine_gateway::SimulationReport;
use llm_engine_server::PolicySetup;

use super::Log;

/// What a reader of the report has to know to judge it, one sentence each.
pub(super) fn of(report: &SimulationReport, log: &Log, policies: &[PolicySetup]) -> Vec<String> {
    let mut notes = Vec::new();
    if log.skipped > 0 {
        notes.push(format!(
            "{} of the log are about something else and were skipped",
            count(log.skipped as u64, "line")
        ));
    }
    let unknown = report
        .callers
        .iter()
        .filter(|caller| !caller.is_known && !is_made_up(&caller.name));
    let unknown: Vec<String> = unknown
        .map(|caller| format!("{} ({})", caller.name, count(caller.tally.requests, "request")))
        .collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "callers that the configuration does not know, each a team of its own: {}",
            some(&unknown)
        ));
    }
    let unknown: Vec<String> = report
        .unknown_models
        .iter()
        .map(|(name, requests)| format!("{name} ({})", count(*requests, "request")))
        .collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "models that the configuration does not know, which cost nothing: {}",
            some(&unknown)
        ));
    }
    for policy in policies {
        let name = &policy.name;
        if policy.per.user || policy.matches.user.is_some() {
            notes.push(format!(
                "policy {name} is about users, of whom nothing is known here: it applies to no request"
            ));
        }
        if policy.per.address {
            notes.push(format!(
                "policy {name} counts per address, of which nothing is known here: it counts all as one"
            ));
        }
        if policy.learned_output {
            notes.push(format!(
                "policy {name} has output_reservation = \"learned\"; here requests reserve what the log or the load says"
            ));
        }
    }
    notes
}

/// The callers of a load.
fn is_made_up(name: &str) -> bool {
    name.strip_prefix("load-")
        .is_some_and(|number| number.parse::<u64>().is_ok())
}

fn count(count: u64, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// The first of them.
fn some(all: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown = all
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}
