FUZZTIME ?= 20s
# No file of ours is for one architecture only, so vet runs once for each system.
BUILD_FOR = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64
VET_FOR   = linux/amd64 darwin/amd64 windows/amd64
GOFILES   = find . \( -name node_modules -o -name '.?*' \) -prune -o -name '*.go' -print

.DEFAULT_GOAL := help
.NOTPARALLEL: # Go uses all cores itself
.PHONY: help run test check bench pieces fuzz build deps static

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

run: ## Run the proxy
	@go run ./cmd/proxy

test: deps static ## Install what the tests need, check the code, run all tests
	@go run ./scripts/gotest $$(scripts/test-deps.sh race) -vet=off -timeout 5m $(if $(filter true,$(CI)),-count=1) ./...

check: static ## Check the code, the modules, and that every platform builds
	@go mod tidy -diff
	@go mod verify
	@for p in $(BUILD_FOR); do \
		echo "go build for $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go build -buildvcs=false ./... || exit 1; \
	done
	@for p in $(VET_FOR); do \
		echo "go vet for $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./... || exit 1; \
	done
	@$(GOFILES) | grep -v '_test\.go$$' | xargs wc -l | \
		awk '$$1 > 400 && $$2 != "total" { print "warning: " $$2 " has " $$1 " lines, more than 400" }'

bench: ## Compare Weir under load with nginx, 4 minutes (BENCH=-quick: 40 s; see docs/performance.md)
	@go build -o bin/bench ./bench
	@bin/bench $(BENCH)

pieces: ## Run the Go benchmarks of the parts
	@list=$$(go test -list '^Benchmark' ./...) || { echo "$$list"; exit 1; }; \
	go test -run '^$$' -bench . -benchmem \
		$$(echo "$$list" | awk '/^Benchmark/ { n++ } /^ok/ { if (n) print $$2; n = 0 }')

fuzz: ## Run every fuzz target for FUZZTIME (20s)
	@list=$$(go test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ { f[n++] = $$1 } /^ok/ { for (i = 0; i < n; i++) print f[i], $$2; n = 0 }' | \
	while read -r target package; do \
		echo "$$package $$target"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
	done

build: ## Build the static binary bin/weir
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o bin/weir ./cmd/proxy

deps:
	@scripts/test-deps.sh

# Without cgo, so that the dependencies are compiled once for this and "check".
static:
	@list=$$($(GOFILES) | xargs gofmt -l) || exit 1; \
	[ -z "$$list" ] || { echo "these files need gofmt:"; echo "$$list"; exit 1; }
	@CGO_ENABLED=0 go vet ./...
	@CGO_ENABLED=0 go tool staticcheck ./...
