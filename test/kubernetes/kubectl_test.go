package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// kubectl is the vendor's client with one identity. The token stands in a file: arguments are for everybody to read.
type kubectl struct{ path, config, home string }

// newKubectl writes a kubeconfig for a cluster and a bearer token.
func newKubectl(tb testing.TB, c *Cluster, token string) kubectl {
	tb.Helper()
	path, err := Kubectl(tb.Context(), tb.Output())
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	config := object{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []object{{"name": "c", "cluster": object{"server": c.Issuer, "certificate-authority": c.Authority.CAFile}}},
		"users":    []object{{"name": "u", "user": object{"token": token}}},
		"contexts": []object{{"name": "c", "context": object{"cluster": "c", "user": "u"}}},
	}
	data, err := json.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	k := kubectl{path, filepath.Join(dir, "config"), dir}
	WriteFile(tb, k.config, data, 0o600)
	return k
}

// run returns what kubectl prints, with what it says in the error.
func (k kubectl) run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.config, "HOME="+k.home)
	cmd.Stdin = bytes.NewBufferString(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), errors.Join(fmt.Errorf("kubectl %s: %w", args[0], err), errors.New(stderr.String()))
	}
	return string(out), nil
}

// list lists config maps of a namespace, in one request and without looking around before.
func (k kubectl) list(ctx context.Context, namespace string) error {
	_, err := k.run(ctx, "", "get", "--raw", "/api/v1/namespaces/"+namespace+"/configmaps")
	return err
}
