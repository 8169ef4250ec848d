//! llm-engine-server
