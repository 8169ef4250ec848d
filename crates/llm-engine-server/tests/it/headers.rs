use std::time::Duration;

use hyper::StatusCode;
use scripted_upstream::freeze;
use serde_json::Value;
use sfv::{BareItem, Item, ListEntry, Parser};
use tokio::time::advance;

use crate::harness::{Answer, SYNC, Server, prompt, quick};

/// The largest integer that a structured field can hold.
const MAX: i64 = 999_999_999_999_999;

/// What one item of `RateLimit` and its like in `RateLimit-Policy` say.
#[derive(Debug, PartialEq, Eq)]
struct Quota {
    name: String,
    quota: i64,
    window: Option<i64>,
    unit: Option<String>,
    remaining: i64,
    reset: Option<i64>,
}

fn items(answer: &Answer, name: &str) -> Vec<Item> {
    let fields: Vec<_> = answer.headers.get_all(name).iter().collect();
    assert_eq!(fields.len(), 1, "{name}");
    let list: sfv::List = Parser::new(fields[0].as_bytes()).parse().unwrap();
    list.into_iter()
        .map(|entry| match entry {
            ListEntry::Item(item) => item,
            ListEntry::InnerList(list) => panic!("{list:?}"),
        })
        .collect()
}

fn string(item: &BareItem) -> String {
    match item {
        BareItem::String(text) => text.as_str().to_owned(),
        other => panic!("no string: {other:?}"),
    }
}

fn integer(item: &BareItem) -> i64 {
    match item {
        BareItem::Integer(number) => i64::from(*number),
        other => panic!("no integer: {other:?}"),
    }
}

/// Both fields together: they name the same quotas in the same order, and nothing that isn't known.
fn quotas(answer: &Answer) -> Vec<Quota> {
    let policies = items(answer, "ratelimit-policy");
    let limits = items(answer, "ratelimit");
    assert_eq!(policies.len(), limits.len());
    let quota = |(policy, limit): (&Item, &Item)| {
        assert_eq!(policy.bare_item, limit.bare_item);
        for name in policy.params.keys() {
            assert!(["q", "w", "qu", "pk"].contains(&name.as_str()), "{name}");
        }
        for name in limit.params.keys() {
            assert!(["r", "t", "pk"].contains(&name.as_str()), "{name}");
        }
        let quota = Quota {
            name: string(&policy.bare_item),
            quota: integer(&policy.params["q"]),
            window: policy.params.get("w").map(integer),
            unit: policy.params.get("qu").map(string),
            remaining: integer(&limit.params["r"]),
            reset: limit.params.get("t").map(integer),
        };
        let numbers = [
            Some(quota.quota),
            quota.window,
            Some(quota.remaining),
            quota.reset,
        ];
        for number in numbers.into_iter().flatten() {
            assert!((0..=MAX).contains(&number), "{quota:?}");
        }
        quota
    };
    policies.iter().zip(&limits).map(quota).collect()
}

/// As OpenAI writes durations: `850ms`, `1.2s`, `6m0s`, `1h30m0s`.
fn openai_duration(text: &str) -> Duration {
    let milliseconds = |text: &str| -> u64 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        assert!(fraction.len() <= 3, "{text}");
        format!("{whole}{fraction:0<3}").parse().unwrap()
    };
    if let Some(number) = text.strip_suffix("ms") {
        return Duration::from_millis(number.parse().unwrap());
    }
    let rest = text.strip_suffix('s').unwrap();
    let (hours, rest) = rest.split_once('h').unwrap_or(("0", rest));
    let (minutes, seconds) = rest.split_once('m').unwrap_or(("0", rest));
    let minutes = hours.parse::<u64>().unwrap() * 60 + minutes.parse::<u64>().unwrap();
    Duration::from_millis(minutes * 60_000 + milliseconds(seconds))
}

/// OpenAI's headers for requests or tokens say what these quotas say of the one that has the least left.
fn assert_openai_agrees(answer: &Answer, quotas: &[Quota], kind: &str, units: &[Option<&str>]) {
    let header = |what: &str| answer.header(&format!("x-ratelimit-{what}-{kind}"));
    let of_kind = quotas
        .iter()
        .filter(|quota| units.contains(&quota.unit.as_deref()));
    let Some(tightest) = of_kind.min_by_key(|quota| quota.remaining) else {
        assert_eq!(
            (header("limit"), header("remaining"), header("reset")),
            (None, None, None)
        );
        return;
    };
    assert_eq!(header("limit").unwrap(), tightest.quota.to_string());
    assert_eq!(header("remaining").unwrap(), tightest.remaining.to_string());
    let reset = openai_duration(header("reset").unwrap());
    let rounded_up = reset.as_secs() + u64::from(reset.subsec_nanos() > 0);
    assert_eq!(
        i64::try_from(rounded_up).unwrap(),
        tightest.reset.unwrap(),
        "{reset:?}"
    );
}

fn assert_consistent(answer: &Answer) -> Vec<Quota> {
    let quotas = quotas(answer);
    for quota in &quotas {
        assert!(
            quota.remaining <= quota.quota,
            "no burst here is above its limit: {quota:?}"
        );
    }
    assert_openai_agrees(answer, &quotas, "requests", &[None]);
    let tokens = [Some("tokens"), Some("input-tokens"), Some("output-tokens")];
    assert_openai_agrees(answer, &quotas, "tokens", &tokens);
    quotas
}

