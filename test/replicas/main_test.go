package main

import (
	"bytes"
	"testing"
)

// The whole story, as `make replicas` tells it.
func TestTwoReplicasOverOneRedis(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(&out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
