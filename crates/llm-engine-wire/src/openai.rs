//! OpenAI's dialect: chat completions, completions and embeddings.
//!
//! Fields that the engine acts on are read and checked here; every other field passes through untouched.

mod assembly;
mod batch;
mod error;
mod request;
mod response;
mod schema;

pub use assembly::{Assembly, AssemblyError};
pub use batch::{
    BATCH_ENDPOINTS, Batch, BatchError, BatchErrors, BatchList, BatchRequest, BatchStatus, COMPLETION_WINDOW,
    RequestCounts,
};
pub use error::{ErrorBody, ErrorObject};
pub use request::{InvalidRequest, Kind, Request, Sampling, Stop, Upstream};
pub use response::{Choice, Chunk, ChunkChoice, Delta, Message, Model, ModelList, Response, Usage};
pub use schema::schema;

/// The data of the event that ends every stream of this dialect.
pub const DONE: &str = "[DONE]";
