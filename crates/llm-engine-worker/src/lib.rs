//! llm-engine-worker
