# Targets: build (default), install, demo, check, test, bench, soak, fuzz, clean.

GO      ?= go
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# SQLite is C.
export CGO_ENABLED = 1

.PHONY: build install demo check test bench soak fuzz clean

build:
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tlsrpt-agent ./cmd/tlsrpt-agent

install: build
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 bin/tlsrpt-agent '$(DESTDIR)$(PREFIX)/bin/tlsrpt-agent'

demo: build
	bin/tlsrpt-agent demo

# That the generated pages are fresh is a test, of package cmd/tlsrpt-agent.
check:
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "gofmt -w $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools.mod staticcheck ./...

test:
	scripts/test-deps
	$(GO) test -race ./...

# A log of 1 GB is read, beside grep and pflogsumm where that is installed.
bench:
	TLSRPT_BENCH_LOG_MB=$${TLSRPT_BENCH_LOG_MB:-1024} $(GO) test -bench . -run '^$$' ./...

# A simulated week of load, faults and restarts, and an account of every session.
SOAK ?= 1h
soak: build
	$(GO) run ./internal/soak -agent bin/tlsrpt-agent -for $(SOAK)

# Every fuzz target, one after the other, each for so long.
FUZZTIME ?= 1m
fuzz:
	GO='$(GO)' scripts/fuzz $(FUZZTIME)

clean:
	rm -rf bin
