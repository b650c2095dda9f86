package vault

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// version is what server/go.mod requires.
const version = "v1.14.1"

// Binary returns the path of the server, and builds it on the first call (four minutes of CPU time) into
// ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport, named by version and by what it is built from. The working directory has to be that of
// this package.
func Binary(ctx context.Context, log io.Writer) (string, error) {
	sum := sha256.New()
	for _, name := range []string{"main.go", "go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("server", name))
		if err != nil {
			return "", fmt.Errorf("run this inside test/vault: %w", err)
		}
		sum.Write(b)
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, fmt.Sprintf("vault-%s-%x", version, sum.Sum(nil)[:6]))
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o100 != 0 {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	return path, build(ctx, log, path)
}

// build compiles beside path and renames, so that an interrupted build leaves nothing that is taken for a server. Two
// builds at once cost time and nothing else.
func build(ctx context.Context, log io.Writer, path string) error {
	part, err := os.MkdirTemp(filepath.Dir(path), "vault.part-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	done, start := make(chan struct{}), time.Now()
	go func() { // CI systems stop a job that is silent for long
		for tick := time.Tick(30 * time.Second); ; {
			select {
			case <-tick:
				fmt.Fprintf(log, "building Vault %s: %s\n", version, time.Since(start).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	fmt.Fprintf(log, "building Vault %s (once; several minutes)\n", version)
	compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(part, "vault"), ".")
	compile.Dir = "server" // a module of its own
	compile.Env = append(os.Environ(), "GOWORK=off")
	compile.Stdout, compile.Stderr = log, log
	if err := compile.Run(); err != nil {
		return fmt.Errorf("building Vault %s: %w", version, err)
	}
	return os.Rename(filepath.Join(part, "vault"), path)
}

// cacheDir follows the XDG rules on every platform.
func cacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "sallyport"), nil
}
