//! How much of bare llama.cpp's speed reaches a client of the worker.
//!
//! Rounds alternate between a plain loop over the library in this process and the worker in a process of its own, over
//! its socket, with the same threads, prompts and number of tokens, always taking the likeliest token. What is timed is
//! all of it, from the prompt to the last token. Then the worker alone: answers that must have a form and those that
//! need not, taking turns. `LLM_ENGINE_TEST_GGUF` says where the model file is.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llm_engine_worker::{Options, Worker};
use serde_json::{Value, json};

const PROMPT: &str = "Once upon a time, in a small village by the sea, there lived an old fisherman who";
const TOKENS: usize = 128;
const ROUNDS: usize = 5;
const PARALLEL: usize = 4;
const CONTEXT_TOKENS: u32 = 2048;
/// The share of bare speed that must arrive.
const NEEDED: f64 = 0.9;
/// How many times as long as a free answer one may take that must have a form.
const GUIDED_AT_MOST: f64 = 2.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--worker") {
        serve(Path::new(&arguments[at + 1]), Path::new(&arguments[at + 2]));
        return ExitCode::SUCCESS;
    }
    let gguf = std::env::var_os("LLM_ENGINE_TEST_GGUF").map(PathBuf::from);
    let gguf = gguf.expect("set LLM_ENGINE_TEST_GGUF to the path of a model file");
    if compare(&gguf) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The worker's process.
#[expect(
    clippy::print_stdout,
    reason = "tells the measuring process that the socket is bound"
)]
fn serve(gguf: &Path, socket: &Path) {
    let options = Options::new(gguf.to_owned(), socket.to_owned(), "bench".to_owned());
    let worker = Worker::start(options).expect("the worker starts");
    println!("ready");
    worker.serve(std::future::pending()).expect("the worker serves");
}

#[expect(clippy::print_stdout, reason = "the result of the benchmark")]
fn compare(gguf: &Path) -> bool {
    llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default().with_logs_enabled(false));
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let socket = folder.path().join("bench.sock");
    let mut worker = spawn(gguf, &socket);
    let backend = LlamaBackend::init().expect("llama.cpp starts");
    let model = LlamaModel::load_from_file(&backend, gguf, &LlamaModelParams::default()).expect("a model");
    let threads = Options::new(gguf.to_owned(), socket.clone(), String::new()).threads;
    let mut context = new_context(&backend, &model, threads);
    let mut enough = true;
    println!("{TOKENS} tokens, {threads} thread(s), median of {ROUNDS} rounds, tokens/s");
    for streams in [1, PARALLEL] {
        let (mut bare, mut served) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let bare_time = bare_loop(&model, &mut context, streams);
            let served_time = ask_worker(&socket, streams, &json!({}));
            // The first round warms up.
            if round > 0 {
                bare.push(bare_time);
                served.push(served_time);
            }
        }
        let (bare, served) = (speed(streams, bare), speed(streams, served));
        println!(
            "{streams} stream(s): bare {bare:.1}, worker {served:.1}, ratio {:.3}",
            served / bare
        );
        enough &= served / bare >= NEEDED;
    }
    println!("time of an answer that must have a form, in times that of a free one");
    for streams in [1, PARALLEL] {
        for (name, form) in forms() {
            let (mut free, mut guided) = (Vec::new(), Vec::new());
            for round in 0..=ROUNDS {
                let free_time = ask_worker(&socket, streams, &json!({}));
                let guided_time = ask_worker(&socket, streams, &form);
                // The first round compiles.
                if round > 0 {
                    free.push(free_time);
                    guided.push(guided_time);
                }
            }
            let ratio = speed(streams, free) / speed(streams, guided);
            println!("{streams} stream(s): {name} {ratio:.3}");
            enough &= ratio <= GUIDED_AT_MOST;
        }
    }
    worker.kill().expect("the worker ends");
    worker.wait().expect("the worker has ended");
    enough
}

