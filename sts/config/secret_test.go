package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/sts/config"
)

// stranger is a group that no test process is in.
const stranger = 54321

func TestSecretFilesThatOthersCanReachAreRefused(t *testing.T) {
	own := os.Getegid()
	for _, c := range []struct {
		mode  os.FileMode
		group int
		want  string // "" means accepted
	}{
		{0o600, own, ""},
		{0o400, own, ""},
		{0o440, own, ""}, // a Kubernetes secret with fsGroup
		{0o640, own, ""},
		{0o440, stranger, "a group that this process is not in can read it"},
		{0o600, stranger, ""},
		{0o460, own, "its group can write it"},
		{0o644, own, "everybody on this machine has rights to it"}, // Kubernetes' default
		{0o604, own, "everybody on this machine has rights to it"},
		{0o602, own, "everybody on this machine has rights to it"},
		{0o601, own, "everybody on this machine has rights to it"},
	} {
		t.Run(fmt.Sprintf("%04o group %d", c.mode, c.group), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "kek")
			put(t, dir, "kek", "secret\n")
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, -1, c.group); err != nil {
				if c.group == stranger && os.Geteuid() != 0 {
					t.Skip("only root can give a file to a group that it is not in")
				}
				t.Fatal(err)
			}
			link(t, "kek", filepath.Join(dir, "mounted"))
			for _, name := range []string{"kek", "mounted"} {
				v, err := config.Secret{File: name}.Resolve(dir)
				switch {
				case c.want == "" && err != nil:
					t.Errorf("%s: got %v, want the secret", name, err)
				case c.want == "" && v.Reveal() != "secret":
					t.Errorf("%s: the secret was not read as it is", name)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%s: got %v, want %s", name, err, c.want)
				}
			}
		})
	}
}

func TestResolveRemovesOneLineBreak(t *testing.T) {
	dir := t.TempDir()
	for data, want := range map[string]string{
		"s": "s", "s\n": "s", "s\r\n": "s", "s\n\n": "s\n", " s \n": " s ", "\ns": "\ns", "s\r": "s\r",
	} {
		put(t, dir, "kek", data)
		v, err := config.Secret{File: "kek"}.Resolve(dir)
		if err != nil || v.Reveal() != want {
			t.Errorf("%q: got %q, %v; want %q", data, v.Reveal(), err, want)
		}
	}
}

func TestResolveRefusesWhatIsNoSecret(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "empty", "\n")
	put(t, dir, "huge", strings.Repeat("x", 65<<10))
	t.Setenv("SALLYPORT_TEST_EMPTY", "")
	for name, s := range map[string]config.Secret{
		"zero": {}, "missing file": {File: "none"}, "directory": {File: "."}, "empty file": {File: "empty"}, "huge file": {File: "huge"},
		"unset variable": {Env: "SALLYPORT_TEST_NOT_SET"}, "empty variable": {Env: "SALLYPORT_TEST_EMPTY"},
	} {
		v, err := s.Resolve(dir)
		if err == nil || !v.IsZero() {
			t.Errorf("%s: got a value", name)
		} else if strings.Contains(err.Error(), dir) {
			t.Errorf("%s: the error names the path, which can be a secret in the wrong place: %v", name, err)
		}
	}
}

func TestResolveReadsTheEnvironment(t *testing.T) {
	t.Setenv("SALLYPORT_TEST_KEK", "secret\n")
	v, err := config.Secret{Env: "SALLYPORT_TEST_KEK"}.Resolve("")
	if err != nil || v.Reveal() != "secret" {
		t.Errorf("got %q, %v", v.Reveal(), err)
	}
}

func TestTLSKeyThatOthersCanReadIsRefused(t *testing.T) {
	dir := write(t, archive(t, "sample.txtar"))
	writeCertificate(t, dir)
	if err := os.Chmod(filepath.Join(dir, "tls.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "sallyport.yaml:3:37: tls.key_file: everybody on this machine has rights to it (mode 0644)"
	if got := text(problems(t, dir, productKinds(t))); !strings.HasPrefix(got, want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestCertificateOfAnotherKeyIsRefused(t *testing.T) {
	dir, other := write(t, archive(t, "sample.txtar")), t.TempDir()
	writeCertificate(t, dir)
	writeCertificate(t, other)
	key, err := os.ReadFile(filepath.Join(other, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "tls.key", string(key))
	want := "sallyport.yaml:3:6: tls: cert_file and key_file are not a PEM certificate and its private key\n"
	if got := text(problems(t, dir, productKinds(t))); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestDirectoriesThatOthersCanWriteAreRefused(t *testing.T) {
	for mode, bad := range map[os.FileMode]bool{0o700: false, 0o755: false, 0o770: true, 0o777: true, 0o777 | os.ModeSticky: true} {
		dir := write(t, archive(t, "base.txtar"))
		for _, name := range []string{"data", "data/audit"} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		got := text(problems(t, dir, testKinds(t)))
		if bad != (strings.Contains(got, "data_dir can be written by others") && strings.Contains(got, "audit.dir can be written by others")) || !bad && got != "" {
			t.Errorf("mode %v: got %q, want refused: %v", mode, got, bad)
		}
	}
}
