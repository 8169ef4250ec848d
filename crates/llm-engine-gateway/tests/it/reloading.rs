//! Policies that are put in force while the gateway runs.

use std::time::Duration;

use llm_engine_gateway::{JournalError, Quota, SetupError, Unit};

use crate::harness::{World, per_minute, policy};

#[tokio::test]
async fn a_journal_that_can_not_be_used_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("limits.redb");
    std::fs::write(&journal, "no database").unwrap();
    let world = World::with(|setup| {
        setup.journal = Some(journal.clone());
        // Nothing of it must outlive a restart.
        setup.policies = vec![policy("quick", [per_minute(Unit::Requests, 10)])];
    })
    .await;
    let before = world.gateway.policies();

    let day = Quota::new(100, Duration::from_secs(86_400)).unwrap();
    let policies = vec![policy("slow", [(Unit::Requests, day)])];
    let refused = world.gateway.reload(Vec::new(), policies);
    assert!(
        matches!(&refused, Err(SetupError::Journal(JournalError::Damaged { .. }))),
        "{refused:?}"
    );
    assert_eq!(world.gateway.policies(), before);
    assert_eq!(std::fs::read(&journal).unwrap(), b"no database");
    // Alice still is a caller.
    assert!(!world.levels("alice").is_empty());
}
