# dbbackup: `make` lists the targets. What needs set-up does its own.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
TOOLS := bin/tools
TEST_TIMEOUT ?= 40m
FUZZ_TIME ?= 60s

# Google's storage library without the gRPC transports that only machines of its own
# use: 13 MB of program, of which 7 would be in memory.
TAGS := disable_grpc_modules

.PHONY: help build install test lint vuln demo bench matrix fuzz bootstrap tools clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/dbbackup, stamped with git's version
	CGO_ENABLED=0 go build -tags $(TAGS) -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/dbbackup ./cmd/dbbackup

install: build ## install the program and its timer on this machine
	scripts/install.sh

test: bootstrap tools ## set up, then lint, known vulnerabilities, and all tests with the race detector: about ten minutes
	$(MAKE) --no-print-directory lint vuln
	TEST_TIMEOUT=$(TEST_TIMEOUT) scripts/test.sh

lint: tools ## golangci-lint, with go vet among others, and shellcheck
	$(TOOLS)/golangci-lint run
	git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck

# Status 3 means that something was found. Any other failure is that of the
# vulnerability database, which not every machine can reach.
vuln: tools ## look for known vulnerabilities in what is called
	@status=0; timeout 120 $(TOOLS)/govulncheck ./... || status=$$?; \
	case $$status in \
	0) ;; \
	3) exit 3 ;; \
	*) echo "NOTICE: govulncheck skipped: it could not do its work here (status $$status), most likely for want of its database" ;; \
	esac

demo: ## back up a throwaway cluster, restore it into another, compare every table
	scripts/demo.sh

bench: build ## measure against pg_dump
	scripts/bench.sh

matrix: bootstrap ## round trips on several versions of PostgreSQL
	scripts/matrix.sh

fuzz: ## run each fuzz target for a minute (FUZZ_TIME)
	scripts/fuzz.sh $(FUZZ_TIME)

bootstrap: ## install what is missing on a Debian machine
	scripts/bootstrap.sh

tools: $(TOOLS)/.built $(TOOLS)/.servers $(TOOLS)/azurite/.built ## build the development tools, and servers for tests, into bin/tools

$(TOOLS)/.built: scripts/tools/go.mod scripts/tools/go.sum
	@echo "building the development tools: some minutes the first time"
	mkdir -p $(TOOLS)
	cd scripts/tools && CGO_ENABLED=0 go build -o ../../$(TOOLS)/ tool
	touch $@

$(TOOLS)/.servers: scripts/tools/servers/go.mod scripts/tools/servers/go.sum
	@echo "building the servers of remote stores that tests run"
	mkdir -p $(TOOLS)
	cd scripts/tools/servers && CGO_ENABLED=0 go build -o ../../../$(TOOLS)/ tool
	mv $(TOOLS)/server $(TOOLS)/toxiproxy-server
	touch $@

# Azurite is a program for Node.js. Without npm nothing is made, and the next
# make tries again.
$(TOOLS)/azurite/.built: scripts/tools/servers/azurite/package.json scripts/tools/servers/azurite/package-lock.json
	@command -v npm >/dev/null || { echo "NOTICE: azurite skipped: no npm here (make bootstrap installs it); tests of Azure stores need it"; exit 0; }; \
	set -x; mkdir -p $(@D) && cp $^ $(@D)/ && (cd $(@D) && npm ci --no-audit --no-fund --omit=dev) && touch $@

clean: ## remove what was built
	rm -rf bin dist
	find . -name '*.test' -type f -delete
