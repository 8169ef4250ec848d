use std::path::Path;
use std::time::Duration;

use llm_engine_gateway::{
    Budget, MatchSetup, Mode, Per, Period, PolicySetup, PriceSetup, Quota, TelemetrySetup, Unit,
};
use llm_engine_server::config::Config;
use llm_engine_server::policy_words;

/// The message for a configuration with one mistake, without the column.
fn message(text: &str) -> String {
    let error = Config::parse(text, Path::new("llm-engine.toml")).unwrap_err();
    let [mistake] = error.mistakes() else {
        panic!("there is more than one mistake: {error}");
    };
    let (line, _column) = mistake.place.position.unwrap();
    format!("{}:{line}: {}", mistake.place.path.display(), mistake.message)
}

fn read(text: &str) -> Config {
    Config::parse(text, Path::new("folder/llm-engine.toml")).unwrap()
}

const MODEL: &str = "[models.m]\ngguf = 'm.gguf'\n";

const PRICED: &str = "[models.m]\ngguf = 'm.gguf'\nprice = { output_usd_per_million = 1 }\n";

/// The policy with these lines, for a model that has a price.
fn policy(lines: &str) -> PolicySetup {
    let text = format!("{PRICED}[[policies]]\nname = 'p'\n{lines}");
    let [policy] = read(&text).policies.try_into().unwrap();
    policy
}

#[test]
fn the_built_in_configuration_is_valid_and_serves_loopback_only() {
    let config = Config::built_in().unwrap();
    assert!(config.listen.ip().is_loopback());
    assert!(config.development_key);
    assert!(config.callers[0].is_operator && config.callers[0].names_users);
    assert_eq!(config.models[0].aliases, ["llama-7b"]);
}

#[test]
fn the_commented_example_is_valid() {
    let text = include_str!("../../../../examples/llm-engine.toml");
    let config = Config::parse(text, Path::new("examples/llm-engine.toml")).unwrap();
    assert_eq!(
        (config.models.len(), config.callers.len(), config.policies.len()),
        (2, 2, 6)
    );
    assert!(config.callers[0].is_operator && config.callers[1].names_users);
    assert_eq!(config.trusted_proxies.len(), 2);
    assert!(config.state_folder.is_some());
}

#[test]
fn traces_go_nowhere_unless_there_is_a_section_which_may_be_empty() {
    assert_eq!(read("").telemetry, None);
    assert_eq!(read("[telemetry]").telemetry, Some(TelemetrySetup::default()));
    let lines = "endpoint = 'https://collector.example/otlp'\nservice_name = 'front'\nsampling_ratio = 1\n\
                 headers_env = { authorization = 'PATH' }";
    let telemetry = read(&format!("[telemetry]\n{lines}")).telemetry.unwrap();
    assert_eq!(
        telemetry.endpoint.as_deref(),
        Some("https://collector.example/otlp")
    );
    assert_eq!(telemetry.service_name.as_deref(), Some("front"));
    assert_eq!(telemetry.sampling_ratio, Some(1.0));
    let path = std::env::var("PATH").unwrap();
    assert_eq!(telemetry.headers["authorization"], path);
    assert!(!format!("{telemetry:?}").contains(&path), "it may be a key");
}

#[test]
fn an_empty_file_is_the_built_in_model_without_limits() {
    let config = Config::parse("", Path::new("x")).unwrap();
    assert_eq!(config.models[0].name, "smollm2-135m");
    assert!(config.policies.is_empty());
}

