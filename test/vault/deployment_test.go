package vault

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/test/ports"
)

// deployment is a configuration directory, the binary that serves it, and the platform it trusts.
type deployment struct {
	tb       testing.TB
	bin, dir string
	url, ops string
	platform *federationtest.Issuer
}

// deploy writes a configuration with one rule: the workload checkout may have the scope read of the target orders.
// signing is the content of that block besides seal_with.
func deploy(tb testing.TB, target, signing string) *deployment {
	tb.Helper()
	workload, ops := ports.Address(), ports.Address()
	d := &deployment{
		tb: tb, bin: sallyport(tb), dir: tb.TempDir(), url: "http://" + workload, ops: "http://" + ops,
		platform: federationtest.NewNamed(tb, "https://cluster.prod.example", jose.ES256),
	}
	d.write("sallyport.yaml", "issuer: "+d.url+"\nlisten: {workload: '"+workload+"', ops: '"+ops+"', admin: '"+d.admin()+"'}\ntls: off\ndata_dir: data\nsigning:\n  seal_with: {file: kek}\n"+signing+"audit: {dir: data/audit, durability: process, reserve: 1MiB}\n")
	d.write("kek", base64.StdEncoding.EncodeToString(make([]byte, 32)))
	d.write("keys.json", string(d.platform.JWKS()))
	d.write("trust/prod.yaml", "trust_domain: prod.example\nissuers:\n  - name: cluster\n    type: oidc\n    issuer: https://cluster.prod.example\n    audiences: ['"+d.url+"']\n    algorithms: [ES256]\n    keys: {jwks_file: keys.json}\n"+
		"    oidc:\n      path: [sub]\n      attributes: {sub: {claim: sub}}\n")
	d.write("policy/p.yaml", "rules:\n  - {name: r, workloads: {trust_domain: prod.example, issuer: cluster, where: {sub: checkout}}, targets: [orders], scopes: [read], lifetime: 10m}\n")
	d.write("targets/t.yaml", target)
	return d
}

// admin is the socket of operators.
func (d *deployment) admin() string { return "unix:" + filepath.Join(d.dir, "a") }

// write puts a file into the configuration directory and returns its path.
func (d *deployment) write(name, text string) string {
	d.tb.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.tb.Fatal(err)
	}
	return path
}

// try runs a command of the binary.
func (d *deployment) try(args ...string) (string, error) {
	out, err := exec.Command(d.bin, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("sallyport %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (d *deployment) run(args ...string) string {
	d.tb.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.tb.Fatal(err)
	}
	return out
}

// serve starts the service, waits until it is ready, and ends it with the test.
func (d *deployment) serve() {
	d.tb.Helper()
	serve := exec.Command(d.bin, "serve", d.dir)
	serve.Stdout, serve.Stderr = d.tb.Output(), d.tb.Output()
	serve.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := serve.Start(); err != nil {
		d.tb.Fatal(err)
	}
	d.tb.Cleanup(func() { _ = serve.Process.Signal(syscall.SIGTERM); stop(d.tb, "sallyport", serve) })
	d.await("the service to get ready", func() bool { status, _ := d.readyz(); return status == http.StatusOK })
}

// readyz returns what the service says of itself, status 0 while it does not answer.
func (d *deployment) readyz() (int, string) {
	resp, err := http.Get(d.ops + "/readyz")
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func (d *deployment) await(what string, done func() bool) {
	d.tb.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			d.tb.Fatalf("waited 30 s for %s", what)
		}
	}
}

// workload returns the path of a fresh token of the workload checkout.
func (d *deployment) workload() string {
	d.tb.Helper()
	claims := d.platform.Claims(time.Now(), "checkout", d.url).With("exp", time.Now().Add(time.Hour).Unix()).With("jti", federationtest.RandomID())
	return d.write("token", d.platform.Sign(claims).Reveal())
}
