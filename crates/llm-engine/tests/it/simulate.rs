//! What policies would have done to the requests of a log, and to made-up ones.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::program::{Finished, SETTINGS, run};

const CONFIG: &str = "
listen = '127.0.0.1:0'
state_folder = 'state'

[models.m]
deployments = [{ url = 'http://127.0.0.1:9/v1', model = 'x' }]
price = { input_usd_per_million = 1, output_usd_per_million = 1 }

[callers.alice]
api_key_sha256 = '9d8a1d4d4e5b8d6a7c2f0b3e1f4a5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1a2b'
";

const PER_MINUTE: &str = "[[policies]]\nname = 'per-minute'\nrequests = { limit = 100, window = '1m' }\n";

/// As the server has written it.
const RECORD: &str = r#"{"timestamp":"2026-11-24T09:53:35.540984Z","level":"INFO","message":"request","request_id":"7a909ece-4a4f-4d77-8f03-3730b117120d","caller":"alice","model":"m","route":"/v1/chat/completions","outcome":"completed","status":200,"asked_input_tokens":19,"asked_output_tokens":5,"input_tokens":38,"output_tokens":5,"usage_estimated":false,"nano_usd":43000,"admitted_after_ms":0.012,"duration_ms":1.315,"target":"llm_engine::request"}"#;

struct Simulated {
    folder: TempDir,
}

