package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// fakeMode is the environment variable that tells this test binary how to behave as a sallyport.
const fakeMode = "BENCH_TEST_FAKE"

// TestMain lets the test binary be the programs that the benchmark starts: a floor, and the sallyport that the test
// chooses.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case floorCommand:
			os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
		case "serve":
			err := serveFake(os.Getenv(fakeMode), os.Args[2])
			os.Stderr.WriteString("fake: " + err.Error() + "\n")
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// serveFake serves on the addresses that the configuration in dir names, until it is killed.
func serveFake(mode, dir string) error {
	config, err := os.ReadFile(filepath.Join(dir, "sallyport.yaml"))
	if err != nil {
		return err
	}
	addrs := regexp.MustCompile(`workload: ([\d.:]+), ops: ([\d.:]+)}`).FindSubmatch(config)
	if mode == "crashes" || addrs == nil {
		return os.ErrInvalid
	}
	text, err := os.ReadFile(filepath.Join(dir, "keys", "ci.json"))
	if err != nil {
		return err
	}
	keys := floorKeys{issuer: "http://fake"}
	if err := json.Unmarshal(text, &keys.verify); err != nil {
		return err
	}
	if keys.sign, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	x, err := newRawFloor(keys)
	if err != nil {
		return err
	}
	good := floorHandler(x)
	var seen atomic.Int64
	workload, err := net.Listen("tcp", string(addrs[1])) // before it says that it is ready
	if err != nil {
		return err
	}
	go http.ListenAndServe(string(addrs[2]), good)
	return http.Serve(workload, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case mode == "trusts everyone":
			writeJSON(w, http.StatusOK, tokenResponse{AccessToken: "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"})
		case mode == "gives up" && seen.Add(1) > 5: // after start, the forged token and the first exchanges
			writeJSON(w, http.StatusServiceUnavailable, map[string]string{"error": "temporarily_unavailable"})
		default:
			good.ServeHTTP(w, r)
		}
	}))
}

// bench runs the command with this test binary as the sallyport of the given mode.
func bench(t *testing.T, mode string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs CPU clocks of Linux")
	}
	runtime.LockOSThread() // as main does: see childAttr
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(fakeMode, mode)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // else each server takes a second to end under -race
	var out, errs bytes.Buffer
	args = append([]string{"-bin", self, "-rounds", "2", "-duration", "60ms", "-conns", "1,3", "-tokens", "20", "-revocations", "0"}, args...)
	code = run(t.Context(), args, &out, &errs)
	left, err := os.ReadDir(os.TempDir())
	if err != nil || len(left) != 0 {
		t.Errorf("files left behind: %v %v", left, err)
	}
	return code, out.String(), errs.String()
}

func TestRunMeasuresAllRows(t *testing.T) {
	code, stdout, stderr := bench(t, "good", "-o", "json")
	if code != 0 {
		t.Fatalf("exit code %d, stderr:\n%s", code, stderr)
	}
	var r report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("output is not JSON: %v", err)
	}
	var order []string
	for _, row := range r.Rows {
		order = append(order, row.Key)
		if row.Requests == 0 || row.Errors != 0 || row.CPU.Median <= 0 || row.P99.Median < row.P50.Median || row.RSS <= 0 {
			t.Errorf("row %s at %d connections is not a measurement: %+v", row.Key, row.Conns, row)
		}
		if len(row.Samples) != 2 {
			t.Errorf("row %s has %d samples after 2 rounds", row.Key, len(row.Samples))
		}
		if row.Key == "A" && (row.RatioCPU != spread{1, 1, 1} || row.RatioRPS != spread{1, 1, 1}) {
			t.Errorf("A divided by itself: CPU %v, req/s %v", row.RatioCPU, row.RatioRPS)
		}
	}
	if got := strings.Join(order, ""); got != "ABCDEABCDE" {
		t.Errorf("rows %s, want ABCD for each number of connections", got)
	}
	for _, s := range r.Servers {
		if s.Issued != string(jose.ES256) || s.FirstMS <= 0 || s.RestartMS <= 0 || s.IdleMB <= 0 {
			t.Errorf("server %+v", s)
		}
	}
}

func TestRunRefusesServerThatTrustsEveryone(t *testing.T) {
	code, stdout, stderr := bench(t, "trusts everyone", "-rows", "A,C")
	if code != 1 || stdout != "" || !strings.Contains(stderr, "did not refuse a token with a corrupted signature") {
		t.Errorf("exit code %d, stdout %q, stderr:\n%s", code, stdout, stderr)
	}
}

func TestRunSaysWhyServerDidNotStart(t *testing.T) {
	code, _, stderr := bench(t, "crashes", "-rows", "A,C")
	if code != 1 || !strings.Contains(stderr, "ended before it was ready") || !strings.Contains(stderr, "fake: invalid argument") {
		t.Errorf("exit code %d, want 1 and the server's log; stderr:\n%s", code, stderr)
	}
}

func TestRunFailsOnWrongAnswersUnderLoad(t *testing.T) {
	code, stdout, stderr := bench(t, "gives up", "-rows", "A,C")
	if code != 1 || !strings.Contains(stderr, "sallyport/process at 1 connections: status 503") {
		t.Errorf("exit code %d, want 1 and the first wrong answer; stderr:\n%s", code, stderr)
	}
	if !strings.Contains(stdout, "C sallyport/process") {
		t.Errorf("the table is missing:\n%s", stdout)
	}
}

func TestRunWithoutBinaryIsWrongUsage(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), nil, &out, &errs); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	if !strings.Contains(errs.String(), "-bin is missing") || !strings.Contains(errs.String(), "usage: bench -bin") {
		t.Errorf("stderr does not explain:\n%s", errs.String())
	}
}

func TestRunFailsOnMissingBinary(t *testing.T) {
	var out, errs bytes.Buffer
	args := []string{"-bin", filepath.Join(t.TempDir(), "nothing-here")}
	if code := run(t.Context(), args, &out, &errs); code != 1 || !strings.Contains(errs.String(), "nothing-here") {
		t.Errorf("exit code %d, stderr:\n%s", code, errs.String())
	}
}
