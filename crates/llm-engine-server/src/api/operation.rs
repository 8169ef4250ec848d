use axum::routing::MethodFilter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::error_answer::{Dialect, LlmEngineBody, OpenAiBody};

/// Writes the schema of a body, with what it refers to.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of a route and a method.
#[derive(Debug)]
pub(crate) struct Operation {
    /// As the router writes it.
    pub(super) path: &'static str,
    /// The methods that it has.
    pub(super) methods: MethodFilter,
    summary: &'static str,
    tag: &'static str,
    /// Beside those of the path.
    parameters: Vec<Value>,
    /// In which media type, and what it holds.
    body: Option<(&'static str, SchemaOf)>,
    /// In which media types, and what they hold.
    contents: Vec<(&'static str, SchemaOf)>,
    /// What may be said instead, beside what everybody hears who has no key.
    errors: Vec<u16>,
    /// In which errors are written; `None`: no key is needed.
    dialect: Option<Dialect>,
    /// A status that has the form of a success.
    also: Option<u16>,
}

/// As the document names them.
const METHODS: [(MethodFilter, &str); 8] = [
    (MethodFilter::GET, "get"),
    (MethodFilter::PUT, "put"),
    (MethodFilter::POST, "post"),
    (MethodFilter::DELETE, "delete"),
    (MethodFilter::OPTIONS, "options"),
    (MethodFilter::HEAD, "head"),
    (MethodFilter::PATCH, "patch"),
    (MethodFilter::TRACE, "trace"),
];

impl Operation {
    fn new(path: &'static str, methods: MethodFilter, summary: &'static str) -> Self {
        Self {
            path,
            methods,
            summary,
            tag: "LLM Engine",
            parameters: Vec::new(),
            body: None,
            contents: Vec::new(),
            errors: Vec::new(),
            dialect: None,
            also: None,
        }
    }

    pub(crate) fn get(path: &'static str, summary: &'static str) -> Self {
        Self::new(path, MethodFilter::GET, summary)
    }

    pub(crate) fn post(path: &'static str, summary: &'static str) -> Self {
        Self::new(path, MethodFilter::POST, summary)
    }

    pub(crate) fn put(path: &'static str, summary: &'static str) -> Self {
        Self::new(path, MethodFilter::PUT, summary)
    }

    pub(crate) fn delete(path: &'static str, summary: &'static str) -> Self {
        Self::new(path, MethodFilter::DELETE, summary)
    }

    /// By every method that there is.
    pub(crate) fn any(path: &'static str, summary: &'static str) -> Self {
        let every = METHODS.into_iter().map(|(method, _)| method);
        let every = every.reduce(MethodFilter::or).unwrap_or(MethodFilter::GET);
        Self::new(path, every, summary)
    }

    /// Of which group of routes it is.
    pub(crate) fn tagged(self, tag: &'static str) -> Self {
        Self { tag, ..self }
    }

    pub(crate) fn query(mut self, name: &str, is_required: bool, schema: &Value, about: &str) -> Self {
        self.parameters
            .push(parameter("query", name, is_required, schema, about));
        self
    }

    pub(crate) fn body(self, schema: SchemaOf) -> Self {
        Self {
            body: Some(("application/json", schema)),
            ..self
        }
    }

    /// It is sent a form with a file.
    pub(crate) fn form(self, schema: SchemaOf) -> Self {
        Self {
            body: Some(("multipart/form-data", schema)),
            ..self
        }
    }

    pub(crate) fn answers(mut self, media_type: &'static str, schema: SchemaOf) -> Self {
        self.contents.push((media_type, schema));
        self
    }

    /// Its answer is JSON of this type.
    pub(crate) fn json<T: JsonSchema>(self) -> Self {
        self.answers("application/json", SchemaGenerator::subschema_for::<T>)
    }

    /// Its answer may also be a stream of events.
    pub(crate) fn events(self) -> Self {
        // OpenAPI 3.1 has no word for the events of a stream: a schema would be of all of it, which tools take for each.
        self.answers("text/event-stream", |_| Schema::default())
    }

    pub(crate) fn text(self, media_type: &'static str) -> Self {
        self.answers(media_type, |_| schemars::json_schema!({ "type": "string" }))
    }

    /// Only for who has a key; errors are written in this dialect.
    pub(crate) fn keyed(mut self, dialect: Dialect, errors: &[u16]) -> Self {
        self.dialect = Some(dialect);
        self.errors.push(401);
        self.errors.extend(errors);
        self
    }

    /// It tells the failures of the model's server apart.
    pub(crate) fn passes_failures_on(mut self) -> Self {
        self.errors.extend([502, 504]);
        self
    }

    /// Its answer may come with this status too.
    pub(crate) fn also(self, status: u16) -> Self {
        Self {
            also: Some(status),
            ..self
        }
    }

    /// However often it is sent with one key, it is done once.
    pub(crate) fn repeatable(mut self) -> Self {
        let key = json!({ "type": "string", "pattern": "^[!-~]{1,255}$" });
        let about = "However often a request with it is sent, it is done once";
        self.parameters
            .push(parameter("header", "Idempotency-Key", false, &key, about));
        self
    }

    /// What can be asked of, and go wrong on, every route that has a model work.
    pub(super) fn generating(mut self, dialect: Dialect) -> Self {
        self = self.keyed(dialect, &[400, 404, 409, 413, 422, 429, 500, 503]);
        self.errors.extend((dialect == Dialect::LlmEngine).then_some(402));
        self = self.repeatable();
        // Without a key it is ignored, whatever it is.
        let seconds =
            json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 300 }, { "type": "string" }] });
        let headers = [
            (
                "x-llm-engine-keep-seconds",
                seconds,
                "For how long it goes on when its caller is gone; needs an Idempotency-Key",
            ),
            (
                "Prefer",
                text(),
                "`wait=30`: so many seconds the request would rather wait than be refused",
            ),
        ];
        let headers = headers.map(|(name, schema, about)| parameter("header", name, false, &schema, about));
        self.parameters.extend(headers);
        self
    }

    pub(super) fn methods(&self) -> impl Iterator<Item = &'static str> {
        let has = |method: &MethodFilter| self.methods.or(*method) == self.methods;
        let methods = METHODS.into_iter().filter(move |(method, _)| has(method));
        methods.map(|(_, name)| name)
    }

    /// As the document has it.
    pub(super) fn describe(&self, schemas: &mut SchemaGenerator) -> Value {
        let names = self
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = names
            .map(|name| match name.strip_prefix('*') {
                Some(name) => parameter("path", name, true, &text(), SEVERAL_PARTS),
                None => parameter("path", name, true, &text(), ""),
            })
            .collect();
        parameters.extend_from_slice(&self.parameters);
        let security = match self.dialect {
            Some(_) => json!([{ "bearer": [] }, { "basic": [] }]),
            None => json!([]),
        };
        let mut described = json!({
            "summary": self.summary,
            "tags": [self.tag],
            "security": security,
            "parameters": parameters,
            "responses": self.responses(schemas),
        });
        if let Some((media_type, body)) = self.body {
            let content = json!({ media_type: { "schema": body(schemas) } });
            described["requestBody"] = json!({ "required": true, "content": content });
        }
        described
    }

    fn responses(&self, schemas: &mut SchemaGenerator) -> Value {
        let mut responses = Map::new();
        let contents: Map<String, Value> = self
            .contents
            .iter()
            .map(|(media_type, schema)| ((*media_type).to_owned(), json!({ "schema": schema(schemas) })))
            .collect();
        let good = (!contents.is_empty()).then_some(200);
        for status in good.into_iter().chain(self.also) {
            let answer = json!({ "description": words(status), "content": contents });
            responses.insert(status.to_string(), answer);
        }
        // What is said before anybody knows which route it is.
        let unread = schemas.subschema_for::<LlmEngineBody<'_>>();
        let content = json!({ "application/json": { "schema": unread } });
        responses.insert(
            "414".to_owned(),
            json!({ "description": words(414), "content": content }),
        );
        let schema = match self.dialect {
            Some(Dialect::LlmEngine) => schemas.subschema_for::<LlmEngineBody<'_>>(),
            Some(Dialect::OpenAi) => schemas.subschema_for::<OpenAiBody<'_>>(),
            None => return responses.into(),
        };
        for status in &self.errors {
            let mut answer = json!({
                "description": words(*status),
                "content": { "application/json": { "schema": schema } },
            });
            if matches!(status, 429 | 503) {
                answer["headers"] = json!({
                    "Retry-After": header("integer", "Whole seconds, rounded up, at least 1"),
                    "retry-after-ms": header("integer", "The same to the millisecond"),
                    "x-should-retry": header("string", "Whether another attempt can help: `true` or `false`"),
                });
            }
            responses.insert(status.to_string(), answer);
        }
        responses.into()
    }
}

