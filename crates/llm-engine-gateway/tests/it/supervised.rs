//! The processes of model workers: started, watched, started again, and ended.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use llm_engine_gateway::{DeploymentSetup, RefusalCode, RouteStatus, WorkerSetup};
use scripted_upstream::freeze;
use serde_json::json;
use tokio::time::advance;

use crate::harness::{
    World, arrived, assert_waits, at_once, complete, drain, model, refused, request, settle, spent,
    stream_of, streaming,
};
use crate::worker_harness::{WELL, WorkerWorld, is_running, is_socket, kill, lines};

/// Asserts that the model's requests are refused with a hint, and cost nothing.
async fn assert_refused(world: &World) {
    let refusal = refused(world.complete(&streaming()).await);
    assert_eq!(refusal.code, RefusalCode::NoDeployment);
    assert_eq!(
        (refusal.code.status(), refusal.code.as_str()),
        (503, "no_deployment")
    );
    assert!(refusal.retry_after.unwrap() > Duration::ZERO);
    assert_eq!(world.spent(), spent(0, 0, 0));
    assert_eq!(world.route().running(), 0);
}

#[tokio::test]
async fn a_program_that_is_missing_takes_its_model_down_and_nothing_else() {
    let _frozen = freeze();
    let mut world = World::with(|setup| {
        let remote = std::mem::replace(
            &mut setup.models[0].deployments[0],
            DeploymentSetup::Worker(WorkerSetup {
                program: PathBuf::from("/no/such/program"),
                arguments: Vec::new(),
                is_adaptive: false,
            }),
        );
        let mut other = model("n", "");
        other.deployments = vec![remote];
        setup.models.push(other);
    })
    .await;
    let route = world.route();
    assert_eq!(route.status().await, RouteStatus::Starting);
    for _ in 0..20 {
        settle().await;
        assert_eq!(route.status().await, RouteStatus::Down);
        assert_refused(&world).await;
        advance(Duration::from_secs(10)).await;
    }
    let other = request(json!({ "model": "n", "stream": true }));
    world.abandon(&other).await;
    world.gateway.stop().await;
}

#[tokio::test]
async fn while_a_worker_loads_its_model_requests_are_refused() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::start(WELL).await;
    worker.journal(1).await;
    assert_eq!(worker.status().await, RouteStatus::Starting);
    assert_refused(&worker.world).await;
    worker.load(0).await;
    assert_eq!(worker.status().await, RouteStatus::Ready);
}

#[tokio::test]
async fn a_worker_that_ends_at_once_is_started_again_after_waits_that_double_up_to_ten_seconds() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::start(r#"echo x >> "$JOURNAL"; exit 3"#).await;
    let mut starts = 1;
    for tenths in [1, 2, 4, 8, 16, 32, 64, 100, 100] {
        worker.until(RouteStatus::Down).await;
        assert_refused(&worker.world).await;
        assert_eq!(worker.journal(starts).await.len(), starts);
        advance(Duration::from_millis(tenths * 100 - 1)).await;
        settle().await;
        assert_eq!(
            worker.status().await,
            RouteStatus::Down,
            "not before {tenths} tenths are over"
        );
        advance(Duration::from_millis(2)).await;
        starts += 1;
        worker.journal(starts).await;
    }
    let mut sockets = BTreeSet::new();
    for start in 0..10 {
        assert!(
            sockets.insert(worker.socket(start).await),
            "each has another socket"
        );
    }
}

