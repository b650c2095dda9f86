package brokertest

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy stands between a broker and its upstream and makes the upstream fail from outside, as networks do. It is
// safe for concurrent use.
type Proxy struct {
	l        net.Listener
	upstream string
	mode     atomic.Int32
	left     atomic.Int64 // messages that still pass, when counting
	passed   atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]bool

	turn sync.Mutex // held while the mode changes, and while cut runs
	cut  func()     // called once when the count runs out; nil for cutting connections
}

const (
	modePass int32 = iota
	modeRefuse
	modeStall
	modeCount
)

// NewProxy listens on a loopback port and passes everything on to upstream, HOST:PORT or the path of a socket, until told
// otherwise. It ends with t.
func NewProxy(t testing.TB, upstream string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{l: l, upstream: upstream, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { _ = l.Close(); p.dropAll() })
	go p.accept()
	return p
}

// Addr returns HOST:PORT of the proxy.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// Pass lets everything through again. When it returns, what CutAfter was given has returned or will not be called.
func (p *Proxy) Pass() {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.mode.Store(modePass)
}

// Refuse closes every connection, and each new one at once.
func (p *Proxy) Refuse() { p.mode.Store(modeRefuse); p.dropAll() }

// Stall keeps connections open and passes nothing on.
func (p *Proxy) Stall() { p.mode.Store(modeStall) }

// CutAfter lets n messages from the broker through, counted over all connections from now on, and then does what
// Refuse does; answers to what got through are lost. then, when not nil, is called first, as when a process dies; it must
// not change the proxy.
func (p *Proxy) CutAfter(n int, then func()) {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.dropAll()
	p.cut = then
	p.passed.Store(0)
	p.left.Store(int64(n))
	p.mode.Store(modeCount)
}

// Passed returns how many messages from the broker got through since CutAfter.
func (p *Proxy) Passed() int { return int(p.passed.Load()) }

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		if p.mode.Load() == modeRefuse {
			_ = c.Close()
			continue
		}
		go p.serve(c)
	}
}

func (p *Proxy) serve(c net.Conn) {
	network := "tcp"
	if strings.HasPrefix(p.upstream, "/") {
		network = "unix"
	}
	u, err := net.Dial(network, p.upstream)
	if err != nil {
		_ = c.Close()
		return
	}
	p.mu.Lock()
	p.conns[c], p.conns[u] = true, true
	p.mu.Unlock()
	done := make(chan struct{}, 2)
	go func() { p.copy(u, c, true); done <- struct{}{} }()
	go func() { p.copy(c, u, false); done <- struct{}{} }()
	<-done
	_ = c.Close()
	_ = u.Close()
	<-done
	p.mu.Lock()
	delete(p.conns, c)
	delete(p.conns, u)
	p.mu.Unlock()
}

// copy passes on what one side says, a message at a time: what one read returns.
func (p *Proxy) copy(to, from net.Conn, request bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		switch p.mode.Load() {
		case modeRefuse:
			return
		case modeStall:
			continue
		case modeCount:
			if !request && p.left.Load() <= 0 { // the answer to the last one that got through
				p.end()
				return
			}
			if request && p.left.Add(-1) < 0 {
				p.end()
				return
			}
		}
		if request {
			p.passed.Add(1)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) end() {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.mode.CompareAndSwap(modeCount, modeRefuse) {
		if p.cut != nil {
			p.cut()
		}
		p.dropAll()
	}
}

func (p *Proxy) dropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}
