package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// wantNoStart fails unless `sallyport serve` ends with code 1, says every text, and listened to nobody.
func wantNoStart(t *testing.T, d *deployment, texts ...string) {
	t.Helper()
	p := d.launch()
	if code := p.wait(); code != exitFailed {
		t.Errorf("serve ended with %d, want %d:\n%s", code, exitFailed, p.said())
	}
	for _, text := range texts {
		if !strings.Contains(p.said(), text) {
			t.Errorf("serve said %q, want %q in it", p.said(), text)
		}
	}
	if strings.Contains(p.said(), `"serving"`) {
		t.Errorf("serve listened before it refused:\n%s", p.said())
	}
}

func TestSecondProcessOnTheSameDataIsRefused(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	first := d.start()
	second := *d
	second.ops, second.url = ports.Address(), "http://"+ports.Address()
	second.dir = t.TempDir()
	second.write("secrets/kek", d.kek+"\n", 0o600)
	second.write("keys/cluster.json", string(d.cluster.JWKS()), 0o644)
	second.copy("testdata/deployment", "data_dir: data", "data_dir: "+d.data, "dir: data/audit", "dir: "+d.audit)
	wantNoStart(t, &second, "another process holds it", filepath.Join(d.data, "state.db"))
	d.caller().minted(t, d.subject("checkout"), "gateway") // the first one is not disturbed
	first.stop()
	d.verified()
}

func TestServerDoesNotStartWithoutItsKeys(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.start().stop()
	sealed, store := filepath.Join(d.data, "keys.sealed"), filepath.Join(d.data, "state.db")
	kek, foreign := d.kek+"\n", newDeployment(t).kek+"\n"
	for _, c := range []struct {
		name  string
		spoil func() error
		mend  func() error
		texts []string
	}{
		{
			"the key file is gone",
			func() error { return os.Rename(sealed, sealed+".away") },
			func() error { return os.Rename(sealed+".away", sealed) },
			[]string{"the keys are missing although this deployment has state", "restore them"},
		},
		{
			"the revocation store is gone: what was revoked would live again",
			func() error { return os.Rename(store, store+".away") },
			func() error { return os.Rename(store+".away", store) },
			[]string{"the revocation store is missing although this deployment has run", "restore state.db"},
		},
		{
			"another key-encryption key",
			func() error { d.write("secrets/kek", foreign, 0o600); return nil },
			func() error { d.write("secrets/kek", kek, 0o600); return nil },
			[]string{"the keys do not open", "sealed with key-encryption key"},
		},
		{
			"a key-encryption key of 31 bytes",
			func() error { d.write("secrets/kek", d.kek[:40]+"\n", 0o600); return nil },
			func() error { d.write("secrets/kek", kek, 0o600); return nil },
			[]string{"signing.seal_with", "not 32 bytes in base64"},
		},
		{
			"everybody can read the key-encryption key",
			func() error { return os.Chmod(filepath.Join(d.dir, "secrets/kek"), 0o604) },
			func() error { return os.Chmod(filepath.Join(d.dir, "secrets/kek"), 0o600) },
			[]string{"sallyport.yaml:5", "mode 0604", "chmod 0600"},
		},
		{
			"the group can write the key-encryption key",
			func() error { return os.Chmod(filepath.Join(d.dir, "secrets/kek"), 0o620) },
			func() error { return os.Chmod(filepath.Join(d.dir, "secrets/kek"), 0o600) },
			[]string{"sallyport.yaml:5", "mode 0620", "chmod 0600"},
		},
	} {
		if err := c.spoil(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		before := treeSize(t, d.data)
		wantNoStart(t, d, c.texts...)
		if after := treeSize(t, d.data); after != before {
			t.Errorf("%s: the refused start changed data_dir from %d to %d bytes", c.name, before, after)
		}
		if t.Failed() {
			t.Fatalf("that was: %s", c.name)
		}
		if err := c.mend(); err != nil {
			t.Fatalf("mending %s: %v", c.name, err)
		}
	}
	d.start().stop() // and all of that did it no harm
	d.verified()
}

// A first start with a key-encryption key that is none must not leave something behind that stops the next.
func TestFailedFirstStartDoesNotStandInTheWay(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	kek := d.kek + "\n"
	d.write("secrets/kek", "not a key\n", 0o600)
	if out, code := sallyport(t, "check", d.dir); code != exitFailed || !strings.Contains(out, "not 32 bytes in base64") {
		t.Errorf("check ended with %d and said %q, want 1 and what is wrong with the key", code, out)
	}
	wantNoStart(t, d, "not 32 bytes in base64")
	d.write("secrets/kek", kek, 0o600)
	d.start().stop()
	d.verified()
}

// foreignGroup is a group that no test runs in.
const foreignGroup = 54321

func TestServerDoesNotStartWhenAForeignGroupReadsItsSecret(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	kek := filepath.Join(d.dir, "secrets/kek")
	if err := os.Chmod(kek, 0o640); err != nil {
		t.Fatalf("letting the group read: %v", err)
	}
	if err := os.Chown(kek, -1, foreignGroup); err != nil {
		// Only root gives files away. Anybody else shows the reverse: his own group may read.
		t.Logf("the file cannot be given to group %d: %v", foreignGroup, err)
		d.start().stop()
		return
	}
	wantNoStart(t, d, "a group that this process is not in can read it", "mode 0640", "sallyport.yaml:5")
}