#[test]
fn each_mistake_is_told_with_its_line() {
    let policy = |lines: &str| message(&format!("{MODEL}[[policies]]\nname = 'p'\n{lines}"));
    let deployment = |lines: &str| {
        message(&format!(
            "[models.m]\ndeployments = [{{ url = 'http://x', model = 'y', {lines} }}]"
        ))
    };
    for (found, expected) in [
        (message("lisen = 'x'"), "llm-engine.toml:1: unknown field `lisen`"),
        (
            message("[models.m]\n"),
            "llm-engine.toml:1: model 'm' needs either gguf",
        ),
        (
            message(&format!("{MODEL}context_tokns = 5")),
            "llm-engine.toml:3: unknown field `context_tokns`",
        ),
        (
            message(&format!("{MODEL}sha256 = 'abc'")),
            "llm-engine.toml:3: sha256 must be 64 hexadecimal digits",
        ),
        (
            message(&format!("{MODEL}[models.n]\ngguf = 'n'\naliases = ['m']")),
            "two models have the name 'm'",
        ),
        (
            message(&format!("{MODEL}queue_wait = 'soon'")),
            "llm-engine.toml:3: queue_wait is 'soon'; it must be a duration",
        ),
        (
            message("[replay]\nkeep = '2 days'"),
            "llm-engine.toml:2: keep is '2 days'; answers can be kept for at most 24 h",
        ),
        (
            message("[replay]\nmemory_bytes = 10\nanswer_bytes = 11"),
            "llm-engine.toml:3: answer_bytes is 11, but all answers together have 10",
        ),
        (
            message("[replay]\nmemory_bytes = 10\nmemory_bytes_per_caller = 11"),
            "llm-engine.toml:3: memory_bytes_per_caller is 11, but all answers together have 10",
        ),
        (
            message("[replay]\nmemory_bytes_per_caller = 10\nanswer_bytes = 11"),
            "llm-engine.toml:3: answer_bytes is 11, but all answers of a caller together have 10",
        ),
        (
            message("[replay]\nanswers = 0"),
            "llm-engine.toml:2: invalid value: integer `0`",
        ),
        (
            message("[telemetry]\nendpoint = 'collector:4317'"),
            "llm-engine.toml:2: endpoint is 'collector:4317'; it must begin with http:// or https://",
        ),
        (
            message("[telemetry]\nsampling_ratio = 10"),
            "llm-engine.toml:2: sampling_ratio is 10; it must be from 0 to 1",
        ),
        (
            message("[telemetry]\nsampling_ratio = nan"),
            "llm-engine.toml:2: sampling_ratio is NaN; it must be from 0 to 1",
        ),
        (
            message("[telemetry]\nheaders_env = { 'a b' = 'PATH' }"),
            "llm-engine.toml:2: headers_env has 'a b', which is no name of an HTTP header",
        ),
        (
            message("[telemetry]\nheaders_env = { authorization = 'LLM_ENGINE_UNSET' }"),
            "llm-engine.toml:2: the environment variable LLM_ENGINE_UNSET is not set",
        ),
        (policy(""), "llm-engine.toml:4: policy 'p' limits nothing"),
        (
            policy("requests = { limit = 0, window = '1m' }"),
            "llm-engine.toml:5: requests: the limit is 0",
        ),
        (
            policy("requests = { limit = 5, window = '1 parsec' }"),
            "llm-engine.toml:5: window is '1 parsec'",
        ),
        (
            policy("tokens = { limit = 5, window = '1m', strict = true }"),
            "llm-engine.toml:5: tokens: strict = true needs",
        ),
        (
            policy("concurrency = 1\nper = ['planet']"),
            "llm-engine.toml:6: unknown variant `planet`",
        ),
        (
            policy("concurrency = 1\nmatch = { caller = 'bob' }"),
            "llm-engine.toml:6: there is no caller 'bob'",
        ),
        (
            policy("concurrency = 1\nmatch = { team = 'x' }"),
            "llm-engine.toml:6: there is no team 'x'",
        ),
        (
            policy("concurrency = 1\nmatch = { model = 'n' }"),
            "llm-engine.toml:6: there is no model 'n'",
        ),
        (
            policy("concurrency = 1\nmatch = { route = '/v1' }"),
            "llm-engine.toml:6: route is '/v1'; it must be one of /v1/llm/completions-sync, \
             /v1/llm/completions-stream, /v1/chat/completions, /v1/completions, /v2/chat/completions, /v2/completions",
        ),
        (
            policy("concurrency = 1\nmatch = { planet = 'x' }"),
            "llm-engine.toml:6: unknown field `planet`",
        ),
        (
            policy("concurrency = 1\nmode = 'watch'"),
            "llm-engine.toml:6: unknown variant `watch`, expected `enforce` or `observe`",
        ),
        (
            policy("concurrency = 1\noutput_reservation = 'none'"),
            "llm-engine.toml:6: unknown variant `none`, expected `maximum` or `learned`",
        ),
        (
            policy("concurrency = 1\nhold = '61s'"),
            "llm-engine.toml:6: hold is '61s'; it can be at most 60 s, because times are booked no further ahead",
        ),
        (
            policy("concurrency = 1\nhold = 'long'"),
            "llm-engine.toml:6: hold is 'long'; it must be a duration",
        ),
        (
            policy("tokens = { limit = 5, window = 'calendar-year' }"),
            "llm-engine.toml:5: window is 'calendar-year'; it must be a duration such as \"1m\", or one of calendar-day",
        ),
        (
            policy("tokens = { limit = 5, window = 'calendar-day', time_zone = 'Berlin' }"),
            "llm-engine.toml:5: time_zone is 'Berlin'; it must be the name of a time zone, such as Europe/Berlin",
        ),
        (
            policy("tokens = { limit = 5, window = '1d', time_zone = 'UTC' }"),
            "llm-engine.toml:5: time_zone belongs to calendar-day, calendar-week and calendar-month",
        ),
        (
            policy("tokens = { limit = 5, window = 'calendar-day', burst = 2 }"),
            "llm-engine.toml:5: tokens: burst and strict belong to windows that refill steadily",
        ),
        (
            policy("tokens = { limit = 5, window = 'calendar-day', strict = true }"),
            "llm-engine.toml:5: tokens: burst and strict belong to windows that refill steadily",
        ),
        (
            policy("tokens = { limit = 0, window = 'calendar-day' }"),
            "llm-engine.toml:5: tokens: the limit is 0",
        ),
        (
            policy("tokens = { limit = 600_000_000_000_000, window = 'calendar-day' }"),
            "llm-engine.toml:5: tokens: the limit is above 562949953421312 tokens, the most that a calendar window",
        ),
        (
            policy("tokens = { limit = 0.5, window = '1m' }"),
            "llm-engine.toml:5: invalid type: floating point `0.5`, expected u64",
        ),
        (
            policy("usd = { limit = 5, window = '1d' }"),
            "llm-engine.toml:5: usd: no model that this applies to has a price",
        ),
        (
            policy("concurrency = 1\nper = ['user']\n[callers.a]\napi_key_file = '/dev/null'"),
            "api_key_file /dev/null is empty",
        ),
        (
            message(&format!(
                "{MODEL}[callers.a]\napi_key_sha256 = '{}'\n[[policies]]\nname = 'p'\nconcurrency = 1\nper = ['user']",
                "a".repeat(64)
            )),
            "llm-engine.toml:6: policy 'p' speaks of users, but no caller is believed for whom it asks",
        ),
        (
            policy("concurrency = 1\n[[policies]]\nname = 'p'\nconcurrency = 1"),
            "llm-engine.toml:7: two policies have the name 'p'",
        ),
        (
            policy("concurrency = 1\n[[policies]]\nname = 'p q'\nconcurrency = 1"),
            "llm-engine.toml:7: policy 'p q': a name has letters, digits, '-', '_' and '.' only",
        ),
        (
            deployment("mode = 'observe'"),
            "llm-engine.toml:2: mode, hold and output_reservation say how a deployment is limited, but this one is not",
        ),
        (
            deployment("requests = { limit = 0, window = '1m' }"),
            "llm-engine.toml:2: requests: the limit is 0",
        ),
        (
            deployment("usd = { limit = 1, window = '1m' }"),
            "llm-engine.toml:2: usd: no model that this applies to has a price",
        ),
        (
            message("trusted_proxies = [\n  '::1',\n  '10.0.0'\n]"),
            "llm-engine.toml:3: trusted_proxies has '10.0.0'; it must be an address or a network, such as 127.0.0.1 or \
             10.0.0.0/8",
        ),
        (
            message(&format!("{MODEL}price = {{ input = 1 }}")),
            "llm-engine.toml:3: unknown field `input`",
        ),
        (
            message(&format!("{MODEL}price = {{ input_usd_per_million = -1 }}")),
            "llm-engine.toml:3: -1 is not an amount of dollars, such as 20 or 0.15",
        ),
        (
            message(&format!("{MODEL}[callers.a]\nteam = 't'")),
            "llm-engine.toml:3: caller 'a' needs exactly one of",
        ),
        (
            message(&format!("{MODEL}[callers.a]\napi_key_env = 'LLM_ENGINE_UNSET'")),
            "LLM_ENGINE_UNSET is not set",
        ),
        (
            message("listen = '0.0.0.0:5000'"),
            "llm-engine.toml:1: listen is '0.0.0.0:5000', which others can reach",
        ),
        (
            message("trusted_proxies = ['127.0.0.1']"),
            "llm-engine.toml:1: trusted_proxies has '127.0.0.1', through which others can reach this server",
        ),
        (
            message("listen = 'nowhere'"),
            "llm-engine.toml:1: listen is 'nowhere'",
        ),
        (
            message("[models.m]\ndeployments = []"),
            "llm-engine.toml:2: a model has 1 to 64 deployments, not 0",
        ),
        (
            message("[models.m]\ndeployments = [{ url = 'ftp://x', model = 'y' }]"),
            "it must begin with http://",
        ),
    ] {
        assert!(found.contains(expected), "{found}\n  does not say\n{expected}");
    }
}