#[tokio::test]
async fn a_worker_that_was_well_for_a_minute_is_started_again_at_once() {
    let _frozen = freeze();
    let script = r#"echo $$ >> "$JOURNAL"; if [ $(wc -l < "$JOURNAL") -lt 4 ]; then exit 1; fi; exec cat"#;
    let mut worker = WorkerWorld::start(script).await;
    for (starts, wait) in [(1, 100), (2, 200), (3, 400)] {
        worker.journal(starts).await;
        worker.until(RouteStatus::Down).await;
        advance(Duration::from_millis(wait + 1)).await;
    }
    let process_id = worker.journal(4).await.remove(3);
    worker.load(3).await;
    advance(Duration::from_secs(60)).await;
    kill(&process_id).await;
    worker.until(RouteStatus::Down).await;
    advance(Duration::from_millis(101)).await;
    worker.journal(5).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_refuses_requests_until_it_is_back_on_a_new_socket() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::ready(None).await;
    let process_id = worker.journal(1).await.remove(0);
    assert!(is_socket(&worker.socket(0).await));
    kill(&process_id).await;
    worker.until(RouteStatus::Down).await;
    assert_refused(&worker.world).await;
    assert!(!is_socket(&worker.socket(0).await), "its socket is removed");

    advance(Duration::from_millis(101)).await;
    worker.journal(2).await;
    assert_eq!(worker.status().await, RouteStatus::Starting);
    worker.load(1).await;
    let request = streaming();
    let mut answer = pin!(complete(&worker.world.gateway, &request));
    let count = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    count.answer(200, &[], json!({ "count": 6, "max_model_len": 9 }));
    let sent = arrived(answer.as_mut(), &mut worker.world.upstream).await;
    sent.answer_words(6, &["a"]);
    drain(stream_of(answer.await)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_does_not_load_its_model_is_killed_after_five_minutes() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::start(WELL).await;
    let process_id = worker.journal(1).await.remove(0);
    advance(Duration::from_millis(299_999)).await;
    settle().await;
    assert!(is_running(&process_id));
    advance(Duration::from_millis(2)).await;
    worker.until(RouteStatus::Down).await;
    assert!(!is_running(&process_id));
}

#[tokio::test]
async fn stopping_ends_a_worker_that_minds_its_standard_input_without_any_time() {
    let _frozen = freeze();
    let worker = WorkerWorld::ready(None).await;
    let process_id = worker.journal(1).await.remove(0);
    assert!(is_running(&process_id));
    worker.world.gateway.stop().await;
    assert!(!is_running(&process_id));
    assert!(!is_socket(&worker.socket(0).await));
    assert_eq!(worker.journal(1).await.len(), 1, "it is not started again");
}

#[tokio::test]
async fn stopping_kills_a_worker_that_does_not_end_after_five_seconds() {
    let _frozen = freeze();
    let worker = WorkerWorld::start(r#"echo $$ >> "$JOURNAL"; exec sleep 1000"#).await;
    let process_id = worker.journal(1).await.remove(0);
    let mut stop = pin!(worker.world.gateway.stop());
    assert!(at_once(stop.as_mut()).await.is_none());
    advance(Duration::from_millis(4_999)).await;
    assert_waits(stop.as_mut()).await;
    assert!(is_running(&process_id));
    advance(Duration::from_millis(2)).await;
    stop.await;
    assert!(!is_running(&process_id));
}

#[tokio::test]
async fn stopping_does_not_wait_for_the_next_start_of_a_worker_that_is_down() {
    let _frozen = freeze();
    let mut worker = WorkerWorld::start("exit 1").await;
    worker.until(RouteStatus::Down).await;
    assert!(at_once(pin!(worker.world.gateway.stop())).await.is_some());
}

#[tokio::test]
async fn no_two_workers_are_given_the_same_socket() {
    let _frozen = freeze();
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let script = format!("echo \"$2\" >> '{}'; exec cat", journal.display());
    let long = "x".repeat(60);
    let names = ["a/b", "a:b", "a_b", &format!("{long}1"), &format!("{long}2")].map(str::to_owned);
    let world = World::with(|setup| {
        setup.models.clear();
        for name in &names {
            let mut model = model(name, "");
            model.deployments[0] = DeploymentSetup::Worker(WorkerSetup {
                program: PathBuf::from("/bin/sh"),
                arguments: ["-c", &script, "sh"].map(Into::into).into(),
                is_adaptive: false,
            });
            setup.models.push(model);
        }
        setup.socket_folder = folder.path().to_owned();
    })
    .await;
    let sockets = lines(&journal, names.len()).await;
    let different: BTreeSet<&String> = sockets.iter().collect();
    assert_eq!(different.len(), names.len(), "{sockets:?}");
    world.gateway.stop().await;
}