const EVERYTHING: &str = "price = { input_usd_per_million = 1.0, output_usd_per_million = 2.0 }
[[policies]]
name = 'a-b_c.D9'
per = ['key', 'model']
requests = { limit = 5, window = '7s' }
input_tokens = { limit = 90_000, window = '1h' }
output_tokens = { limit = 12_345, window = '90s', burst = 77 }
tokens = { limit = 20_000, window = '500ms' }
usd = { limit = 0.25, window = '1h' }
concurrency = 8
[[policies]]
name = '...---___'
requests = { limit = 1_000, window = 'calendar-month' }
tokens = { limit = 1_000_000, window = 'calendar-day', time_zone = 'Asia/Kolkata' }
usd = { limit = 20.0, window = 'calendar-week' }";

#[tokio::test]
async fn on_success_and_refusal_they_are_structured_fields_that_agree_with_one_another() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, EVERYTHING).await;
    let (mut admitted, mut refused) = (0, 0);
    for step in 0..40 {
        let answer = server.complete().await;
        match answer.status {
            StatusCode::OK => admitted += 1,
            StatusCode::TOO_MANY_REQUESTS => refused += 1,
            other => panic!("{other}"),
        }
        let quotas = assert_consistent(&answer);
        let names: Vec<&str> = quotas.iter().map(|quota| quota.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "a-b_c.D9/requests",
                "a-b_c.D9/input_tokens",
                "a-b_c.D9/output_tokens",
                "a-b_c.D9/tokens",
                "a-b_c.D9/usd",
                "a-b_c.D9/concurrency",
                "...---___/requests",
                "...---___/tokens",
                "...---___/usd",
            ]
        );
        let windows: Vec<_> = quotas.iter().map(|quota| quota.window).collect();
        let calendar = [None; 4];
        assert_eq!(windows[..5], [Some(7), Some(3600), Some(90), Some(1), Some(3600)]);
        assert_eq!(
            windows[5..],
            calendar,
            "neither places nor calendars have a length"
        );
        advance(Duration::from_millis(37 * step)).await;
    }
    assert!(admitted > 10 && refused > 5, "{admitted} {refused}");
}

#[tokio::test]
async fn on_a_request_that_never_fits_and_on_one_of_openai_s_they_are_there_as_well() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, EVERYTHING).await;
    let never = Answer::read(server.post(SYNC, &prompt(78)).await).await;
    assert_eq!(never.status, StatusCode::BAD_REQUEST);
    assert_eq!(assert_consistent(&never).len(), 9);
    let mut chat = crate::harness::chat();
    chat["stream"] = true.into();
    let answer = Answer::read(server.post("/v1/chat/completions", &chat).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(assert_consistent(&answer).len(), 9);
}

#[tokio::test]
async fn the_time_until_a_quota_is_full_is_the_time_after_which_it_is_full() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\nrequests = { limit = 10, window = '7s' }";
    let server = Server::start(&quick().await, policy).await;
    for _ in 0..3 {
        server.complete().await;
    }
    let answer = server.complete().await;
    let full_in = openai_duration(answer.header("x-ratelimit-reset-requests").unwrap());
    assert_eq!(full_in, Duration::from_millis(2_800));
    advance(full_in).await;
    let [quota] = quotas(&server.complete().await).try_into().unwrap();
    assert_eq!((quota.remaining, quota.reset), (9, Some(1)));
}

#[tokio::test]
async fn numbers_that_a_structured_field_can_t_hold_are_told_as_its_largest() {
    let _frozen = freeze();
    let policy = "[[policies]]\nname = 'p'\ntokens = { limit = 2_000_000_000_000_000, window = '2000000s' }";
    let server = Server::start(&quick().await, policy).await;
    let answer = server.complete().await;
    assert_eq!(answer.status, StatusCode::OK);
    let [quota] = quotas(&answer).try_into().unwrap();
    assert_eq!((quota.quota, quota.remaining), (MAX, MAX));
}

#[tokio::test]
async fn a_limit_in_dollars_is_counted_in_a_unit_that_says_so() {
    let _frozen = freeze();
    let server = Server::start(&quick().await, EVERYTHING).await;
    let quotas = assert_consistent(&server.complete().await);
    let usd = quotas.iter().find(|quota| quota.name == "a-b_c.D9/usd").unwrap();
    // 3 tokens of prompt for $1 and 2 generated for $2 a million.
    assert_eq!((usd.quota, usd.remaining), (250_000_000, 250_000_000 - 7_000));
    assert_eq!(usd.unit.as_deref(), Some("nano-usd"));
}

#[tokio::test]
async fn without_a_policy_none_of_them_is_there() {
    let server = Server::start(&quick().await, "").await;
    let answer = server.complete().await;
    assert_eq!(answer.status, StatusCode::OK);
    let names = answer.headers.keys().map(hyper::header::HeaderName::as_str);
    assert_eq!(names.filter(|name| name.contains("ratelimit")).count(), 0);
    let _: Value = answer.json();
}
