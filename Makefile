# Everything that a fresh Debian 12 machine needs, in two commands, as root:
#
#   make demo   prebuild the example's VM tests with real Nix, run them, and show what was saved
#   make test   everything: lint, unit tests, fuzz seeds, end to end
#
# On a machine with Nix: nix build .#run-vm-tests-with-cache, nix flake check.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c

GO       ?= go
BIN      := bin
CACHE    := .cache
TOOLS    := nix-closure-import nix-vm-build-hook nixos-test-run run-vm-tests vm-prebuild
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
LINT_BIN := $(CACHE)/tools/golangci-lint-v2.15.0

# Static: one file that runs on any machine, in any sandbox. The C library's
# name service and SQLite's extensions are what a static binary cannot have.
STATIC := -trimpath -tags netgo,osusergo,sqlite_omit_load_extension \
          -ldflags '-s -w -linkmode external -extldflags -static'

.PHONY: demo test lint unit e2e bench soak fmt build setup prebuilt clean

demo: setup build
	nix/offline/demo.sh

test: setup lint unit e2e

# What the machine lacks, from Debian only; done already is done quickly.
setup:
	nix/offline/setup.sh

build:
	CGO_ENABLED=1 $(GO) build $(STATIC) -o $(BIN)/ $(addprefix ./cmd/,$(TOOLS))
	ln -sf nixos-test-run $(BIN)/nixos-test-driver
	ln -sf nixos-test-run $(BIN)/generate-driver-symbols

lint: $(LINT_BIN)
	$(GO) vet ./...
	$(LINT_BIN) run ./...
	nix/update-vendor-hash.sh --check

$(LINT_BIN):
	mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) $(GO) install $(LINT)
	mv $(@D)/golangci-lint $@

# Fuzz targets run their seeds here; "make soak" lets them search.
unit: setup
	$(GO) test -timeout 10m $$($(GO) list ./... | grep -v -e /cmd/e2e -e /examples/gotest)

# The example's tests, prebuilt.
prebuilt: setup
	. nix/offline/env.sh && nix build .#run-vm-tests-with-cache \
	  --override-input nixpkgs path:./nix/offline -o $(CACHE)/prebuilt

e2e: build prebuilt
	. nix/offline/env.sh && \
	  VM_PREBUILD_BIN=$(abspath $(BIN)) VM_PREBUILD_MANIFEST=$(abspath $(CACHE))/prebuilt/manifest.json \
	  $(GO) test -count=1 -timeout 45m -v ./cmd/e2e && \
	  VM_PREBUILD_MANIFEST=$(abspath $(CACHE))/prebuilt/manifest.json \
	  $(GO) test -count=1 -timeout 15m -v -run Conformance ./testrun/qemu && \
	  VM_PREBUILD_MANIFEST=$(abspath $(CACHE))/prebuilt/manifest.json \
	  $(GO) test -count=1 -timeout 20m -v ./testrun/warm

# Our tools against what people use now, on file systems of their own. It takes
# more than an hour, and the machine for itself; docs/benchmarks.md tells the results.
bench: setup build prebuilt
	CGO_ENABLED=0 $(GO) build -o $(BIN)/ ./cmd/bench
	$(BIN)/bench scale --svg docs/scale.svg
	$(BIN)/bench run --markdown docs/benchmarks.md
	$(BIN)/bench driver --markdown docs/benchmarks.md
	. nix/offline/env.sh && nix build .#run-vm-tests-warm --override-input nixpkgs path:./nix/offline -o $(CACHE)/warm && \
	  $(BIN)/bench warm --markdown docs/benchmarks.md --svg docs/warm.svg

# What takes long: each fuzz target searches for a minute, and what kills
# processes does so many times over.
soak: test
	for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 60s $$p; \
	  done; \
	done
	$(GO) test -race -count=20 -timeout 30m -run 'Kill|SIG|Stuck|GivenUp' \
	  ./testrun/reaper ./testrun/suite ./testrun/qemu ./testrun/shell
	VM_PREBUILD_SOAK=1 $(GO) test -count=1 -timeout 60m -v -run 'Kill|ManyCommands' ./storedb ./testrun/shell
	. nix/offline/env.sh && export VM_PREBUILD_SOAK=1 && \
	  VM_PREBUILD_BIN=$(abspath $(BIN)) VM_PREBUILD_MANIFEST=$(abspath $(CACHE))/prebuilt/manifest.json \
	  $(GO) test -count=1 -timeout 180m -v -run 'Kill|Chaos' ./cmd/e2e && \
	  VM_PREBUILD_MANIFEST=$(abspath $(CACHE))/prebuilt/manifest.json \
	  $(GO) test -count=1 -timeout 60m -v -run 'Restore' ./testrun/warm && \
	  VM_PREBUILD_BIN=$(abspath $(BIN)) VM_PREBUILD_MANIFEST=$(abspath $(CACHE))/prebuilt/manifest.json \
	  $(GO) test -count=10 -timeout 60m -run 'SIG' ./cmd/e2e

fmt: $(LINT_BIN)
	$(LINT_BIN) fmt

clean:
	rm -rf $(BIN) $(CACHE)
