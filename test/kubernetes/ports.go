package kubernetes

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// FreePort returns a loopback TCP port that nobody listens on. It picks below the range from which the kernel
// takes the ports of outgoing connections (32768 and up), because a port has to stay free for the seconds
// until its server binds it: issuer URLs contain ports and have to be known before anything starts.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port
	}
	tb.Fatal("no free loopback port found in 100 attempts")
	return 0
}

// LoopbackURL returns the https URL of a port on the loopback address, without a trailing slash.
func LoopbackURL(port int) string { return fmt.Sprintf("https://127.0.0.1:%d", port) }
