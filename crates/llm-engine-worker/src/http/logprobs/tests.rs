//! Log-probabilities beside those that follow from the logits of the same model, computed one token at a time and in
//! double precision. `LLM_ENGINE_TEST_GGUF` says where the model file is.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use serde_json::{Value, json};

use crate::engine::backend;
use crate::model::Model;
use crate::options::Options;
use crate::worker::Worker;

const PROMPT: &str = "The capital of France is";

/// All log-probabilities after the prompt, and after each of the tokens but the last.
fn reference(model: &Model, prompt: &[LlamaToken], tokens: &[LlamaToken]) -> Vec<Vec<f64>> {
    let params = LlamaContextParams::default()
        .with_n_threads(1)
        .with_n_threads_batch(1);
    let mut context = model.llama().new_context(backend().unwrap(), params).unwrap();
    let mut batch = LlamaBatch::new(1, 1);
    let mut all = Vec::new();
    for (position, &token) in (0..).zip(prompt.iter().chain(tokens)) {
        batch.clear();
        batch.add(token, position, &[0], true).unwrap();
        context.decode(&mut batch).unwrap();
        let logits: Vec<f64> = context
            .get_logits_ith(0)
            .iter()
            .map(|&logit| f64::from(logit))
            .collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total = logits
            .iter()
            .map(|logit| (logit - largest).exp())
            .sum::<f64>()
            .ln()
            + largest;
        all.push(logits.iter().map(|logit| logit - total).collect());
    }
    all.drain(..prompt.len() - 1);
    all
}

fn ask(socket: &Path, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: worker\r\nconnection: close\r\ncontent-length: ";
    write!(stream, "{head}{}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[test]
fn log_probabilities_are_those_of_the_model_s_logits() {
    let gguf = std::env::var_os("LLM_ENGINE_TEST_GGUF")
        .map(PathBuf::from)
        .unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("worker.sock");
    let options = Options::new(gguf, socket.clone(), "m".to_owned());
    let model = Model::load(backend().unwrap(), &options).unwrap();
    let worker = Worker::start(options).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || worker.serve(async move { drop(stopped.await) }));
    let prompt = model.tokenize("prompt", PROMPT).unwrap();
    // Drawn under penalties and a grammar: what is reported is the model's own opinion all the same.
    for more in [
        json!({"temperature": 0}),
        json!({"temperature": 1, "seed": 7, "frequency_penalty": 1.5, "guided_regex": "[a-z ]+"}),
    ] {
        let mut body = json!({"model": "m", "prompt": PROMPT, "max_tokens": 12, "logprobs": 5});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = ask(&socket, &body);
        let told = &answer["choices"][0]["logprobs"];
        let names: Vec<&str> = told["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert_eq!(names.concat(), answer["choices"][0]["text"].as_str().unwrap());
        // Each name is a token of its own, since none of them is a part of a character.
        let tokens: Vec<LlamaToken> = names.iter().map(|name| token(&model, name)).collect();
        let expected = reference(&model, &prompt, &tokens);
        let mut offset = 0;
        for (index, &token) in tokens.iter().enumerate() {
            let logprob = told["token_logprobs"][index].as_f64().unwrap();
            let own = expected[index][usize::try_from(token.0).unwrap()];
            assert!(
                (logprob - own).abs() < 0.01,
                "{}: {logprob} instead of {own}",
                names[index]
            );
            check_top(&model, &told["top_logprobs"][index], &expected[index]);
            assert_eq!(told["text_offset"][index], offset);
            offset += names[index].chars().count();
        }
    }
    drop(stop);
    serving.join().unwrap().unwrap();
}

fn check_top(model: &Model, told: &Value, expected: &[f64]) {
    let mut likeliest: Vec<f64> = expected.to_vec();
    likeliest.sort_by(|a, b| b.total_cmp(a));
    let told = told.as_object().unwrap();
    assert!((5..=6).contains(&told.len()), "{told:?}");
    for (place, (name, logprob)) in told.iter().enumerate() {
        let own = expected[usize::try_from(token(model, name).0).unwrap()];
        let logprob = logprob.as_f64().unwrap();
        assert!((logprob - own).abs() < 0.01, "{name}: {logprob} instead of {own}");
        if place < 5 {
            assert!(
                (logprob - likeliest[place]).abs() < 0.01,
                "{name} is not one of the likeliest"
            );
        }
    }
}

fn token(model: &Model, name: &str) -> LlamaToken {
    let mut tokens = model
        .llama()
        .tokens(true)
        .filter(|(_, bytes)| bytes == name.as_bytes());
    tokens.next().map(|(token, _)| token).unwrap()
}
