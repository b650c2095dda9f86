package kubernetes

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// TestMain builds what is missing before the clock of -timeout runs. On a machine that has never built the
// server, call "go run ./build" first: cmd/go also ends a test binary that exceeds its limit as a whole.
func TestMain(m *testing.M) {
	ctx := context.Background()
	if _, err := Etcd(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := Kubectl(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := Binary(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
