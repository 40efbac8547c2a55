# Targets: build (default), install, demo, check, test, bench, soak, fuzz, deb, deb-test, oci, clean.

GO      ?= go
PREFIX  ?= /usr/local
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR  ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
MANDIR  ?= $(PREFIX)/share/man
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# What writes man pages and completions; another program than the one that is built
# when that is for another architecture.
GENERATE ?= bin/tlsrpt-agent

# SQLite is C.
export CGO_ENABLED = 1

.PHONY: build install demo check test bench soak fuzz deb deb-test oci clean

build:
	$(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tlsrpt-agent ./cmd/tlsrpt-agent

install: build
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(BASHDIR)' '$(DESTDIR)$(ZSHDIR)' '$(DESTDIR)$(FISHDIR)'
	install -m 0755 bin/tlsrpt-agent '$(DESTDIR)$(PREFIX)/bin/tlsrpt-agent'
	$(GENERATE) completion bash >'$(DESTDIR)$(BASHDIR)/tlsrpt-agent'
	$(GENERATE) completion zsh >'$(DESTDIR)$(ZSHDIR)/_tlsrpt-agent'
	$(GENERATE) completion fish >'$(DESTDIR)$(FISHDIR)/tlsrpt-agent.fish'
	$(GENERATE) man '$(DESTDIR)$(MANDIR)'

demo: build
	bin/tlsrpt-agent demo

# That the generated pages are fresh is a test, of package cmd/tlsrpt-agent.
check:
	@unformatted=$$(gofmt -l .) && test -z "$$unformatted" || { echo "gofmt -w $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools.mod staticcheck ./...

test:
	scripts/test-deps
	$(GO) test -race -timeout 30m ./...

# What the program takes, beside the floor of each figure: docs/performance.md. Some
# cases take root, for a network namespace.
bench:
	$(GO) run ./internal/bench -json bench.json

# bin/tlsrpt-agent_*.deb, for GOARCH.
deb:
	scripts/deb

# Installs, upgrades, removes and purges it on Debian 12 and 13. As root.
deb-test: deb
	scripts/test-packages

# bin/tlsrpt-agent-oci.tar, for GOARCH: "docker load" and "podman load" take it.
oci:
	scripts/oci

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