#[test]
fn a_limit_that_can_not_be_counted_exactly_is_refused_when_it_is_read() {
    let found = message(&format!(
        "{MODEL}[[policies]]\nname = 'p'\ntokens = {{ limit = 999999937, window = '1m' }}"
    ));
    assert!(found.contains("can't be counted exactly"), "{found}");
    let found = message(&format!(
        "{PRICED}[[policies]]\nname = 'p'\nusd = {{ limit = 99.999999937, window = '1m' }}"
    ));
    assert!(
        found.contains("llm-engine.toml:6: usd, in nano-dollars: 99999999937 per 60 s with burst"),
        "{found}"
    );
}

#[test]
fn dollars_are_exact_to_the_nano_dollar() {
    for (written, nano) in [
        ("20", 20_000_000_000),
        ("20.0", 20_000_000_000),
        ("0.1", 100_000_000),
        ("0.15", 150_000_000),
        ("0.000000001", 1),
        ("0.0000000014", 1),
        ("0.0000000016", 2),
        ("1e-3", 1_000_000),
        ("16.1", 16_100_000_000),
        ("1.005", 1_005_000_000),
        ("123456.123456789", 123_456_123_456_789),
        ("562949.953421312", Budget::MAX_LIMIT),
    ] {
        let budget =
            policy(&format!("usd = {{ limit = {written}, window = 'calendar-day' }}")).budgets[0].clone();
        assert_eq!((budget.unit, budget.limit), (Unit::Usd, nano), "{written}");
    }
}

