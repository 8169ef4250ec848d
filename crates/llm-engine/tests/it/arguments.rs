//! What is wrong before anything runs is told at once, with exit code 2 and nothing started.

use std::net::TcpListener;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::program::{Finished, run, run_in};

/// A folder with a configuration in it.
fn configured(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("engine.toml");
    std::fs::write(&config, text).unwrap();
    (folder, config)
}

/// Serves with this configuration, which is expected to be refused.
async fn refused(text: &str) -> Finished {
    let (_folder, config) = configured(text);
    let finished = run(&["serve", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert_eq!(
        finished.output, "",
        "nothing was started, so nothing is announced"
    );
    assert!(finished.errors.starts_with("error: "), "{finished:?}");
    finished
}

#[tokio::test]
async fn help_shows_examples() {
    for (arguments, example) in [
        (&["--help"][..], "llm-engine serve --config llm-engine.toml"),
        (
            &["complete", "--help"],
            "llm-engine complete \"Why is the sky blue?\"",
        ),
    ] {
        let help = run(arguments).await;
        assert_eq!(help.code, Some(0));
        let examples = help.output.split_once("Examples:").expect("there are examples").1;
        assert!(examples.contains(example), "{}", help.output);
    }
}

#[tokio::test]
async fn arguments_that_are_not_understood_are_exit_code_2() {
    for arguments in [&[][..], &["sreve"], &["serve", "--confg", "x"], &["complete"]] {
        let finished = run(arguments).await;
        assert_eq!(finished.code, Some(2), "{arguments:?}");
        assert_eq!(finished.output, "", "{arguments:?}");
        assert!(finished.errors.contains("Usage: llm-engine"), "{finished:?}");
    }
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_told_with_file_and_line_before_an_address_is_bound() {
    // Whoever tried to bind this address would complain about it, and not about the mistake.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let text = format!("listen = '{listen}'\n\n[models.m]\nguff = 'm.gguf'\n");
    let (_folder, config) = configured(&text);
    let finished = run(&["serve", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let expected = format!(
        "error: {}:4:1: unknown field `guff`; did you mean `gguf`?",
        config.display()
    );
    assert!(finished.errors.starts_with(&expected), "{}", finished.errors);
}

#[tokio::test]
async fn the_configuration_of_the_working_folder_is_read_if_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("llm-engine.toml"), "lisen = 'x'\n").unwrap();
    let finished = run_in(folder.path(), &["serve"]).await;
    assert_eq!(finished.code, Some(2));
    assert!(
        finished
            .errors
            .contains("llm-engine.toml:1:1: unknown field `lisen`; did you mean `listen`?"),
        "{}",
        finished.errors
    );
}

#[tokio::test]
async fn a_configuration_that_is_not_there_is_named() {
    let finished = run(&["serve", "--config", "/no/such/file.toml"]).await;
    assert_eq!(finished.code, Some(2));
    assert!(
        finished.errors.contains("/no/such/file.toml"),
        "{}",
        finished.errors
    );
}

#[tokio::test]
async fn an_address_in_use_is_told_before_a_model_is_started() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let deployment = "deployments = [{ url = 'http://127.0.0.1:9/v1', model = 'x' }]";
    let finished = refused(&format!("listen = '{listen}'\n[models.m]\n{deployment}\n")).await;
    let expected = format!("engine.toml:1:10: can't listen on {listen}");
    assert!(finished.errors.contains(&expected), "{}", finished.errors);
    assert!(
        finished.errors.contains("another program has this address"),
        "{}",
        finished.errors
    );
}

#[cfg(feature = "worker")]
#[tokio::test]
async fn a_model_file_that_is_not_there_is_named() {
    let finished = refused("listen = '127.0.0.1:0'\n[models.m]\ngguf = '/no/such/model.gguf'\n").await;
    assert!(
        finished.errors.contains("/no/such/model.gguf"),
        "{}",
        finished.errors
    );
}

#[cfg(feature = "worker")]
#[tokio::test]
async fn a_file_that_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "this is not a model").unwrap();
    let file = file.to_str().unwrap();
    let finished = refused(&format!("listen = '127.0.0.1:0'\n[models.m]\ngguf = '{file}'\n")).await;
    assert!(finished.errors.contains(file), "{}", finished.errors);
    assert!(finished.errors.contains("GGUF"), "{}", finished.errors);
}

#[cfg(not(feature = "worker"))]
#[tokio::test]
async fn a_build_without_the_model_runner_says_what_to_do_about_a_model_file() {
    let finished = refused("listen = '127.0.0.1:0'\n[models.m]\ngguf = 'm.gguf'\n").await;
    assert!(
        finished.errors.contains("--features worker"),
        "{}",
        finished.errors
    );
}

#[tokio::test]
async fn a_server_that_can_t_be_reached_is_exit_code_1_with_its_address() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    for json in [&[][..], &["--json"]] {
        let arguments = [
            &["complete", "--url", &url, "--max-retries", "0", "Hello"][..],
            json,
        ]
        .concat();
        let finished = run(&arguments).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_eq!(finished.output, "");
        assert!(
            finished
                .errors
                .starts_with(&format!("error: can't connect to {url}")),
            "{}",
            finished.errors
        );
    }
}
