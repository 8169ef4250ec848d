use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A place in a trace as headers of HTTP name it: W3C Trace Context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceHeaders {
    traceparent: HeaderValue,
    tracestate: Option<HeaderValue>,
}

impl TraceHeaders {
    /// What a request says of the trace that it belongs to; `None` if that is nothing, or two things at once. In a box: few
    /// requests say it, and all have room for it.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Box<Self>> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(traceparent), None) = (parents.next(), parents.next()) else {
            return None;
        };
        // A list, which may be spread over several lines.
        let states: Vec<&[u8]> = headers
            .get_all(TRACESTATE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let tracestate = match *states.as_slice() {
            [] => None,
            _ => HeaderValue::from_bytes(&states.join(&b","[..])).ok(),
        };
        Some(Box::new(Self {
            traceparent: traceparent.clone(),
            tracestate,
        }))
    }

    /// The same for a span.
    pub(crate) fn of(span: &SpanContext) -> Option<Box<Self>> {
        let flags = span.trace_flags() & TraceFlags::SAMPLED;
        let traceparent = format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id());
        let tracestate = Some(span.trace_state().header()).filter(|state| !state.is_empty());
        Some(Box::new(Self {
            traceparent: HeaderValue::try_from(traceparent).ok()?,
            tracestate: tracestate.and_then(|state| HeaderValue::try_from(state).ok()),
        }))
    }

    /// The span that they name; if they name none, one that is not valid.
    pub(crate) fn span(&self) -> SpanContext {
        if !is_well_formed(self.traceparent.as_bytes()) {
            return SpanContext::empty_context();
        }
        let named = TraceContextPropagator::new().extract_with_context(&Context::new(), self);
        named.span().span_context().clone()
    }

    /// Adds them to those of a request.
    pub(crate) fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.traceparent.clone());
        if let Some(tracestate) = &self.tracestate {
            headers.insert(TRACESTATE, tracestate.clone());
        }
    }
}

/// Whether this is a version, a trace, a span and flags, each with all of its digits, which its reader does not look at. Later
/// versions may have more behind that.
fn is_well_formed(traceparent: &[u8]) -> bool {
    const FORM: &[u8] = b"00-00000000000000000000000000000000-0000000000000000-00";
    let is_like = |(byte, like): (&u8, &u8)| match like {
        b'-' => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    let is_longer = traceparent.len() > FORM.len();
    traceparent.len() >= FORM.len()
        && traceparent.iter().zip(FORM).all(is_like)
        && !(is_longer && traceparent.starts_with(b"00"))
}

impl Extractor for TraceHeaders {
    fn get(&self, key: &str) -> Option<&str> {
        let value = match key {
            "traceparent" => Some(&self.traceparent),
            "tracestate" => self.tracestate.as_ref(),
            _ => None,
        };
        value?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(lines: &[(HeaderName, &str)]) -> Option<Box<TraceHeaders>> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value.parse().expect("a header value"));
        }
        TraceHeaders::read(&headers)
    }

    #[test]
    fn what_was_said_is_said_again() {
        let said = [
            (TRACEPARENT, PARENT),
            (TRACESTATE, "a=1"),
            (TRACESTATE, "b=2,c=3"),
        ];
        let headers = read(&said).expect("a trace");
        let mut again = HeaderMap::new();
        headers.add_to(&mut again);
        assert_eq!(again[TRACEPARENT], PARENT);
        assert_eq!(again[TRACESTATE], "a=1,b=2,c=3");
        assert_eq!(TraceHeaders::of(&headers.span()), Some(headers));
    }

    #[test]
    fn nothing_or_two_things_are_no_trace() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[(TRACESTATE, "a=1")]), None);
        assert_eq!(read(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]), None);
    }

    #[test]
    fn a_later_version_may_say_more() {
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        let span = read(&[(TRACEPARENT, later)]).expect("a header").span();
        assert!(span.is_valid() && span.is_sampled());
    }

    #[test]
    fn nonsense_names_no_span() {
        for nonsense in [
            "",
            "00-1-2-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            let headers = read(&[(TRACEPARENT, nonsense)]).expect("a header");
            assert!(!headers.span().is_valid(), "{nonsense}");
        }
    }
}
