# Everything that a person or a machine does with the tree. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X vivarium.io/vivarium/internal/boot.version=$(VERSION)

# What `make up` starts; see `bin/vivarium up --help`.
RUN_DIR ?= .run
PORT_BASE ?=
NODES ?= auto
POOLS ?= 2
NODES_PER_POOL ?= 1
TENANTS ?= demo01
NETWORK ?= flat
export NETWORK RUN_DIR PORT_BASE NODES POOLS NODES_PER_POOL TENANTS

# How much `make bench` measures: smoke, default or full.
BENCH_SCALE ?= default
# Which parts, as a regular expression: pods are the vk-provider's, what begins with vpc is about VPCs, everything else is the gateway's.
BENCH_ONLY ?=

# Where failing tests leave their logs.
ARTIFACTS ?= $(CURDIR)/_artifacts
export ARTIFACTS

# All packages but the end-to-end tests, which need a whole system.
PACKAGES = $$(go list ./... | grep -v /e2e)

##@ Run it

.PHONY: up
up: build ## Start the whole system on this machine, or whatever of it does not run.
	@bin/vivarium up

.PHONY: down
down: bin/vivarium ## Stop it, and leave nothing behind.
	@bin/vivarium down

.PHONY: status
status: bin/vivarium ## Show what of it runs.
	@bin/vivarium status

##@ Build it

.PHONY: build
build: ## Build the programs into bin/.
	@echo "==> building bin/{gateway,vk-provider,syncer,network,vpc-agent,vivarium-vpc,vivarium}"
	@go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# The one that is there is good enough to stop what it started, even while the tree does not compile.
bin/vivarium:
	@$(MAKE) --no-print-directory build

.PHONY: kubernetes
kubernetes: build ## Build the Kubernetes programs into the user's cache: minutes once, then nothing.
	@bin/vivarium build

.PHONY: tools
tools: build ## Install the system's programs that real nodes need, where there can be such nodes.
	@bin/vivarium build --tools

.PHONY: clients
clients: build ## Build the clients that are tested (older kubectls, Helm, kustomize) likewise.
	@bin/vivarium build --clients

.PHONY: images
images: build ## Make the images for local nodes.
	@bin/vivarium build --images

.PHONY: generate
generate: ## Generate code again.
	@hack/generate.sh
	@go generate ./...

.PHONY: clean
clean: ## Remove what was built here. The user's cache stays; `make down` comes first.
	@rm -rf bin _artifacts

##@ Prove it

.PHONY: test
test: build lint tools clients test-integration e2e ## Everything that proves it on this machine.
	@echo "==> all tests passed"

.PHONY: test-unit
test-unit: ## Only what needs no cluster.
	@echo "==> unit tests"
	@go test -short -timeout 20m $(PACKAGES)

.PHONY: test-integration
test-integration: tools clients ## Unit tests, and those on real control planes and nodes.
	@echo "==> unit and integration tests"
	@CI=true go test -timeout 40m $(PACKAGES)

.PHONY: e2e
e2e: tools clients ## The built programs against a whole system on this machine.
	@echo "==> end-to-end tests"
	@E2E=1 CI=true go test -count=1 -timeout 60m -v ./e2e

# How often it is killed; CHAOS_SEED repeats a run's choices.
CHAOS_ROUNDS ?= 100

.PHONY: chaos
chaos: ## The vk-provider killed in the middle of bursts a hundred times; part of test with a few.
	@CI=true CHAOS_ROUNDS=$(CHAOS_ROUNDS) go test -count=1 -timeout 3h -v ./vk-provider -run 'TestChaos$$'

# Which specs run, how many at once, as which tenant; see `bin/vivarium conformance --help`. PAGE is a second place for the page.
FOCUS ?=
SKIP ?=
PARALLEL ?=
TENANT ?=
PAGE ?=
export FOCUS SKIP PARALLEL TENANT

.PHONY: conformance
conformance: build ## Kubernetes' own suite through a tenant; not part of test, for it takes half an hour.
	@bin/vivarium conformance $(if $(PAGE),--page='$(PAGE)')

.PHONY: conformance-nodes
conformance-nodes: ## The same of what runs in pods: docs/conformance-nodes.md.
	@$(MAKE) --no-print-directory conformance FOCUS='\[sig-(node|apps)\].*\[Conformance\]' PAGE=docs/conformance-nodes.md

.PHONY: bench
bench: build kubernetes ## What gateway, vk-provider and VPCs cost, against doing without; takes BENCH_SCALE and BENCH_ONLY.
	@go build -trimpath -buildvcs=false -o bin/ ./bench
	@bin/bench -scale $(BENCH_SCALE) -version '$(VERSION)' -only '$(BENCH_ONLY)' -gateway bin/gateway -vk-provider bin/vk-provider -json _artifacts/bench.json

.PHONY: bench-page
bench-page: ## Publish the report of the last run of bench as docs/benchmarks.md; what it did not measure stays.
	@go run ./bench -render _artifacts/bench.json -with docs/benchmarks.json -json docs/benchmarks.json -markdown docs/benchmarks.md

.PHONY: bench-packages
bench-packages: ## The benchmarks of all packages.
	@echo "==> benchmarks of packages"
	@go test -short -run '^$$' -bench . -benchmem $(PACKAGES) | grep -v '^ok\|no test files'

.PHONY: lint
lint: ## Look for what the compiler lets pass.
	@echo "==> gofmt, go vet"
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [[ -n "$$unformatted" ]]; then echo "not formatted; run gofmt -w on:" >&2; echo "$$unformatted" >&2; exit 1; fi
	@go vet ./...

.PHONY: verify
verify: lint ## What lint does, and that generated code and module files are what they would become.
	@echo "==> generated code, module files"
	@go mod tidy -diff
	@hack/generate.sh
	@go generate ./...
	@git diff --exit-code || { echo "generated code is out of date; commit what make generate changes" >&2; exit 1; }

##@ Help

.PHONY: help
help: ## This text.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nmake up takes RUN_DIR, PORT_BASE, NODES, POOLS, NODES_PER_POOL and TENANTS; two instances with different RUN_DIR and\nPORT_BASE run side by side. make down and make status take RUN_DIR.\nmake conformance takes FOCUS, SKIP, PARALLEL, TENANT and PAGE besides.\n'