/// Forms of which every answer is longer than it may be, so that as many tokens are drawn as without one.
fn forms() -> [(&'static str, Value); 4] {
    let texts: Vec<String> = (0..50)
        .map(|number| format!("{number} times {}", "a long way to go, ".repeat(60)))
        .collect();
    let person = json!({
        "type": "object", "required": ["name", "age", "tags"], "additionalProperties": false,
        "properties": {
            "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 1},
        },
    });
    let grammar = "start: sum\nsum: item ((\"+\" | \"-\" | \"*\") item){500}\nitem: NUMBER | NAME | \"(\" sum \")\"\n\
                   NUMBER: /[0-9]{1,8}/\nNAME: /[a-z]{1,12}/";
    let guided = |name: &str, form: Value| json!({"ignore_eos": false, name: form});
    [
        ("choice", guided("guided_choice", json!(texts))),
        (
            "regex",
            guided("guided_regex", json!("([A-Z][a-z]+( [a-z]+){1,9}\\. ){200}")),
        ),
        (
            "schema",
            guided(
                "guided_json",
                json!({"type": "array", "items": person, "minItems": 200}),
            ),
        ),
        ("grammar", guided("guided_grammar", json!(grammar))),
    ]
}

fn spawn(gguf: &Path, socket: &Path) -> Child {
    let program = std::env::current_exe().expect("a path of this program");
    let mut command = Command::new(program);
    command
        .arg("--worker")
        .arg(gguf)
        .arg(socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("a worker process");
    let mut line = String::new();
    let output = child.stdout.take().expect("the worker's output");
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    child
}

fn new_context<'model>(
    backend: &LlamaBackend,
    model: &'model LlamaModel,
    threads: NonZeroU32,
) -> LlamaContext<'model> {
    let threads = i32::try_from(threads.get()).expect("few threads");
    let parallel = u32::try_from(PARALLEL).expect("few streams");
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(CONTEXT_TOKENS * parallel))
        .with_n_seq_max(parallel)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    model.new_context(backend, params).expect("a context")
}

/// The simplest loop over the library.
fn bare_loop(model: &LlamaModel, context: &mut LlamaContext<'_>, streams: usize) -> Duration {
    let started = Instant::now();
    let prompt = model.vocab().tokenize(PROMPT.as_bytes(), true, true);
    let mut batch = LlamaBatch::new(512, 1);
    let sequences: Vec<i32> = (0..).take(streams).collect();
    let mut sampler = LlamaSampler::chain([LlamaSampler::greedy()], true);
    let mut outputs = Vec::new();
    for &sequence in &sequences {
        for (position, &token) in (0..).zip(&prompt) {
            let is_last = usize::try_from(position + 1) == Ok(prompt.len());
            batch.add(token, position, &[sequence], is_last).expect("room");
        }
        outputs.push(batch.n_tokens() - 1);
    }
    let mut position = i32::try_from(prompt.len()).expect("a short prompt");
    let mut text = Vec::new();
    for step in 1..=TOKENS {
        context.decode(&mut batch).expect("a decode step");
        let tokens: Vec<LlamaToken> = outputs
            .iter()
            .map(|&output| sampler.sample(context, output))
            .collect();
        batch.clear();
        outputs.clear();
        for (&sequence, &token) in sequences.iter().zip(&tokens) {
            model.vocab().token_to_piece_into(token, &mut text, false, None);
            outputs.push(batch.n_tokens());
            batch.add(token, position, &[sequence], true).expect("room");
        }
        if step < TOKENS {
            position += 1;
        }
    }
    let elapsed = started.elapsed();
    context.clear_kv_cache();
    elapsed
}

/// The same through the worker, as the gateway asks: streamed, with the usage in every chunk.
fn ask_worker(socket: &Path, streams: usize, more: &Value) -> Duration {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..streams {
            scope.spawn(|| ask(socket, more));
        }
    });
    started.elapsed()
}

fn ask(socket: &Path, more: &Value) {
    let mut body = json!({
        "model": "bench", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true,
        "stream": true, "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    let body = body.to_string();
    let mut stream = UnixStream::connect(socket).expect("a connection");
    let head = "POST /v1/completions HTTP/1.1\r\nhost: worker\r\nconnection: close\r\ncontent-length: ";
    write!(stream, "{head}{}\r\n\r\n{body}", body.len()).expect("a written request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("data: [DONE]"), "{answer}");
    assert!(
        answer.contains(&format!("\"completion_tokens\":{TOKENS}")),
        "{answer}"
    );
}

/// The median, in tokens per second over all streams.
fn speed(streams: usize, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let tokens = u32::try_from(streams * TOKENS).expect("few tokens");
    f64::from(tokens) / times[times.len() / 2].as_secs_f64()
}
