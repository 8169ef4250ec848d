use std::cell::RefCell;
use std::fmt::{self, Write as _};

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Each line is an object: the time, the level, the event's own fields, who says it.
///
/// The form of `tracing-subscriber`'s flattened JSON but for spans, of which there are none here; written as it is said, field by field.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Of an event that comes from the crate `log`, what it says of itself is among its fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut line = String::with_capacity(1024);
        line.push_str(r#"{"timestamp":""#);
        push_time(&mut line, Timestamp::now());
        push_parts(&mut line, ["\",\"level\":\"", metadata.level().as_str(), "\""]);
        event.record(&mut Fields(&mut line));
        line.push_str(r#","target":"#);
        push_text(&mut line, metadata.target());
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

thread_local! {
    /// The latest second in which there was a line, and how it is written.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// With microseconds. All but these are the same for many lines.
fn push_time(line: &mut String, now: Timestamp) {
    let (second, microseconds) = (now.as_second(), now.subsec_microsecond());
    SECOND.with_borrow_mut(|(latest, written)| {
        if *latest != second {
            (*latest, *written) = (second, now.strftime("%Y-%m-%dT%H:%M:%S.").to_string());
        }
        line.push_str(written);
    });
    // A writer that can't fail.
    let _ = write!(line, "{microseconds:06}Z");
}

/// Writes fields as members of an object.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn add(&mut self, field: &Field, push: impl FnOnce(&mut String)) {
        // Those of the crate `log` are in the line already.
        let name = field.name();
        if name.starts_with("log.") {
            return;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        push_parts(self.0, [",\"", name, "\":"]);
        push(self.0);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, |line| push_text(line, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |line| line.push_str(itoa::Buffer::new().format(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |line| line.push_str(itoa::Buffer::new().format(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |line| line.push_str(if value { "true" } else { "false" }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, |line| match value.is_finite() {
            true => line.push_str(zmij::Buffer::new().format_finite(value)),
            false => line.push_str("null"),
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, |line| push_text(line, &format!("{value:?}")));
    }
}

fn push_parts(line: &mut String, parts: [&str; 3]) {
    for part in parts {
        line.push_str(part);
    }
}

fn push_text(line: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        push_parts(line, ["\"", text, "\""]);
    } else {
        line.push_str(&serde_json::Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use serde_json::{Value, json};

    /// What is written of an event.
    fn written(tell: impl FnOnce()) -> Value {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .event_format(Json)
            .with_writer(move || Kept(Arc::clone(&writer)));
        tracing::subscriber::with_default(subscriber.finish(), tell);
        let line = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_of_every_type_are_members_of_the_line() {
        let nothing: Option<u64> = None;
        let line = written(|| {
            tracing::warn!(
                target: "a::b",
                text = "say \"\u{1}\" \\ ä",
                count = 7,
                most = u64::MAX,
                below = -3,
                share = 0.125,
                whole = 5.0,
                endless = f64::INFINITY,
                yes = true,
                nothing,
                shown = %"x\ny",
                debug = ?Some("z"),
                "it happened"
            );
        });
        let mut expected = json!({
            "level": "WARN", "target": "a::b", "message": "it happened", "text": "say \"\u{1}\" \\ ä", "count": 7,
            "most": u64::MAX, "below": -3, "share": 0.125, "whole": 5.0, "endless": null, "yes": true, "shown": "x\ny",
            "debug": "Some(\"z\")",
        });
        expected["timestamp"] = line["timestamp"].clone();
        assert_eq!(line, expected);
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.parse::<Timestamp>().is_ok() && time.len() == "2026-11-24T08:14:01.500000Z".len());
    }
}
