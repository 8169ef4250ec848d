# What to type. The work is in scripts/.

.DEFAULT_GOAL := help
.PHONY: help run wheel test soak fuzz bench bench-gateway lint fmt clean

BINARY := $(or $(CARGO_TARGET_DIR),target)/release/llm-engine
BUILD := scripts/with-tools.sh cargo build --release -p llm-engine --features worker

help:
	@echo 'make run     build, fetch the model, start the server; make run ARGS="--config my.toml"'
	@echo 'make wheel   build the Python package llmengine into dist/'
	@echo 'make test    everything that has to hold: format, lints, documentation, Rust and Python tests'
	@echo 'make soak    the tests that take minutes: crowds of callers who retry, again and again, by the real clock'
	@echo 'make fuzz    each parser, with inputs chosen by what they reach; make fuzz ARGS="3600" for an hour each'
	@echo 'make bench   the limiter, the model runner and a request through the server, beside what they are measured against'
	@echo 'make bench-gateway  only the last of these: beside going direct, nginx, a bare proxy and vllm-router'
	@echo 'make lint    format and lints only'
	@echo 'make fmt     format the Rust code'
	@echo 'make clean   remove what was built and installed here; the fetched model stays in the cache folder'

run:
	@scripts/setup.sh build
	@$(BUILD)
	@exec $(BINARY) serve $(ARGS)

wheel:
	@scripts/setup.sh wheel
	@scripts/with-tools.sh scripts/wheel.sh

test:
	@scripts/setup.sh test
	@scripts/with-tools.sh scripts/test.sh

soak:
	@scripts/setup.sh test
	@scripts/with-tools.sh scripts/soak.sh

fuzz:
	@scripts/setup.sh build
	@scripts/with-tools.sh scripts/fuzz.sh $(ARGS)

bench:
	@scripts/setup.sh build
	@$(BUILD)
	@scripts/with-tools.sh cargo bench -p llm-engine-limit --benches
	@scripts/with-tools.sh cargo bench -p llm-engine-server --bench limits
	@LLM_ENGINE_TEST_GGUF="$${LLM_ENGINE_TEST_GGUF:-$$($(BINARY) fetch-model)}" \
		scripts/with-tools.sh cargo bench -p llm-engine-worker --bench decode
	@$(MAKE) --no-print-directory bench-gateway

bench-gateway:
	@scripts/setup.sh bench
	@scripts/with-tools.sh cargo build --release -p llm-engine -p gateway-bench
	@.venv-bench/bin/python scripts/bench_gateway.py --server $(BINARY) --parts $(dir $(BINARY))gateway-bench $(ARGS)

lint:
	@scripts/setup.sh lint
	@scripts/with-tools.sh scripts/test.sh lint

fmt:
	@cargo fmt --all

clean:
	cargo clean
	rm -rf .venv .venv-package .venv-bench dist tests/node/node_modules