#[test]
fn what_is_no_amount_of_dollars_is_refused() {
    for (written, expected) in [
        ("0", "usd, in nano-dollars: the limit is 0"),
        ("0.0000000004", "usd, in nano-dollars: the limit is 0"),
        ("-1.5", "-1.5 is not an amount of dollars"),
        ("nan", "NaN is not an amount of dollars"),
        ("inf", "inf is not an amount of dollars"),
        ("1e11", "100000000000 dollars are more than can be counted"),
        ("600_000", "usd: the limit is above $562949.953421312"),
        ("'20'", "invalid type: string \"20\", expected f64"),
    ] {
        let found = message(&format!(
            "{PRICED}[[policies]]\nname = 'p'\nusd = {{ limit = {written}, window = 'calendar-day' }}"
        ));
        assert!(found.starts_with("llm-engine.toml:6: "), "{found}");
        assert!(found.contains(expected), "{found}\n  does not say\n{expected}");
    }
}

#[test]
fn any_unit_has_any_window() {
    for unit in [
        Unit::Requests,
        Unit::InputTokens,
        Unit::OutputTokens,
        Unit::Tokens,
        Unit::Usd,
    ] {
        let name = unit.name();
        // A million of everything, which are a thousandth of a dollar.
        let limit = if unit == Unit::Usd { "0.001" } else { "1_000_000" };
        for (window, period) in [
            ("calendar-day", Period::Day),
            ("calendar-week", Period::Week),
            ("calendar-month", Period::Month),
        ] {
            let zone = "time_zone = 'Europe/Berlin'";
            let policy = policy(&format!(
                "{name} = {{ limit = {limit}, window = '{window}', {zone} }}"
            ));
            let budget = &policy.budgets[0];
            assert_eq!(
                (budget.unit, budget.limit, budget.period),
                (unit, 1_000_000, period)
            );
            assert_eq!(budget.zone.iana_name(), Some("Europe/Berlin"));
        }
        let policy = policy(&format!("{name} = {{ limit = {limit}, window = '30d' }}"));
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        assert_eq!(policy.quotas, [(unit, Quota::new(1_000_000, month).unwrap())]);
    }
}

