// Command bench measures a Sallyport server beside two servers that do only the unavoidable work, in one
// interleaved run, so that the result is a ratio and survives a busy machine.
//
//	go run ./test/bench -bin ./bin/sallyport [-rounds 6] [-duration 1.5s] [-conns 1,16,64] [-o table|json]
//
// The rows are processes that answer the same RFC 8693 exchange, an RS256-2048 subject token for
// an ES256 JWT:
//
//	A floor-raw          net/http and crypto/*: form, verify, check claims, sign 7 claims, JSON
//	B floor-jose         the same through go-jose v4
//	C sallyport/process  the binary under test, audit record written to the operating system first
//	D sallyport/machine  the binary under test, audit record synced to disk first
//	E sallyport/again    C, shown a few tokens over and over, as by workloads that keep theirs in a file
//	F sallyport/redis    C as a replica over a real Redis (redis-server; not run unless asked for)
//
// C to F run a deployment of some size (-rules, -conditions, -issuers, -revocations); the caller's issuer and rule are
// the last of them.
//
// A and B hold no policy, no revocation and no audit: they are what no implementation can do without,
// not rivals. All run at once on loopback; only one is under load at a time. In each round, at each number of
// connections, every server gets one window of load right after the other, in an order that reverses
// from round to round. A ratio divides a server's window by A's window of the same round; the table
// shows the median of those. Absolute figures belong to the machine they were taken on.
//
// The load comes from this process and shares the processors with the server: closed loop, one request
// in flight per connection, kept alive, rendered beforehand. Every answer must be a 200 with an
// access_token in it, and every server is asked once, before the load, to refuse a token whose
// signature was corrupted. Exit codes: 0 done, 1 failed or a server gave wrong answers, 2 wrong usage.
//
// What this does not measure: TLS, client authentication, other algorithms, a network. Rows A to D and F see each token
// once before they see any again, and are given more tokens than a server remembers; row E is about memory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	// Children die with the thread that started them (Pdeathsig), so start them from the one thread
	// that lives as long as the process.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the command without the process around it; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == floorCommand {
		if err := serveFloor(ctx, args[1:]); err != nil {
			fmt.Fprintln(stderr, "bench floor:", err)
			return 1
		}
		return 0
	}
	opts, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2 // parseOptions has said why
	}
	report, err := measure(ctx, opts, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if err := report.write(stdout, opts.format); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	if n := report.errors(); n > 0 {
		fmt.Fprintf(stderr, "bench: %d wrong answers: the figures above are not a result; the first was: %s\n", n, report.FirstError)
		return 1
	}
	return 0
}
