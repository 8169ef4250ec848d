use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use llm_engine_gateway::{CallerReport, Mode, SimulationReport, Tally, Unit};

/// The report for people.
pub(super) fn of(report: &SimulationReport, notes: &[String]) -> String {
    let SimulationReport {
        start,
        elapsed,
        total,
        policies,
        callers,
        bookings,
        ..
    } = report;
    let mut text = format!("Simulated from {start} on, for {}.\n\n", duration(*elapsed));

    let mut table = tallies("policy", None);
    table.add_row(row("all requests", total, None));
    for policy in policies {
        let name = match policy.mode {
            Mode::Enforce => policy.name.to_string(),
            Mode::Observe => format!("{} (observed)", policy.name),
        };
        table.add_row(row(&name, &policy.tally, None));
    }
    push(&mut text, table);

    let mut table = tallies("caller", Some("refused by"));
    let mut shown: Vec<&CallerReport> = callers.iter().collect();
    shown.sort_by_key(|caller| std::cmp::Reverse(caller.tally.requests));
    let more = shown.len().saturating_sub(MOST_CALLERS);
    for caller in shown.iter().take(MOST_CALLERS) {
        let refused_by = caller
            .refused_by
            .iter()
            .map(|(policy, count)| format!("{policy} {count}"));
        let refused_by = refused_by.collect::<Vec<_>>().join(", ");
        table.add_row(row(&caller.name, &caller.tally, Some(refused_by)));
    }
    push(&mut text, table);
    if more > 0 {
        line(
            &mut text,
            format_args!("and {more} more callers with fewer requests; --json has all\n"),
        );
    }

    let mut table = plain(&["policy", "limit of each key", "settled", "share", "peak"], 2);
    for policy in policies {
        for quota in &policy.quotas {
            let settled = quota.settled.map(|settled| match quota.counted.unit() {
                Some(Unit::Usd) => dollars(settled),
                _ => settled.to_string(),
            });
            table.add_row(vec![
                policy.name.to_string(),
                quota.counted.amount(quota.limit),
                settled.unwrap_or_default(),
                percent(quota.share),
                percent(quota.peak),
            ]);
        }
    }
    if !table.is_empty() {
        push(&mut text, table);
    }

    match total.calls_per_success() {
        Some(calls) => line(&mut text, format_args!("calls per success  {calls:.2}")),
        None => line(&mut text, format_args!("calls per success  none succeeded")),
    }
    line(
        &mut text,
        format_args!(
            "booked times       {} told, {} claimed at their time, {} of these kept",
            bookings.told, bookings.claimed, bookings.kept
        ),
    );
    for note in notes {
        line(&mut text, format_args!("note: {note}"));
    }
    text
}

/// More than fit on a page are no summary.
const MOST_CALLERS: usize = 20;

fn tallies(of: &str, last: Option<&str>) -> Table {
    let mut names = vec![
        of,
        "requests",
        "admitted",
        "refused",
        "would refuse",
        "held",
        "lost",
        "wait mean",
        "p50",
        "p95",
        "max",
        "input tokens",
        "output tokens",
        "usd",
    ];
    names.extend(last);
    let mut table = plain(&names, 1);
    if last.is_some()
        && let Some(column) = table.column_mut(names.len() - 1)
    {
        column.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// Without lines; after the first columns stand numbers.
fn plain(names: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, tally: &Tally, last: Option<String>) -> Vec<String> {
    let Tally {
        requests,
        calls: _,
        admitted,
        refused,
        would_refuse,
        held,
        lost,
        waits,
        settled,
    } = tally;
    let mut row = vec![name.to_owned()];
    row.extend([requests, admitted, refused, would_refuse, held, lost].map(ToString::to_string));
    row.extend(
        [
            waits.mean(),
            waits.quantile(0.5),
            waits.quantile(0.95),
            waits.longest(),
        ]
        .map(duration),
    );
    row.extend([settled.input_tokens, settled.output_tokens].map(|count| count.to_string()));
    row.push(dollars(settled.nano_usd));
    row.extend(last);
    row
}

fn push(text: &mut String, table: Table) {
    let lines = table.lines();
    lines.for_each(|row| line(text, format_args!("{}", row.trim_end())));
    text.push('\n');
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{words}");
}

/// A duration with as many digits as anybody reads.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if duration.is_zero() {
        "0 s".to_owned()
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
    }
}

fn dollars(nano_usd: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown to a few digits")]
    let dollars = nano_usd as f64 / 1e9;
    if dollars == 0.0 || dollars >= 1.0 {
        format!("{dollars:.2}")
    } else {
        format!("{dollars:.6}")
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_amounts_are_short() {
        let of = |milliseconds| duration(Duration::from_millis(milliseconds));
        assert_eq!(
            [of(0), of(12), of(1_234), of(119_000), of(3_723_500)],
            ["0 s", "12 ms", "1.2 s", "119.0 s", "1h 2m 3s"]
        );
        assert_eq!(
            [dollars(0), dollars(150_000), dollars(12_345_000_000)],
            ["0.00", "0.000150", "12.35"]
        );
        assert_eq!(percent(0.1234), "12.3 %");
    }
}
