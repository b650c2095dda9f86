// Command server is a Vault server for tests: Vault's own core and HTTP handler with its own jwt, approle, kv, database,
// transit and pki plugins, all in memory. It listens on the loopback address that it is given, initialises and unseals itself, prints
// its address and root token as one line of JSON, and ends when it is told to or when its standard input closes.
//
// It stands in for the released binary, which is no Go module that can be installed. Nothing of Vault is changed; what its
// sdk module lacks for this release is added while it is built (added).
//
// It is a module of its own because Vault pins old versions of some hundred modules.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
}

func run(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	core, root, err := start(ctx, "http://"+address)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core}), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"address": "http://" + address, "token": root}); err != nil {
		return err
	}
	go func() { // whoever started us is gone when this ends
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	<-ctx.Done()
	_ = server.Close()
	return core.Shutdown()
}

// start makes a core, initialises it with one share and unseals it.
func start(ctx context.Context, url string) (*vault.Core, string, error) {
	log := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Warn, Output: os.Stderr})
	storage, err := inmem.NewInmem(nil, log)
	if err != nil {
		return nil, "", err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		Logger:             log,
		DisableMlock:       true,
		RedirectAddr:       url,
		BuiltinRegistry:    registry{},
		CredentialBackends: map[string]logical.Factory{"jwt": jwtauth.Factory, "approle": approle.Factory},
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory, "database": database.Factory, "pki": pki.Factory, "transit": transit.Factory},
		AuditBackends:      map[string]audit.Factory{"file": auditfile.Factory},
	})
	if err != nil {
		return nil, "", err
	}
	once := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: once, RecoveryConfig: once})
	if err != nil {
		return nil, "", err
	}
	for _, share := range made.SecretShares {
		if _, err := core.Unseal(append([]byte{}, share...)); err != nil { // it clears what it is given
			return nil, "", err
		}
	}
	return core, made.RootToken, nil
}

// registry knows the one plugin that Vault would otherwise look for in a directory.
type registry struct{}

const plugin = "postgresql-database-plugin"

func (registry) Contains(name string, kind consts.PluginType) bool {
	return name == plugin && kind == consts.PluginTypeDatabase
}

func (r registry) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	if !r.Contains(name, kind) {
		return nil, false
	}
	return postgresql.New, true
}

func (registry) Keys(kind consts.PluginType) []string {
	if kind != consts.PluginTypeDatabase {
		return nil
	}
	return []string{plugin}
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
