package vault

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/sallyport-sts/sallyport/test/built"
)

// version is what server/go.mod requires.
const version = "v1.14.1"

// Binary returns the path of the server, and builds it on the first call (four minutes of CPU time) into
// ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport, named by version and by what it is built from. The working directory has to be that of
// this package.
func Binary(ctx context.Context, log io.Writer) (string, error) {
	sum := sha256.New()
	for _, name := range append([]string{"main.go", "go.mod", "go.sum"}, slices.Sorted(maps.Values(added))...) {
		b, err := os.ReadFile(filepath.Join("server", name))
		if err != nil {
			return "", fmt.Errorf("run this inside test/vault: %w", err)
		}
		sum.Write(b)
	}
	return built.Once(ctx, log, fmt.Sprintf("vault-%s-%x", version, sum.Sum(nil)[:6]), func(ctx context.Context, to string) error {
		modfile, err := completed(ctx, log, filepath.Dir(to))
		if err != nil {
			return err
		}
		compile := exec.CommandContext(ctx, "go", "build", "-modfile", modfile, "-trimpath", "-ldflags", "-s -w", "-o", to, ".")
		here(compile)
		compile.Stdout, compile.Stderr = log, log
		return compile.Run()
	})
}

// added are files that Vault's sdk gets, by package: pki and transit name functions that it lacks.
var added = map[string]string{
	"helper/certutil": filepath.Join("added", "acme.go.txt"),
	"helper/keysutil": filepath.Join("added", "byok.go.txt"),
}

// completed copies the sdk into dir, with what is added, and returns a go.mod that uses it.
func completed(ctx context.Context, log io.Writer, dir string) (string, error) {
	const sdk = "github.com/hashicorp/vault/sdk"
	get := exec.CommandContext(ctx, "go", "mod", "download", "-json", sdk)
	here(get)
	get.Stderr = log
	out, err := get.Output()
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", sdk, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil || module.Dir == "" {
		return "", fmt.Errorf("looking for %s: go says %q", sdk, out)
	}
	whole := filepath.Join(dir, "sdk")
	if err := os.CopyFS(whole, os.DirFS(module.Dir)); err != nil {
		return "", err
	}
	files := map[string]string{filepath.Join(dir, "go.mod"): "go.mod", filepath.Join(dir, "go.sum"): "go.sum"}
	for at, from := range added {
		files[filepath.Join(whole, filepath.FromSlash(at), "added.go")] = from
	}
	for to, from := range files {
		text, err := os.ReadFile(filepath.Join("server", from))
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			return "", err
		}
	}
	modfile := filepath.Join(dir, "go.mod")
	edit := exec.CommandContext(ctx, "go", "mod", "edit", "-replace="+sdk+"="+whole, modfile)
	here(edit)
	edit.Stdout, edit.Stderr = log, log
	return modfile, edit.Run()
}

// here lets a command of Go work in the server's module.
func here(c *exec.Cmd) {
	c.Dir = "server"
	c.Env = append(os.Environ(), "GOWORK=off")
}
