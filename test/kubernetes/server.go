package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/test/built"
)

// aptInstall and a package's name are run, or printed when they may not be run from here. Another installation may hold
// the lock of dpkg for a while.
const aptInstall = "apt-get update && apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "

// serverPackage is the only thing we take from Kubernetes. server/go.mod names it as a tool: a module of its own, so
// that nothing of ours chooses the versions that the server is built from.
const serverPackage = "k8s.io/kubernetes/cmd/kube-apiserver"

// serverModule is where that go.mod is.
const serverModule = "server"

// Binary returns the path of kube-apiserver in the version that go.mod requires. It builds the server on the
// first call (about twelve minutes of CPU time) and keeps it in
// ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/kube-apiserver-<version>; progress goes to log. The working
// directory has to be the one of this module. Processes may call it concurrently: one builds, the others wait.
func Binary(ctx context.Context, log io.Writer) (string, error) {
	version, err := output(ctx, "go", "-C", serverModule, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return "", fmt.Errorf("finding the version of Kubernetes (run this in test/kubernetes): %w", err)
	}
	return built.Once(ctx, log, "kube-apiserver-"+version, func(ctx context.Context, to string) error {
		// Without a version the server calls itself v0.0.0-master. The symbol table and DWARF data are a third of the file.
		flags := "-s -w -X k8s.io/component-base/version.gitVersion=" + version
		compile := exec.CommandContext(ctx, "go", "-C", serverModule, "build", "-trimpath", "-ldflags", flags, "-o", to, serverPackage)
		compile.Env = append(os.Environ(), "CGO_ENABLED=0")
		compile.Stdout, compile.Stderr = log, log
		compile.Cancel = func() error { return compile.Process.Signal(os.Interrupt) } // lets it end its compilers and remove its files
		compile.WaitDelay = 10 * time.Second
		return compile.Run()
	})
}

// Etcd returns the path of etcd. A missing one is installed with apt when that needs no password; otherwise
// the error is the line to type.
func Etcd(ctx context.Context, log io.Writer) (string, error) {
	return installed(ctx, log, "etcd", "etcd-server")
}

// Kubectl returns the path of kubectl, and installs it as [Etcd] does.
func Kubectl(ctx context.Context, log io.Writer) (string, error) {
	return installed(ctx, log, "kubectl", "kubernetes-client")
}

func installed(ctx context.Context, log io.Writer, command, pkg string) (string, error) {
	if path, err := exec.LookPath(command); err == nil {
		return path, nil
	}
	line := aptInstall + pkg
	shell := []string{"sh", "-c", line}
	if os.Geteuid() != 0 {
		if exec.CommandContext(ctx, "sudo", "-n", "true").Run() != nil {
			return "", fmt.Errorf("%s is missing and this user may not install it; run: sudo sh -c '%s'", command, line)
		}
		shell = append([]string{"sudo", "-n"}, shell...)
	}
	fmt.Fprintf(log, "%s is missing, installing it: %s\n", command, line)
	install := exec.CommandContext(ctx, shell[0], shell[1:]...)
	install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	install.Stdout, install.Stderr = log, log
	if err := install.Run(); err != nil {
		return "", fmt.Errorf("installing %s (%s): %w", command, line, err)
	}
	return exec.LookPath(command)
}

// output runs a command and returns its standard output without surrounding space.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), errors.New(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
