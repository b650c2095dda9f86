// Package deployment runs the binary as its user would: a configuration directory, the platform it trusts, and a process that serves
// it. It is for tests of other modules, beside real servers.
package deployment

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/test/ports"
)

// Deployment is a configuration directory, the binary that serves it, and the platform it trusts.
type Deployment struct {
	Dir string // of the configuration
	Bin string // the binary
	URL string // of the listener for workloads, and the issuer

	tb       testing.TB
	ops      string
	platform *federationtest.Issuer
}

// New writes a configuration with one rule: the workload checkout may have the scope read of the targets, whose files are given by
// name, for a lifetime. signing is the content of that block besides seal_with.
func New(tb testing.TB, targets map[string]string, lifetime time.Duration, signing string) *Deployment {
	tb.Helper()
	workload, ops := ports.Address(), ports.Address()
	d := &Deployment{
		tb: tb, Bin: Binary(tb), Dir: tb.TempDir(), URL: "http://" + workload, ops: "http://" + ops,
		platform: federationtest.NewNamed(tb, "https://cluster.prod.example", jose.ES256),
	}
	d.Write("sallyport.yaml", "issuer: "+d.URL+"\nlisten: {workload: '"+workload+"', ops: '"+ops+"', admin: '"+d.Admin()+"'}\ntls: off\ndata_dir: data\nsigning:\n  seal_with: {file: kek}\n"+signing+"audit: {dir: data/audit, durability: process, reserve: 1MiB}\n")
	d.Write("kek", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	d.Write("keys.json", string(d.platform.JWKS()))
	d.Write("trust/prod.yaml", "trust_domain: prod.example\nissuers:\n  - name: cluster\n    type: oidc\n    issuer: https://cluster.prod.example\n    audiences: ['"+d.URL+"']\n    algorithms: [ES256]\n    keys: {jwks_file: keys.json}\n"+
		"    oidc:\n      path: [sub]\n      attributes: {sub: {claim: sub}}\n")
	d.Write("policy/p.yaml", "rules:\n  - {name: r, workloads: {trust_domain: prod.example, issuer: cluster, where: {sub: checkout}}, targets: ["+strings.Join(slices.Sorted(maps.Keys(targets)), ", ")+"], scopes: [read], lifetime: "+lifetime.String()+"}\n")
	for name, text := range targets {
		d.Write("targets/"+name+".yaml", text)
	}
	return d
}

// Admin is the socket of operators.
func (d *Deployment) Admin() string { return "unix:" + filepath.Join(d.Dir, "a") }

// Write puts a file into the configuration directory and returns its path.
func (d *Deployment) Write(name, text string) string {
	d.tb.Helper()
	path := filepath.Join(d.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.tb.Fatal(err)
	}
	return path
}

// Try runs a command of the binary.
func (d *Deployment) Try(args ...string) (string, error) {
	out, err := exec.Command(d.Bin, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("sallyport %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// Run is Try of what has to succeed.
func (d *Deployment) Run(args ...string) string {
	d.tb.Helper()
	out, err := d.Try(args...)
	if err != nil {
		d.tb.Fatal(err)
	}
	return out
}

// Serve starts the service, waits until it is ready, and ends it with the test.
func (d *Deployment) Serve() {
	d.tb.Helper()
	serve := exec.Command(d.Bin, "serve", d.Dir)
	serve.Stdout, serve.Stderr = d.tb.Output(), d.tb.Output()
	serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := serve.Start(); err != nil {
		d.tb.Fatal(err)
	}
	d.tb.Cleanup(func() { _ = serve.Process.Signal(syscall.SIGTERM); stop(d.tb, serve) })
	d.Await("the service to get ready", func() bool { status, _ := d.Readyz(); return status == http.StatusOK })
}

// Readyz returns what the service says of itself, status 0 while it does not answer.
func (d *Deployment) Readyz() (int, string) {
	resp, err := http.Get(d.ops + "/readyz")
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// Await waits for something, half a minute at most.
func (d *Deployment) Await(what string, done func() bool) {
	d.tb.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.tb.Fatalf("waited 30 s for %s", what)
		}
	}
}

// Workload returns the path of a fresh token of the workload checkout.
func (d *Deployment) Workload() string { return d.WorkloadOf("checkout") }

// WorkloadOf returns the path of a fresh token of a workload.
func (d *Deployment) WorkloadOf(subject string) string {
	d.tb.Helper()
	claims := d.platform.Claims(time.Now(), subject, d.URL).With("exp", time.Now().Add(time.Hour).Unix()).With("jti", federationtest.RandomID())
	return d.Write("token-"+subject, d.platform.Sign(claims).Reveal())
}

// Binary returns the path of SALLYPORT_BIN, or builds it. The working directory is two below the project's.
func Binary(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("SALLYPORT_BIN"); path != "" {
		return path
	}
	path := filepath.Join(tb.TempDir(), "sallyport")
	build := exec.Command("go", "build", "-o", path, "./cmd/sallyport")
	build.Dir = filepath.Join("..", "..") // the product is another module
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("building sallyport: %v\n%s", err, out)
	}
	return path
}

// stop waits for a process that was asked to end, and kills it after some seconds.
func stop(tb testing.TB, cmd *exec.Cmd) {
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		tb.Errorf("%s was still running 20 s after it was asked to end", cmd.Path)
		_ = cmd.Process.Kill()
		<-done
	}
}
