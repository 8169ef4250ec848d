use std::sync::Arc;

use llm_engine_wire::openai::Usage;

use super::{AlreadyRunning, Found, REMEMBERED, Registry};

fn finished(found: Option<Found>) -> Option<Usage> {
    match found {
        Some(Found::Finished(usage)) => Some(usage),
        _ => None,
    }
}

#[test]
fn a_cancelled_request_sees_its_flag_and_reports_its_usage() {
    let registry = Arc::new(Registry::default());
    let mut registration = registry.register(Some("a".to_owned())).unwrap();
    assert!(!registration.is_cancelled());
    let Some(Found::Ending(usage)) = registry.cancel("a") else {
        panic!("not found")
    };
    assert!(registration.is_cancelled());
    registration.settle(Usage::new(3, 4));
    assert_eq!(*usage.borrow(), Some(Usage::new(3, 4)));
    assert_eq!(finished(registry.cancel("a")), Some(Usage::new(3, 4)));
}

#[test]
fn a_name_is_unique_among_the_unfinished() {
    let registry = Arc::new(Registry::default());
    let mut first = registry.register(Some("a".to_owned())).unwrap();
    assert_eq!(
        registry.register(Some("a".to_owned())).unwrap_err(),
        AlreadyRunning
    );
    first.settle(Usage::default());
    assert!(registry.register(Some("a".to_owned())).is_ok());
}

#[test]
fn a_refused_request_leaves_nothing_behind() {
    let registry = Arc::new(Registry::default());
    drop(registry.register(Some("a".to_owned())).unwrap());
    assert!(registry.cancel("a").is_none());
}

#[test]
fn the_oldest_finished_requests_are_forgotten() {
    let registry = Arc::new(Registry::default());
    for number in 0..=REMEMBERED {
        registry
            .register(Some(number.to_string()))
            .unwrap()
            .settle(Usage::default());
    }
    assert!(registry.cancel("0").is_none());
    assert!(registry.cancel("1").is_some());
}
