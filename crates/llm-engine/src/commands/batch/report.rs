//! How a run ended, as a table or as JSON.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use llm_engine_batch::{End, Form, Journal, Tally};
use llm_engine_client::batch::Sender;
use serde_json::json;

pub(super) struct Report {
    /// What the journal says now.
    tally: Tally,
    /// What happened in this session only.
    session: Tally,
    refusals: u64,
    took: Duration,
    journal: String,
    /// One word for how it ended, and a sentence if there is more to say.
    end: (&'static str, Option<String>),
}

impl Report {
    pub(super) fn new(journal: &Journal, took: Duration, sender: &Sender, session: &Tally) -> Self {
        Self {
            tally: journal.tally(),
            session: session.clone(),
            refusals: sender.refusals(),
            took,
            journal: journal.path().display().to_string(),
            end: ("complete", None),
        }
    }

    pub(super) fn ended(&mut self, end: &End) {
        let is_sample = *end == End::Complete && self.tally.ended < self.tally.rows;
        let word = if is_sample { "sampled" } else { end.word() };
        self.end = (word, Some(end.to_string()));
    }

    pub(super) fn could_not(&mut self, what: String) {
        self.end = ("failed", Some(what));
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.end.0 {
            "complete" | "sampled" if self.tally.failed > 0 => 3,
            "complete" | "sampled" => 0,
            _ => 4,
        })
    }

    /// The summary goes to standard output, and why there is no output to standard error.
    pub(super) fn print(&self, as_json: bool, out: &Path) -> anyhow::Result<()> {
        let mut output = std::io::stdout().lock();
        if as_json {
            writeln!(output, "{}", serde_json::to_string_pretty(&self.to_json())?)?;
        } else {
            writeln!(output, "{}", self.to_table())?;
        }
        let Self { tally, journal, .. } = self;
        let (missing, rows) = (tally.rows - tally.ended, tally.rows);
        match &self.end {
            ("complete", _) => eprintln!("complete: {}", out.display()),
            ("sampled", _) => {
                eprintln!("sampled: {missing} of {rows} rows are left; without --sample they are run");
            }
            (_, what) => {
                let what = what.as_deref().unwrap_or_default();
                eprintln!("incomplete: {what}");
                eprintln!(
                    "{missing} of {rows} rows are left; the same command goes on with them, by {journal}"
                );
            }
        }
        Ok(())
    }

    fn to_json(&self) -> serde_json::Value {
        let Self { tally, session, .. } = self;
        json!({
            "end": self.end.0,
            "message": self.end.1,
            "rows": tally.rows,
            "answered": tally.ended - tally.failed,
            "errors": tally.failed,
            "left": tally.rows - tally.ended,
            "input_tokens": tally.usage.input_tokens,
            "output_tokens": tally.usage.output_tokens,
            "usd": tally.usage.nano_usd as f64 / 1e9,
            "may_be_generated_twice": tally.doubles,
            "session": {
                "seconds": self.took.as_secs_f64(),
                "rows": session.ended_now,
                "sent_again_after_a_crash": session.resent,
                "failed_attempts": session.failed_attempts,
                "refusals": self.refusals,
            },
        })
    }

    fn to_table(&self) -> Table {
        let Self { tally, session, .. } = self;
        let mut table = Table::new();
        table.load_style(NOTHING);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("rows", tally.rows.to_string());
        row("answered", (tally.ended - tally.failed).to_string());
        row("errors", tally.failed.to_string());
        row("left", (tally.rows - tally.ended).to_string());
        row("input tokens", tally.usage.input_tokens.to_string());
        row("output tokens", tally.usage.output_tokens.to_string());
        if tally.usage.nano_usd > 0 {
            row("cost", format!("${:.4}", tally.usage.nano_usd as f64 / 1e9));
        }
        row("may be generated twice", tally.doubles.to_string());
        let seconds = self.took.as_secs_f64();
        let pace = session.ended_now as f64 / seconds.max(0.001);
        row(
            "this session",
            format!("{} rows in {seconds:.1} s, {pace:.1} rows/s", session.ended_now),
        );
        row("refusals", self.refusals.to_string());
        row("failed attempts", session.failed_attempts.to_string());
        if session.resent > 0 {
            row("sent again after a crash", session.resent.to_string());
        }
        table
    }
}

/// The answers so far.
pub(super) fn print_sample(journal: &Journal, form: Form) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    journal.each_as_in_input(|number, outcome| form.write_row(&mut output, number, outcome))?;
    Ok(())
}
