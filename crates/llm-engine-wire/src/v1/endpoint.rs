use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What `GET /v1/llm/model-endpoints` answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointList {
    /// The models.
    pub model_endpoints: Vec<Endpoint>,
}

/// A model as the public API describes it. What only a GPU cluster would know is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Identifies it; here the same as the name.
    pub id: String,
    /// The name to use in requests.
    pub name: String,
    /// The model behind the name.
    pub model_name: String,
    /// Always `hugging_face`, one of the words that the published client accepts.
    pub source: String,
    /// Whether it can answer.
    pub status: EndpointStatus,
    /// Always `vllm`, one of the words that the published client accepts.
    pub inference_framework: String,
    /// Not known here.
    pub inference_framework_image_tag: Option<String>,
    /// Not known here.
    pub num_shards: Option<u32>,
    /// Not known here.
    pub quantize: Option<String>,
    /// Not known here.
    pub checkpoint_path: Option<String>,
    /// Not known here.
    pub chat_template_override: Option<String>,
    /// Not known here.
    pub spec: Option<Value>,
}

/// Whether a model can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EndpointStatus {
    /// Its deployment answers.
    Ready,
    /// It is being started.
    UpdateInProgress,
    /// Its deployment does not answer.
    UpdateFailed,
}
