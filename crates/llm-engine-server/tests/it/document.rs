//! The document at `/openapi.json`, and that all answers are as it says.

use std::collections::BTreeSet;

use hyper::StatusCode;
use serde_json::Value;

use crate::conformance::document;
use crate::harness::{Answer, Server, quick};

/// The methods that a path of the document has.
fn methods(path: &Value) -> BTreeSet<&str> {
    path.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_document_is_served_to_everybody() {
    let server = Server::start(&quick().await, "").await;
    let answer = Answer::read(server.send("GET", "/openapi.json", &[], None).await).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["openapi"], "3.1.0");
    assert_eq!(answer.json(), *document());
}

#[tokio::test]
async fn every_documented_route_is_served_and_no_other_method_of_its_path() {
    let server = Server::start(&quick().await, "").await;
    for (template, path) in document()["paths"].as_object().unwrap() {
        let documented = methods(path);
        let target = template.replace(['{', '}'], "");
        for method in ["get", "put", "post", "delete", "patch"] {
            let answer = Answer::read(server.send(&method.to_uppercase(), &target, &[], None).await).await;
            let is_served = answer.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(is_served, documented.contains(method), "{method} {template}");
            assert!(!answer.body.contains(r#""Not Found""#), "{method} {template}");
        }
    }
}

#[tokio::test]
async fn the_routes_of_the_readme_are_those_of_the_document() {
    let readme = include_str!("../../../../README.md");
    let (_, section) = readme.split_once("## Routes").unwrap();
    let table = section.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<&str> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(|route| route.split_once(' ').map_or(route, |(_, path)| path))
        .collect();
    let paths = document()["paths"].as_object().unwrap();
    for path in &named {
        assert!(paths.contains_key(*path), "{path} is no route");
    }
    let elsewhere = "What this server does not do";
    for (path, operations) in paths {
        let mut operations = operations.as_object().unwrap().values();
        let is_served = operations.any(|operation| operation["tags"][0] != elsewhere);
        let is_detail = path.starts_with("/v1/llm/fine-tunes/");
        assert!(
            !is_served || is_detail || named.contains(path.as_str()),
            "{path} is not in the README"
        );
    }
}
