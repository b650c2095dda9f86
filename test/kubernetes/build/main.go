// Command build makes sure that the servers of the Kubernetes tests exist: it builds kube-apiserver into the
// user's cache directory, installs etcd and kubectl where it may, and prints the paths. It has its own command because
// the first build takes longer than the time limit of "go test".
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/sallyport-sts/sallyport/test/kubernetes"
)

func main() {
	// An interrupt ends the compiler with us and removes the half-written file.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	etcd, err := kubernetes.Etcd(ctx, os.Stderr)
	if err != nil {
		fail(err)
	}
	kubectl, err := kubernetes.Kubectl(ctx, os.Stderr)
	if err != nil {
		fail(err)
	}
	server, err := kubernetes.Binary(ctx, os.Stderr)
	if err != nil {
		fail(err)
	}
	fmt.Println(etcd)
	fmt.Println(kubectl)
	fmt.Println(server)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "test/kubernetes:", err)
	os.Exit(1)
}
