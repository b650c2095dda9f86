// Package ports hands out addresses for the servers that tests start, when a server cannot be told to take port 0:
// its address is part of an issuer, of a certificate or of another's configuration, and is known before it listens.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
)

// Ports lie below the range from which kernels take the ports of outgoing connections and of listeners without a port of
// their own, so that none of those takes one between choosing and listening.
const first, span = 12000, 18000

// next counts the ports given out. Each process begins elsewhere in the range, because all share 127.0.0.1.
var next atomic.Uint32

func init() { next.Store(rand.Uint32N(span)) }

// Host is a loopback address that this process alone uses, out of the 16 million of 127.0.0.0/8: a server that is stopped
// and started again finds its port free, and who answers there is ours. Where there is only one loopback address, it is
// that.
var Host = sync.OnceValue(func() string {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		return "127.0.0.1"
	}
	_ = l.Close()
	return host
})

// Address is a HOST:PORT of [Host] that nobody listens on, another one each time.
func Address() string { return net.JoinHostPort(Host(), strconv.Itoa(free(Host()))) }

// Port is a port of 127.0.0.1 that nobody listens on, another one each time, for servers that are bound to that address.
func Port() int { return free("127.0.0.1") }

func free(host string) int {
	for range span {
		port := first + int(next.Add(1)%span)
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			continue
		}
		_ = l.Close()
		return port
	}
	panic("no port of " + host + " is free") // a machine on which no test can run
}