/// Of the last part of a path.
const SEVERAL_PARTS: &str = "It may have slashes in it";

fn text() -> Value {
    json!({ "type": "string" })
}

fn header(kind: &str, about: &str) -> Value {
    json!({ "description": about, "schema": { "type": kind } })
}

fn parameter(place: &str, name: &str, is_required: bool, schema: &Value, about: &str) -> Value {
    let mut parameter = json!({ "in": place, "name": name, "required": is_required, "schema": schema });
    if !about.is_empty() {
        parameter["description"] = about.into();
    }
    parameter
}

fn words(status: u16) -> &'static str {
    match status {
        200 => "Done",
        400 => "The request can't be served as it is",
        401 => "There is no API key, or nobody has it",
        402 => "A budget is spent",
        404 => "There is nothing of this name",
        408 => "The body has not come in time",
        409 => "The answer was given and is gone, or its caller cancelled the request",
        413 => "The body is too large",
        414 => "The path and query are too long",
        422 => "The request is invalid; `detail` has every problem",
        429 => "A policy, or the model, has no room now",
        500 => "Something failed behind the route",
        501 => "This needs a GPU cluster",
        502 => "The model server failed",
        503 => "Nothing can answer now",
        504 => "The model server took too long",
        507 => "The disk is full",
        _ => "Another answer",
    }
}