#[test]
fn the_burst_of_money_is_in_dollars_and_calendars_are_those_of_utc_unless_they_say_otherwise() {
    let minute = Duration::from_secs(60);
    let strict = policy("usd = { limit = 3, window = '1m', burst = 0.5, strict = true }");
    let expected = Quota::strict(3_000_000_000, minute, 500_000_000).unwrap();
    assert_eq!(strict.quotas, [(Unit::Usd, expected)]);
    let daily = policy("usd = { limit = 3, window = 'calendar-day' }");
    assert_eq!(daily.budgets[0].zone.iana_name(), Some("UTC"));
}

#[test]
fn a_policy_says_whom_it_applies_to_what_it_is_counted_per_and_what_happens_beyond_it() {
    let plain = policy("concurrency = 3");
    assert_eq!(
        (plain.mode, plain.hold, plain.learned_output),
        (Mode::Enforce, Duration::ZERO, false)
    );
    assert_eq!(
        (plain.matches, plain.per),
        (MatchSetup::default(), Per::default())
    );

    let full = policy(
        "concurrency = 3\nmode = 'observe'\nhold = '60s'\noutput_reservation = 'learned'\n\
         per = ['key', 'user', 'team', 'model', 'route', 'address']\n\
         match = { caller = 'development', user = 'u', model = 'm', route = '/v1/completions' }",
    );
    assert_eq!(
        (full.mode, full.hold, full.learned_output),
        (Mode::Observe, Duration::from_secs(60), true)
    );
    assert_eq!(
        full.per,
        Per {
            caller: true,
            team: true,
            user: true,
            model: true,
            route: true,
            address: true
        }
    );
    assert_eq!(
        full.matches,
        MatchSetup {
            caller: Some("development".to_owned()),
            team: None,
            user: Some("u".to_owned()),
            model: Some("m".to_owned()),
            route: Some("/v1/completions".to_owned()),
        }
    );
}

#[test]
fn money_is_limited_where_some_model_has_a_price() {
    let two = format!("{PRICED}[models.free]\naliases = ['gratis']\ngguf = 'f'\n[[policies]]\nname = 'p'\n");
    let daily = "usd = { limit = 1, window = 'calendar-day' }";
    assert_eq!(read(&format!("{two}{daily}")).policies.len(), 1);
    let found = message(&format!("{two}match = {{ model = 'gratis' }}\n{daily}"));
    assert!(
        found.contains("usd: no model that this applies to has a price"),
        "{found}"
    );
}

#[test]
fn prices_are_in_nano_dollars_per_million_tokens() {
    let price = |lines: &str| read(&format!("{MODEL}{lines}")).models[0].price;
    assert_eq!(
        price("price = { input_usd_per_million = 0.15, output_usd_per_million = 0.60 }"),
        PriceSetup {
            input: 150_000_000,
            output: 600_000_000
        }
    );
    assert_eq!(price("").input, 0);
}

