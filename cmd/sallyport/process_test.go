package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a process may take for anything that should be quick, on a machine that is busy.
const patience = 60 * time.Second

// process is a running `sallyport serve`.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string // file with its stderr
	ended chan struct{}
	code  int
}

// start runs the server and waits until it is ready. It ends with the test.
func (d *deployment) start() *process {
	d.t.Helper()
	for tries := 0; ; tries++ {
		p := d.launch()
		err := p.serving()
		if err == nil {
			err = waitReady(d.ops, p.ended)
		}
		if err == nil {
			return p
		}
		if tries == startTries || !strings.Contains(p.said(), "address already in use") {
			d.t.Fatalf("%v\n%s", err, p.said())
		}
		time.Sleep(time.Second) // somebody's connection has our port: it ends, the deployment's URL must not change
	}
}

// startTries is how often a server is started anew because its port is taken for a moment.
const startTries = 20

// serving waits until this very process says that all its listeners are open: an answer from its port alone could be
// another's.
func (p *process) serving() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.ended:
			return errors.New("the server ended before it was ready")
		default:
		}
		if strings.Contains(p.said(), `"message":"serving"`) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server did not say that it serves within %s", patience)
		}
	}
}

// launch runs the server and waits for nothing.
func (d *deployment) launch() *process {
	d.t.Helper()
	log, err := os.CreateTemp(d.t.TempDir(), "stderr-*")
	if err != nil {
		d.t.Fatalf("making a log file: %v", err)
	}
	defer log.Close()
	p := &process{t: d.t, log: log.Name(), ended: make(chan struct{})}
	p.cmd = exec.Command("sallyport", "serve", d.dir)
	p.cmd.Env = cleanEnvironment()
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		d.t.Fatalf("starting the server: %v", err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code says it
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.ended)
	}()
	d.t.Cleanup(p.kill)
	return p
}

// cleanEnvironment is ours without what steers the clients. A binary built with the race detector otherwise
// sleeps for a second before it ends.
func cleanEnvironment() []string {
	return append(os.Environ(), "SALLYPORT_SERVER=", "SALLYPORT_CA_FILE=", "GORACE=atexit_sleep_ms=0")
}

// waitReady waits until /readyz says 200, or ended is closed.
func waitReady(ops string, ended <-chan struct{}) error {
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get("http://" + ops + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("it answers %d", resp.StatusCode)
		}
		select {
		case <-ended:
			return errors.New("the server ended before it was ready")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server at %s was not ready within %s: %w", ops, patience, err)
		}
	}
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signalling the server: %v", err)
	}
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the server did not end within %s:\n%s", patience, p.said())
	}
	return p.code
}

// stop ends the server in order and fails unless it says that all went well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != exitDone {
		p.t.Errorf("after SIGTERM the server ended with %d, want %d:\n%s", code, exitDone, p.said())
	}
}

// said is what the server wrote to stderr so far.
func (p *process) said() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// saidSoon waits until the server's log has the text at least n times.
func (p *process) saidSoon(text string, n int) {
	p.t.Helper()
	eventually(p.t, fmt.Sprintf("the server logs %q %d times", text, n), func() error {
		if got := strings.Count(p.said(), text); got < n {
			return fmt.Errorf("%d times:\n%s", got, p.said())
		}
		return nil
	})
}

// rss is the resident memory of the process in bytes.
func (p *process) rss() int64 {
	p.t.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		p.t.Fatalf("reading the memory of the server: %v", err)
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				p.t.Fatalf("reading the memory of the server: %v", err)
			}
			return kib << 10
		}
	}
	p.t.Fatal("the kernel does not tell the memory of the server")
	return 0
}

// sallyport runs a command to its end and returns what it wrote and its exit code.
func sallyport(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return sallyportIn(t, "", args...)
}

func sallyportIn(t *testing.T, stdin string, args ...string) (string, int) {
	t.Helper()
	c := exec.Command("sallyport", args...)
	c.Env = cleanEnvironment()
	c.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("running sallyport %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), c.ProcessState.ExitCode()
}

// eventually fails when what is not nil within patience.
func eventually(t *testing.T, want string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for: %s; at last: %v", patience, want, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
