use std::path::PathBuf;

use prometheus_client::metrics::counter::Counter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Worker, file_name};
use crate::WorkerSetup;

#[tokio::test]
async fn a_worker_that_is_stopped_before_it_begins_never_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let ran = folder.path().join("ran");
    let setup = WorkerSetup {
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".into(), format!("echo > '{}'", ran.display()).into()],
        is_adaptive: false,
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    stop.cancel();
    let _worker = Worker::start("m", 0, setup, Counter::default(), folder.path(), &tasks, stop);
    tasks.close();
    // Had it been started, this would wait for its end.
    tasks.wait().await;
    assert!(!ran.exists());
}

#[test]
fn a_model_s_name_becomes_a_short_file_name_without_a_way_out_of_the_folder() {
    assert_eq!(file_name("smollm2-135m"), "smollm2-135m");
    assert_eq!(file_name("Qwen/Qwen3-8B:latest é"), "Qwen_Qwen3-8B_latest__");
    assert_eq!(file_name(&"x".repeat(200)).len(), 40);
    assert!(!file_name("../../etc/passwd").contains('/'));
}
