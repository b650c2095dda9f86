package audit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that appends until it is killed: "<mode> <directory> <first decision>".
const childEnv = "SALLYPORT_AUDIT_CHILD"

func TestMain(m *testing.M) {
	if args := os.Getenv(childEnv); args != "" {
		child(strings.Fields(args))
		return
	}
	os.Exit(m.Run())
}

// child appends from 8 goroutines and prints the number of each record when it is acknowledged, "full" when the log
// is unavailable.
func child(args []string) {
	cfg := testConfig(args[1])
	cfg.Durability, cfg.SegmentSize = Durability(args[0]), 64<<10
	l, err := Open(cfg)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	from, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	var mu sync.Mutex
	next := from
	for range 8 {
		go func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				err := l.Append(context.Background(), exchange(i))
				mu.Lock()
				if err == nil {
					fmt.Println(i)
				} else {
					fmt.Println("full")
				}
				mu.Unlock()
				if err != nil {
					time.Sleep(10 * time.Millisecond)
				}
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
	os.Exit(0)
}

type process struct {
	cmd *exec.Cmd
	out *bufio.Scanner
	in  io.WriteCloser
}

func start(t *testing.T, mode Durability, root string, from int) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", childEnv, mode, root, from))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// A killed process loses nothing that it acknowledged, in either mode, and leaves a log that verifies.
func TestKillNineLosesNothing(t *testing.T) {
	for _, mode := range []Durability{Process, Machine} {
		t.Run(string(mode), func(t *testing.T) {
			root := t.TempDir()
			cfg := testConfig(root)
			var acknowledged []int
			const kills = 8
			for kill := range kills {
				p := start(t, mode, root, kill*1_000_000)
				deadline := time.Duration(rand.IntN(150)) * time.Millisecond
				var timer *time.Timer
				for p.out.Scan() {
					i, err := strconv.Atoi(p.out.Text())
					if err != nil {
						t.Fatalf("child: %s", p.out.Text())
					}
					acknowledged = append(acknowledged, i)
					if timer == nil {
						timer = time.AfterFunc(deadline, func() { _ = p.cmd.Process.Kill() })
					}
				}
				_ = p.cmd.Wait() // killed
				wantOK(t, mustVerify(t, cfg))
			}
			l := mustOpen(t, cfg)
			if err := l.Health(); err != nil {
				t.Error(err)
			}
			mustClose(t, l)
			r := mustVerify(t, cfg)
			wantOK(t, r)
			found := decisions(t, cfg.Dir)
			for _, i := range acknowledged {
				if found[decisionID(i)] != 1 {
					t.Fatalf("record %d of %d stands there %d times", i, len(acknowledged), found[decisionID(i)])
				}
			}
			rec := records(t, cfg.Dir, TypeRecovered)
			if len(rec) != kills || rec[0].Recovered.Cause != CauseUnclean || rec[0].Recovered.Conflict != "" {
				t.Errorf("%d recovered records after %d kills: %+v", len(rec), kills, rec)
			}
			if want := map[Durability]int64{Process: 50, Machine: 0}[mode]; rec[0].Recovered.MayMiss != want {
				t.Errorf("recovered record says that %d ms may be missing, want %d", rec[0].Recovered.MayMiss, want)
			}
			t.Logf("%d records acknowledged, %d found, %d segments, %d tails", len(acknowledged), len(found), r.Segments, len(r.Tails))
		})
	}
}

// What an interrupted write leaves is no tampering, before the log is opened again and after; but once it is on record
// it cannot be changed either.
func TestTornTailIsNoTampering(t *testing.T) {
	for name, tail := range map[string]string{
		"half a line":      strings.Repeat("a", 64) + ` {"n":9`,
		"zeros":            strings.Repeat("\x00", 5000),
		"zeros and a line": strings.Repeat("\x00", 100) + "\n" + strings.Repeat("a", 64) + ` {"n":2,"type":"exchange"}` + "\n",
		"an unlinked line": strings.Repeat("a", 64) + ` {"n":2,"type":"exchange"}` + "\n",
		"very long":        strings.Repeat("x", 3*MaxLine),
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			cfg := testConfig(root)
			p := start(t, Process, root, 0)
			for range 10 {
				p.out.Scan()
			}
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
			last := mustList(t, cfg.Dir)
			file := segmentName(last[len(last)-1])
			b := readAll(t, cfg.Dir, file)
			writeAll(t, cfg.Dir, file, append(b[:len(b):len(b)], tail...))
			r := mustVerify(t, cfg)
			wantOK(t, r)
			if len(r.Tails) != 1 || r.Tails[0] != (Tail{File: file, Offset: int64(len(b)), Bytes: int64(len(tail))}) {
				t.Errorf("tails: %+v", r.Tails)
			}
			count := len(decisions(t, cfg.Dir))
			mustClose(t, mustOpen(t, cfg))
			r = mustVerify(t, cfg)
			wantOK(t, r)
			if len(r.Tails) != 1 || r.Tails[0].Recovered == 0 || r.Tails[0].Bytes != int64(len(tail)) {
				t.Errorf("tails after Open: %+v", r.Tails)
			}
			if n := len(decisions(t, cfg.Dir)); n != count {
				t.Errorf("%d decisions are found, %d were", n, count)
			}
			writeAll(t, cfg.Dir, file, append(b[:len(b):len(b)], "X"+tail[1:]...))
			if r := mustVerify(t, cfg); r.OK() || r.Findings[0].Kind != KindVoid {
				t.Errorf("the torn bytes were changed: %+v", r.Findings)
			}
			writeAll(t, cfg.Dir, file, b)
			if r := mustVerify(t, cfg); r.OK() || r.Findings[0].Kind != KindVoid {
				t.Errorf("the torn bytes were removed: %+v", r.Findings)
			}
		})
	}
}

