//! LLM Engine's own dialect: completions of a prompt, and the models.

use crate::json::{read, written};
use crate::{Call, Client, Error, TypedStream};

pub use llm_engine_wire::v1::{
    CompletionRequest, Endpoint, EndpointList, EndpointStatus, Frame, Guided, Output, StreamOutput,
    SyncResponse, TokenOutput,
};

impl Client {
    /// Completes a prompt.
    ///
    /// ```no_run
    /// use llm_engine_client::{Client, v1::CompletionRequest};
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let mut request = CompletionRequest::new("llama-7b", "Why is the sky blue?", 100, 0.2);
    /// request.stop_sequences = vec!["\n\n".to_owned()];
    /// let answer = client.complete(&request).await?;
    /// println!("{} ({} tokens)", answer.output.text, answer.output.num_completion_tokens);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with a completion.
    pub async fn complete(&self, request: &CompletionRequest) -> Result<SyncResponse, Error> {
        read(self.call(sync_call(request)?).await?)
    }

    /// Completes a prompt piece by piece.
    ///
    /// ```no_run
    /// use llm_engine_client::{Client, v1::CompletionRequest};
    ///
    /// # async fn example(client: Client) -> Result<(), llm_engine_client::Error> {
    /// let request = CompletionRequest::new("llama-7b", "Why is the sky blue?", 100, 0.2);
    /// let mut frames = client.complete_stream(&request).await?;
    /// while let Some(frame) = frames.next().await {
    ///     if let Some(output) = frame?.output {
    ///         print!("{}", output.text);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt came as far as its first text.
    pub async fn complete_stream(&self, request: &CompletionRequest) -> Result<TypedStream<Frame>, Error> {
        Ok(TypedStream::new(self.stream(stream_call(request)?).await?))
    }

    /// The models that the server offers.
    ///
    /// ```no_run
    /// # async fn example(client: llm_engine_client::Client) -> Result<(), llm_engine_client::Error> {
    /// for endpoint in client.model_endpoints().await?.model_endpoints {
    ///     println!("{}: {:?}", endpoint.name, endpoint.status);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`], when no attempt was answered with the list.
    pub async fn model_endpoints(&self) -> Result<EndpointList, Error> {
        read(self.call(list_call()).await?)
    }

    /// One of the models.
    ///
    /// ```no_run
    /// # async fn example(client: llm_engine_client::Client) -> Result<(), llm_engine_client::Error> {
    /// println!("{:?}", client.model_endpoint("llama-7b").await?.status);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`] of the kind [`NotFound`](crate::ErrorKind::NotFound) if there is none of that name.
    pub async fn model_endpoint(&self, name: &str) -> Result<Endpoint, Error> {
        read(self.call(get_call(name)).await?)
    }
}

pub(crate) fn sync_call(request: &CompletionRequest) -> Result<Call, Error> {
    completion("/v1/llm/completions-sync", request)
}

pub(crate) fn stream_call(request: &CompletionRequest) -> Result<Call, Error> {
    completion("/v1/llm/completions-stream", request)
}

pub(crate) fn list_call() -> Call {
    Call::get("/v1/llm/model-endpoints")
}

pub(crate) fn get_call(name: &str) -> Call {
    list_call().segment(name)
}

fn completion(path: &str, request: &CompletionRequest) -> Result<Call, Error> {
    let call = Call::post(path, written(request)?);
    Ok(call
        .query("model_endpoint_name", &request.model)
        .model(&request.model))
}