#[test]
fn what_a_deployment_may_be_asked_for_becomes_a_policy_of_its_model() {
    let deployment = |more: &str| format!("deployments = [{{ url = 'http://x', model = 'y'{more} }}]\n");
    let limited = deployment(
        ", requests = { limit = 500, window = '1m' }, usd = { limit = 9, window = 'calendar-month' }, \
         concurrency = 7, mode = 'observe', hold = '5s'",
    );
    let price = "price = { input_usd_per_million = 1 }";
    let config = read(&format!(
        "[models.'a/b']\n{limited}{price}\n[models.a-b]\n{limited}{price}\n[models.free]\n{}\n\
         [[policies]]\nname = 'a-b.deployment'\nconcurrency = 1\n",
        deployment("")
    ));
    let names: Vec<&str> = config
        .policies
        .iter()
        .map(|policy| policy.name.as_str())
        .collect();
    assert_eq!(names, ["a-b.deployment", "a-b.deployment-2", "a-b.deployment-3"]);
    let models: Vec<_> = config
        .policies
        .iter()
        .map(|policy| policy.matches.model.as_deref())
        .collect();
    assert_eq!(models, [None, Some("a-b"), Some("a/b")]);
    let policy = &config.policies[1];
    assert_eq!(policy.per, Per::default());
    assert_eq!(
        policy.quotas,
        [(Unit::Requests, Quota::new(500, Duration::from_secs(60)).unwrap())]
    );
    assert_eq!(policy.budgets[0].limit, 9_000_000_000);
    assert_eq!(policy.concurrency.map(u32::from), Some(7));
    assert_eq!(
        (policy.mode, policy.hold),
        (Mode::Observe, Duration::from_secs(5))
    );
}

#[test]
fn there_can_be_64_policies_those_of_deployments_among_them() {
    let policies = |count: usize| {
        let policy = |number| format!("[[policies]]\nname = 'p{number}'\nconcurrency = 1\n");
        let policies: String = (0..count).map(policy).collect();
        format!(
            "[models.m]\ndeployments = [{{ url = 'http://x', model = 'y', concurrency = 1 }}]\n{policies}"
        )
    };
    assert_eq!(read(&policies(63)).policies.len(), 64);
    assert_eq!(
        message(&policies(64)),
        "llm-engine.toml:2: there are more than 64 policies, those of deployments among them"
    );
}

#[test]
fn a_policy_is_described_in_one_line() {
    let line = |lines: &str| policy_words::line(&policy(lines));
    assert_eq!(
        line("concurrency = 1\nrequests = { limit = 60, window = '1m', burst = 20 }"),
        "p, all together: 60 requests per minute (at most 20 at once), 1 request at the same time"
    );
    assert_eq!(
        line("per = ['key', 'model']\nusd = { limit = 20, window = '1d', burst = 2.5, strict = true }"),
        "p, each key and model: $20.00 per day (at most $2.50 at once, in any window)"
    );
    assert_eq!(
        line(
            "per = ['user', 'address', 'route']\nmatch = { model = 'm', route = '/v1/completions', user = 'u' }\n\
             usd = { limit = 20, window = 'calendar-month', time_zone = 'Europe/Berlin' }\nmode = 'observe'"
        ),
        "p for user u and model m and route /v1/completions, each user and route and address: $20.00 per calendar \
         month (Europe/Berlin) (observed only)"
    );
    assert_eq!(
        line("tokens = { limit = 9, window = '1h' }\nhold = '30s'"),
        "p, all together: 9 tokens per hour (held up to 30 s)"
    );
}

#[test]
fn proxies_are_networks_or_single_addresses_and_state_is_kept_beside_the_file() {
    let caller = format!("[callers.a]\napi_key_sha256 = '{}'\n", "a".repeat(64));
    let config = read(&format!(
        "trusted_proxies = ['10.0.0.0/8', '::1', '192.0.2.7']\nstate_folder = 'state'\n{caller}"
    ));
    let networks: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]);
    assert_eq!(config.state_folder.as_deref(), Some(Path::new("folder/state")));
    let config = read("state_folder = '/var/lib/x'");
    assert_eq!(config.state_folder.as_deref(), Some(Path::new("/var/lib/x")));
    assert!(config.trusted_proxies.is_empty());
}

#[test]
fn answers_are_kept_for_ten_minutes_unless_the_file_says_otherwise() {
    let replay = read("").replay;
    assert_eq!(replay.keep, Duration::from_secs(600));
    assert!(replay.answer_bytes < replay.memory_bytes && replay.answers_per_caller < replay.answers);
    assert_eq!(read("[replay]\nkeep = '0s'").replay.keep, Duration::ZERO);
    let small = read("[replay]\nmemory_bytes = 1_000").replay;
    assert_eq!((small.memory_bytes, small.answer_bytes), (1_000, 1_000));
    assert_eq!(replay.memory_bytes_per_caller, replay.memory_bytes / 4);
    assert_eq!(small.memory_bytes_per_caller, 1_000, "one answer fits");
    let shared = read("[replay]\nmemory_bytes_per_caller = 2_000").replay;
    assert_eq!(
        (shared.memory_bytes_per_caller, shared.answer_bytes),
        (2_000, 2_000)
    );
}

