package main

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/test/ports"
)

// clusterURL is the iss of the platform that every deployment trusts.
const clusterURL = "https://cluster.prod.example"

// deployment is a configuration directory with a platform that it trusts, made from testdata/deployment:
// checkout may call gateway, whoever holds a gateway token may exchange it for orders, and gateway is the
// resource server that introspects both.
type deployment struct {
	t       *testing.T
	dir     string // configuration
	data    string // data_dir
	audit   string // audit.dir
	url     string // issuer, and where the workload listener is
	ops     string // HOST:PORT
	kek     string // base64
	cluster *federationtest.Issuer
}

// newDeployment writes a deployment that starts. edits replace text in the files before they are written:
// old, new, old, new.
func newDeployment(t *testing.T, edits ...string) *deployment {
	t.Helper()
	d := &deployment{t: t, dir: t.TempDir(), ops: ports.Address(), url: "http://" + ports.Address()}
	d.data = filepath.Join(d.dir, "data")
	d.audit = filepath.Join(d.data, "audit")
	d.cluster = federationtest.NewNamed(t, clusterURL, jose.ES256)
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	d.kek = base64.StdEncoding.EncodeToString(key)
	d.write("secrets/kek", d.kek+"\n", 0o600)
	d.write("keys/cluster.json", string(d.cluster.JWKS()), 0o644)
	d.copy("testdata/deployment", edits...)
	return d
}

// copy writes a folder of testdata into the configuration directory.
func (d *deployment) copy(from string, edits ...string) {
	d.t.Helper()
	replace := strings.NewReplacer(append(edits,
		"${URL}", d.url, "${WORKLOAD}", strings.TrimPrefix(d.url, "http://"), "${OPS}", d.ops)...)
	err := filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		d.write(name, replace.Replace(string(raw)), 0o644)
		return err
	})
	if err != nil {
		d.t.Fatalf("writing the configuration: %v", err)
	}
}

// write makes a file in one step, as a careful editor does.
func (d *deployment) write(name, content string, mode os.FileMode) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path+".new~", []byte(content), mode)
	}
	if err == nil {
		err = os.Chmod(path+".new~", mode)
	}
	if err == nil {
		err = os.Rename(path+".new~", path)
	}
	if err != nil {
		d.t.Fatalf("writing %s: %v", name, err)
	}
}

func (d *deployment) read(name string) string {
	d.t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatalf("reading %s: %v", name, err)
	}
	return string(raw)
}

// edit replaces text in a file, which must be there exactly once.
func (d *deployment) edit(name, old, with string) {
	d.t.Helper()
	content := d.read(name)
	if strings.Count(content, old) != 1 {
		d.t.Fatalf("%s has %q %d times, want once", name, old, strings.Count(content, old))
	}
	d.write(name, strings.Replace(content, old, with, 1), 0o644)
}

// subject is an identity token of a workload of the cluster, as its platform hands it out.
func (d *deployment) subject(name string) string {
	return d.cluster.Sign(d.cluster.Claims(time.Now(), name, d.url)).Reveal()
}

// records returns the chain of the audit log, in order.
func (d *deployment) records(types ...audit.Type) []audit.Record {
	d.t.Helper()
	var out []audit.Record
	err := audit.Scan(d.audit, func(l audit.Line) error {
		out = append(out, l.Record)
		return nil
	}, audit.Filter{Types: types})
	if err != nil {
		d.t.Fatalf("reading the audit log: %v", err)
	}
	return out
}

// record returns what the log says about a decision.
func (d *deployment) record(decision string) audit.Record {
	d.t.Helper()
	rec, ok, err := audit.Find(d.audit, decision)
	if err != nil || !ok {
		d.t.Fatalf("looking for decision %q in the log: found %v, %v", decision, ok, err)
	}
	return rec
}

// verified fails unless `sallyport audit verify` says that the log is whole.
func (d *deployment) verified() {
	d.t.Helper()
	out, code := sallyport(d.t, "audit", "verify", "--config", d.dir)
	if code != exitDone {
		d.t.Errorf("sallyport audit verify ended with %d, want %d:\n%s", code, exitDone, out)
	}
}
