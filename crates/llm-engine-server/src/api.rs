//! The routes and what the OpenAPI document says of them, grown together: what is served is what is documented.

mod operation;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::{get, on};
use bytes::Bytes;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::App;
use crate::error_answer::Dialect;
use crate::metrics::RouteResponses;
use crate::replay;

pub(crate) use operation::Operation;

/// Routes, and their document.
pub(crate) struct Api {
    router: Router<App>,
    paths: Map<String, Value>,
    schemas: SchemaGenerator,
}

const DOCUMENT: &str = "/openapi.json";

const ABOUT: &str = "LLM Engine's own API and OpenAI's, with rate limits. A refusal says when to come back, in `Retry-After` \
                     and, to the millisecond, in `retry-after-ms`. Bodies of the routes below `/v1/llm` and `/v2` are read \
                     laxly: where a number is asked for, `\"7\"` will do.";

impl Api {
    pub(crate) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Self {
            router: Router::new(),
            paths: Map::new(),
            schemas: settings.into_generator(),
        }
    }

    /// A route.
    pub(crate) fn add<H, T>(&mut self, operation: Operation, handler: H)
    where
        H: Handler<T, App>,
        T: 'static,
    {
        self.describe(&operation);
        let responses = Arc::new(RouteResponses::of(operation.path));
        let counted = async move |State(app): State<App>, request: Request| {
            let response = handler.call(request, app.clone()).await;
            app.metrics.responded(&responses, response.status());
            response
        };
        let handler = on(operation.methods, counted);
        let router = std::mem::take(&mut self.router);
        self.router = router.route(operation.path, handler);
    }

    /// A route whose answers cost something: a request with an idempotency key is answered by the handler once, however
    /// often it is sent.
    pub(crate) fn add_generating<H, A>(&mut self, operation: Operation, dialect: Dialect, handler: H)
    where
        H: Fn(State<App>, Request) -> A + Copy + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        self.add(
            operation.generating(dialect),
            async move |State(app): State<App>, request: Request| {
                replay::answer(app, request, dialect, handler).await
            },
        );
    }

    /// All of them, and one more for the document.
    pub(crate) fn into_router(self) -> Router<App> {
        let router = self.router.clone();
        let document = Bytes::from(self.document().to_string());
        let answer = async move || ([(CONTENT_TYPE, "application/json")], document.clone());
        router.route(DOCUMENT, get(answer))
    }

    /// What the routes are.
    pub(crate) fn document(mut self) -> Value {
        let itself = Operation::get(DOCUMENT, "This document")
            .tagged("Server")
            .answers(
                "application/json",
                |_| schemars::json_schema!({ "type": "object" }),
            );
        self.describe(&itself);
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "LLM Engine",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": { "name": "Apache License 2.0", "identifier": "Apache-2.0" },
            },
            "paths": self.paths,
            "components": {
                "schemas": self.schemas.take_definitions(true),
                "securitySchemes": {
                    "bearer": { "type": "http", "scheme": "bearer", "description": "The API key" },
                    "basic": { "type": "http", "scheme": "basic", "description": "The API key as user name" },
                },
            },
        })
    }

    fn describe(&mut self, operation: &Operation) {
        let path = operation.path.replace("{*", "{");
        let described = operation.describe(&mut self.schemas);
        let path = self.paths.entry(path).or_insert_with(|| json!({}));
        for method in operation.methods() {
            let id = format!(
                "{method}{}",
                operation.path.replace(['/', '-', '.', '{', '}', '*'], "_")
            );
            path[method] = described.clone();
            path[method]["operationId"] = id.into();
        }
    }
}