impl Simulated {
    fn with(policies: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("engine.toml"), format!("{CONFIG}{policies}")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the program says with this configuration and these arguments.
    async fn run(&self, arguments: &[&str]) -> Finished {
        let config = self.path("engine.toml");
        let first = ["simulate", "--config", config.to_str().unwrap()];
        run(&[&first, arguments].concat()).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let finished = self.run(&[arguments, &["--json", "-"]].concat()).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        serde_json::from_str(&finished.output).unwrap()
    }

    fn log(&self, lines: &[&str]) -> String {
        let path = self.path("requests.jsonl");
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn of_300_simulated_requests_at_once_100_a_minute_are_admitted() {
    let simulated = Simulated::with(PER_MINUTE);
    let (json, plot) = (simulated.path("report.json"), simulated.path("plot.svg"));
    let load = ["--load", "caller=alice requests=300 retry=none"];
    let files = ["--json", json.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let finished = simulated
        .run(
            &[
                load,
                files[..2].try_into().unwrap(),
                files[2..].try_into().unwrap(),
            ]
            .concat(),
        )
        .await;
    assert_eq!(
        (finished.code, finished.errors.as_str()),
        (Some(0), ""),
        "{finished:?}"
    );

    let words = |begin: &str| -> Vec<String> {
        let line = finished
            .output
            .lines()
            .find(|line| line.trim_start().starts_with(begin));
        let line = line.unwrap_or_else(|| panic!("no {begin} in {}", finished.output));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        words("policy")[..4],
        ["policy", "requests", "admitted", "refused"]
    );
    assert_eq!(words("all requests")[2..5], ["300", "100", "200"]);
    assert_eq!(words("per-minute")[1..4], ["300", "100", "200"]);
    assert_eq!(
        words("alice").last_chunk(),
        Some(&["per-minute", "200"].map(str::to_owned))
    );
    assert!(
        finished.output.contains("100 requests per minute"),
        "{}",
        finished.output
    );
    assert_eq!(words("calls per success")[3], "3.00");

    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["total"]["admitted"], 100);
    assert_eq!(report["policies"][0]["policy"], "per-minute");
    assert_eq!(report["policies"][0]["quotas"][0]["settled"], 100);
    assert_eq!(report["callers"][0]["refused_by"]["per-minute"], 200);
    assert_eq!(report["notes"], Value::Array(Vec::new()));

    let svg = std::fs::read_to_string(plot).unwrap();
    let plot = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<&str> = plot
        .descendants()
        .filter_map(|node| node.text())
        .map(str::trim)
        .collect();
    for expected in ["admitted", "held", "refused", "per-minute requests"] {
        assert!(texts.contains(&expected), "{expected} is not in {texts:?}");
    }
}

#[tokio::test]
async fn a_simulation_is_the_same_for_one_seed_and_another_for_another() {
    let simulated = Simulated::with(PER_MINUTE);
    let load = ["--load", "callers=5 rate=3/s for=2m retry=tenacity"];
    let first = simulated.json(&load).await;
    assert_eq!(first, simulated.json(&load).await);
    assert_ne!(
        first,
        simulated.json(&[&load[..], &["--seed", "2"]].concat()).await
    );
    assert!(
        first["total"]["requests"].as_u64().unwrap().abs_diff(360) < 60,
        "{first}"
    );
    assert!(first["total"]["lost"].as_u64().unwrap() > 0, "{first}");
}

#[tokio::test]
async fn clients_that_are_told_when_to_come_need_few_calls() {
    let simulated =
        Simulated::with("[[policies]]\nname = 'p'\nrequests = { limit = 10, window = '1s', burst = 1 }\n");
    let report = simulated.json(&["--load", "callers=100 requests=100"]).await;
    assert_eq!(report["total"]["admitted"], 100);
    assert!(
        report["total"]["calls_per_success"].as_f64().unwrap() <= 2.0,
        "{report}"
    );
    assert_eq!(report["bookings"]["kept"], 99);
}

#[tokio::test]
async fn a_log_is_replayed_under_other_policies() {
    let simulated =
        Simulated::with("[[policies]]\nname = 'day'\nrequests = { limit = 2, window = 'calendar-day' }\n");
    let other = RECORD.replace("alice", "bob").replace("\"m\"", "\"gpt\"");
    let tomorrow = RECORD.replace("11-24T09", "11-25T00");
    let about = r#"{"timestamp":"2026-11-24T07:41:24Z","level":"INFO","message":"listening","target":"llm_engine_server::serve"}"#;
    let log = simulated.log(&[RECORD, RECORD, about, RECORD, &other, &tomorrow]);
    let report = simulated.json(&["--log", &log]).await;
    assert_eq!(
        report["start"], "2026-11-24T09:53:35.539669Z",
        "when the first request began"
    );
    assert_eq!(report["total"]["requests"], 5);
    assert_eq!(
        report["total"]["admitted"], 3,
        "two on the first day, one on the second"
    );
    assert_eq!(report["total"]["settled"]["input_tokens"], 3 * 38);
    assert_eq!(report["total"]["settled"]["usd"], 3.0 * 0.000_043);
    let callers = report["callers"].as_array().unwrap();
    let known: Vec<(&Value, &Value)> = callers
        .iter()
        .map(|caller| (&caller["caller"], &caller["known"]))
        .collect();
    assert_eq!(
        known,
        [(&"alice".into(), &true.into()), (&"bob".into(), &false.into())]
    );
    let notes = report["notes"].to_string();
    for note in ["1 line of the log", "bob (1 request)", "gpt (1 request)"] {
        assert!(notes.contains(note), "{notes}");
    }
}

#[tokio::test]
async fn refused_requests_of_a_log_come_back_when_they_are_told_if_that_is_wanted() {
    let simulated = Simulated::with("[[policies]]\nname = 'p'\nrequests = { limit = 1, window = '1s' }\n");
    let log = simulated.log(&[RECORD; 5]);
    let report = simulated.json(&["--log", &log]).await;
    assert_eq!(report["total"]["admitted"], 1);
    let report = simulated.json(&["--log", &log, "--retry", "told"]).await;
    assert_eq!(report["total"]["admitted"], 5);
}

#[tokio::test]
async fn what_is_wrong_with_a_simulation_is_exit_code_2_and_told() {
    let simulated = Simulated::with("");
    let first = simulated.log(&[RECORD]);
    let first = std::fs::copy(first, simulated.path("first.jsonl"))
        .map(|_| simulated.path("first.jsonl"))
        .unwrap();
    let first = first.to_str().unwrap();
    let log = simulated.log(&[RECORD, "2026-11-24T08:14:01Z  INFO llm_engine::request: request"]);
    for (arguments, expected) in [
        (&[][..], "error: nothing to simulate: name a log with --log FILE"),
        (&["--log", "/no/such/log"], "error: --log /no/such/log: "),
        (
            &["--log", first, "--start", "2026-11-25T00:00:00Z"],
            "error: --start 2026-11-25T00:00:00Z: the first request",
        ),
        (
            &["--log", &log],
            &*format!("error: {log}:2: this line is not JSON"),
        ),
        (
            &["--load", "rate=fast"],
            "error: --load \"rate=fast\": rate=fast: it must be a number per time",
        ),
        (
            &["--load", "model=gpt"],
            "error: --load \"model=gpt\": model=gpt: it must be one of m",
        ),
        (
            &["--load", "", "--plot", "plot.png"],
            "error: --plot plot.png: plots are SVG",
        ),
    ] {
        let finished = simulated.run(arguments).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert_eq!(finished.output, "");
        assert!(finished.errors.starts_with(expected), "{}", finished.errors);
    }
}

#[tokio::test]
async fn the_log_of_a_running_server_can_be_simulated() {
    let key = "key-of-alice";
    let simulated = Simulated::with("");
    let config = CONFIG.replace("api_key_sha256", "api_key_env = 'ALICE_KEY' #");
    std::fs::write(simulated.path("engine.toml"), config).unwrap();
    let log = served_log(&simulated.path("engine.toml"), key).await;
    std::fs::write(simulated.path("engine.toml"), format!("{CONFIG}{PER_MINUTE}")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let path = simulated.log(&lines);
    let report = simulated.json(&["--log", &path]).await;
    assert_eq!(report["total"]["requests"], 1, "{log}");
    assert_eq!(report["callers"][0]["caller"], "alice");
    assert_eq!(report["callers"][0]["known"], true);
}

/// Starts a server, sends it a request that its deployment can't answer, and returns its log up to the record of that.
async fn served_log(config: &Path, key: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-engine"));
    command.args([
        "serve",
        "--log-format",
        "json",
        "--config",
        config.to_str().unwrap(),
    ]);
    for name in SETTINGS {
        command.env_remove(name);
    }
    command.env("ALICE_KEY", key).kill_on_drop(true);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut output = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(server.stderr.take().unwrap()).lines();
    let talk = async {
        let address = loop {
            let line = output
                .next_line()
                .await
                .unwrap()
                .expect("the server tells its address");
            if let Some((_, address)) = line.split_once("http://") {
                break address.to_owned();
            }
        };
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let body = r#"{"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}"#;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let mut log = String::new();
        while !log.contains("llm_engine::request") {
            log += &errors
                .next_line()
                .await
                .unwrap()
                .expect("the server logs the request");
            log += "\n";
        }
        log
    };
    timeout(Duration::from_secs(30), talk)
        .await
        .expect("the server answers in time")
}

#[tokio::test]
async fn an_overload_is_compared_with_the_best_fixed_limit() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let settings = "load=2 seeds=2 for=100s warm_up=40s limit=sweep";
    let arguments = [
        "simulate",
        "--overload",
        settings,
        "--plot",
        plot.to_str().unwrap(),
        "--json",
        "-",
    ];
    let finished = run(&arguments).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.output).unwrap();
    let adaptive = &report["rows"][1];
    assert_eq!(adaptive["limit"], "adaptive");
    assert!(
        adaptive["of_best_fixed"]["mean"].as_f64().unwrap() > 0.8,
        "{report}"
    );
    let svg = std::fs::read_to_string(plot).unwrap();
    assert!(roxmltree::Document::parse(&svg).is_ok() && svg.contains("in flight"));

    let wrong = run(&["simulate", "--overload", "lode=1"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}