// fillUntilFull starts a child on a disk that will be full, and calls free when it is; then it wants
// more records, and everything acknowledged to be there.
func fillUntilFull(t *testing.T, root string, limit func(pid int), free func(pid int)) {
	t.Helper()
	p := start(t, Process, root, 0)
	limit(p.cmd.Process.Pid)
	var acknowledged []int
	full, after := 0, 0
	for after < 100 && p.out.Scan() {
		i, err := strconv.Atoi(p.out.Text())
		switch {
		case p.out.Text() == "full":
			if full++; full == 20 {
				free(p.cmd.Process.Pid)
			}
		case err != nil:
			t.Fatalf("child: %s", p.out.Text())
		default:
			acknowledged = append(acknowledged, i)
			if full >= 20 {
				after++
			}
		}
	}
	if full == 0 || after < 100 {
		t.Fatalf("the disk was full %d times; %d records were acknowledged after there was space again", full, after)
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	cfg := testConfig(root)
	wantOK(t, mustVerify(t, cfg))
	mustClose(t, mustOpen(t, cfg))
	wantOK(t, mustVerify(t, cfg))
	found := decisions(t, cfg.Dir)
	for _, i := range acknowledged {
		if found[decisionID(i)] != 1 {
			t.Fatalf("record %d of %d stands there %d times", i, len(acknowledged), found[decisionID(i)])
		}
	}
}

func TestFileSizeLimitRefusesAndRecoversByItself(t *testing.T) {
	set := func(size uint64) func(int) {
		return func(pid int) {
			if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: unix.RLIM_INFINITY}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	fillUntilFull(t, t.TempDir(), set(10_000), set(unix.RLIM_INFINITY))
}

func TestSmallFilesystemRefusesAndRecoversByItself(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root; the file size limit tests the same")
	}
	root := t.TempDir()
	cfg := testConfig(root)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", cfg.Dir, "tmpfs", 0, "size=400k"); err != nil {
		t.Skipf("mounting is not allowed here (%v); the file size limit tests the same", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(cfg.Dir, unix.MNT_DETACH) })
	fillUntilFull(t, root, func(int) {}, func(int) {
		if err := unix.Mount("none", cfg.Dir, "tmpfs", unix.MS_REMOUNT, "size=256m"); err != nil {
			t.Error(err)
		}
	})
}