#[test]
fn a_configuration_says_what_of_another_needs_a_restart() {
    let caller = format!("[callers.a]\napi_key_sha256 = '{}'\n", "a".repeat(64));
    let model =
        |more: &str| format!("[models.m]\ndeployments = [{{ url = 'http://x', model = 'y' }}]\n{more}\n");
    let old = read(&format!("{}{caller}", model("")));
    let changed = |new: &str| old.restart_needed_for(&read(new));

    assert!(changed(&format!("{}{caller}", model(""))).is_empty());
    assert!(
        changed(&model(
            "price = { input_usd_per_million = 1 }\n[[policies]]\nname = 'p'\nconcurrency = 1"
        ))
        .is_empty(),
        "prices, callers and policies can be taken at any time"
    );
    assert_eq!(changed(&model("concurrency = 3")), ["models"]);
    assert_eq!(changed(&model("").replace("http://x", "http://z")), ["models"]);
    assert_eq!(changed(MODEL), ["models"]);
    assert_eq!(
        changed(&format!(
            "listen = '127.0.0.1:1'\nstate_folder = 's'\ntrusted_proxies = ['::1']\n{}[models.n]\ngguf = 'n'\n{caller}\
             [replay]\nkeep = '1h'\n[files]\nkeep = '1h'\n[batches]\nrows = 1",
            model("")
        )),
        [
            "listen",
            "models",
            "trusted_proxies",
            "state_folder",
            "files",
            "batches",
            "replay"
        ]
    );
}

#[test]
fn a_caller_has_the_team_and_the_rights_that_it_is_given() {
    let digest = |digit: &str| format!("api_key_sha256 = '{}'", digit.repeat(64));
    let text = format!(
        "{MODEL}[callers.a]\nteam = 't'\noperator = true\n{}\n[callers.b]\nteam = 't'\ntrusted_users = true\n{}\n\
         [callers.c]\n{}\n[[policies]]\nname = 'p'\nmatch = {{ team = 't' }}\nconcurrency = 1",
        digest("a"),
        digest("b"),
        digest("c"),
    );
    let config = read(&text);
    let callers: Vec<_> = config
        .callers
        .iter()
        .map(|caller| (caller.team.as_deref(), caller.is_operator, caller.names_users))
        .collect();
    assert_eq!(
        callers,
        [
            (Some("t"), true, false),
            (Some("t"), false, true),
            (None, false, false)
        ]
    );
    assert_eq!(config.policies[0].matches.team.as_deref(), Some("t"));
}

#[test]
fn files_and_batches_have_bounds_unless_the_file_has_others() {
    let config = read("");
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(
        (config.files.file_bytes, config.files.bytes_per_caller),
        (100 << 20, 1 << 30)
    );
    assert_eq!(
        (config.files.files_per_caller, config.files.keep),
        (1_000, 30 * day)
    );
    assert_eq!((config.batches.rows, config.batches.per_caller), (50_000, 1_000));
    assert_eq!(
        (config.batches.running_per_caller.get(), config.batches.keep),
        (4, 30 * day)
    );
    let small = read("[files]\nbytes_per_caller = 1_000\n[batches]\nkeep = '1h'");
    assert_eq!(
        (small.files.file_bytes, small.batches.keep),
        (1_000, Duration::from_secs(3600))
    );
    for (text, said) in [
        (
            "[files]\nfile_bytes = 2\nbytes_per_caller = 1",
            "file_bytes is 2, but all files of a caller",
        ),
        ("[files]\nkeep = '366d'", "at most 365d"),
        ("[batches]\nkeep = '0s'", "more than 0s"),
        ("[batches]\nrows = 0", "nonzero"),
    ] {
        let error = Config::parse(text, Path::new("x")).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
