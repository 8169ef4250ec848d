//! llm-engine-gateway
