# Every command a developer needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN        := bin/sallyport
FUZZTIME   ?= 5000x
BENCHFLAGS ?=
GOFILES     = $(shell git ls-files '*.go' ':!test/kubernetes/**')

.PHONY: help run build hostile test need test-peers check fmt vet staticcheck fuzz generated bench bench-leases bench-transit bench-revoke bench-loaded bench-curves crash replicas model mutate schema clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

run: ## the demo: the whole story in a temporary directory, nothing left behind
	@go run ./cmd/sallyport demo

build: ## build bin/sallyport, static and stripped
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(BIN) ./cmd/sallyport

replicas: ## the story of two replicas over a real Redis that is stopped, killed and comes back empty
	@./test/need.sh redis-server
	@go run ./test/replicas

test: need ## every test that needs no server of others, with the race detector
	go test -race ./...

need: # what the tests run besides Go
	@./test/need.sh curl openssl redis-server redis-cli=redis-tools mariadbd=mariadb-server mariadb=mariadb-client psql=postgresql-client pg_ctlcluster=postgresql pgbouncer

test-peers: build need ## the tests against a real Kubernetes API server, a real Vault and a real MinIO, built once and cached
	go -C test/kubernetes vet ./...
	go -C test/kubernetes run ./build
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go -C test/kubernetes test -count=1 -timeout 15m ./...
	go -C test/vault vet ./...
	go -C test/vault run ./build
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go -C test/vault test -count=1 -timeout 10m ./...
	@./test/need.sh aws=awscli docker=docker.io
	go -C test/cloud vet ./...
	go -C test/cloud run ./build
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go -C test/cloud test -count=1 -timeout 10m ./...

check: fmt vet staticcheck test generated fuzz ## exactly what CI runs before the peers

fmt:
	@out=$$(gofmt -l $(GOFILES)); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	go vet ./...

staticcheck:
	go tool -modfile=test/tools/go.mod staticcheck ./...

generated: ## generated files are what the code says
	go mod tidy -diff
	@for mod in $$(git grep -l 'sallyport => ' -- '*go.mod'); do (set -x; go -C $$(dirname $$mod) mod tidy -diff) || exit 1; done
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; go run ./cmd/sallyport schema "$$tmp" >/dev/null; diff -r "$$tmp" deploy/schema || { echo "run: make schema"; exit 1; }

schema: ## write deploy/schema from the Go types
	go run ./cmd/sallyport schema deploy/schema

fuzz: ## every fuzz target, FUZZTIME each: a count (5000x) or a time (1m)
	@./test/fuzz.sh $(FUZZTIME)

hostile: ## issuers that misbehave and floods for them: requests, memory, latency of the others
	SALLYPORT_FLOOD=1 go test -count=1 -v -run 'Hostile|Rebinding|Flood|HundredIssuers|UnknownKeyID|FailedFetches|SlowIssuer|FewCallers' ./federation ./federation/fetch | grep -v -e '^=== ' -e '^{'

bench: build ## requests/s, latency and server CPU beside a floor, one interleaved run
	go run ./test/bench -bin "$(CURDIR)/$(BIN)" $(BENCHFLAGS)

crash: build ## kill a process at every step of minting and of revoking a login of a real PostgreSQL, and print the matrix
	@./test/need.sh psql=postgresql-client pg_ctlcluster=postgresql redis-server
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go test -count=1 -v -timeout 20m ./test/crash | grep -v -e '^=== '

bench-leases: build need ## ten thousand logins made and revoked, beside bare SQL and Vault's database engine, one run
	go -C test/vault run ./build
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go -C test/vault test -run '^$$' -bench Leases -benchtime 1x -timeout 40m .

bench-transit: ## a signature by a key in Vault's transit engine beside one by a key of ours
	go -C test/vault run ./build
	go -C test/vault test -run '^$$' -bench Signatures -cpu 1,16 .

bench-curves: ## what a decision costs among 10 to 10,000 rules, and among 10 to 10,000 issuers
	go test -run '^$$' -bench 'Rules|Issuers' ./federation/policy

bench-revoke: build need ## three replicas: how long a revoked token lives on anywhere, and one identity with ten thousand logins killed
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go test ./test/incident -run '^$$' -bench Everywhere -benchtime 500x | grep -v '^{'
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go test ./test/incident -run '^$$' -bench Identity -benchtime 1x -timeout 30m | grep -v '^{'

bench-loaded: build need ## a million revocations: exchanges a second beside none, and the start; then leases that all end in one second
	SALLYPORT_BIN="$(CURDIR)/$(BIN)" go test ./test/incident -run '^$$' -bench Loaded -benchtime 1x -timeout 20m | grep -v '^{'
	go test ./sts/store/redis -run '^$$' -bench Expiring -benchtime 1x -timeout 30m | grep -v '^redis:'

model: need ## the protocol of replicas in more orders than make test tries: every interleaving with one switch more, some minutes
	SALLYPORT_MODEL=deep go test ./sts/store/redis -run TestProtocolInEveryOrder -count=1 -v -timeout 30m

mutate: ## break each guard in turn; every mutation must be killed by a test
	go run ./test/mutate

clean: ## remove what was built here
	rm -rf bin
