package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/test/ports"
)

type command = func(ts *testscript.TestScript, neg bool, args []string)

// scriptCommands are what the scripts need beside sallyport itself:
//
//	exits CODE PROGRAM ARG...          run a program, and want exactly this exit code
//	configure DIR                      write testdata/deployment there, set URL to its issuer and OPS to its
//	                                   ops address
//	freeaddress NAME...                set environment variables to loopback addresses nobody uses, HOST:PORT
//	issuer NAME URL FILE               make a platform's key, write its key set to FILE
//	token NAME CLAIMS FILE [LIFETIME]  sign a token; iat, nbf, exp and jti are added
//	waitready HOST:PORT                until the server's /readyz says 200
//	get URL STATUS                     GET; the body is stdout for the lines that follow
//	post URL STATUS KEY=VALUE...       form POST; KEY@FILE takes the value from a file, and
//	                                   bearer@FILE authenticates; the body is stdout
//	json FILE PATH VALUE               a member of a JSON document is this; PATH is a.b.0.c
//	save FILE PATH FILE                write a member of a JSON document to a file
//	member FILE PATH NAME              set an environment variable to a member of a JSON document
//	decision FILE NAME                 set an environment variable to the decision id in a text
//	waitreason HOST:PORT CHECK TEXT    until /readyz says TEXT of a check; with '' until it says nothing
//	signal TERM|HUP                    to every background program; `wait` comes after
func scriptCommands(t *testing.T) map[string]command {
	return map[string]command{
		"exits":       scriptExits,
		"configure":   scriptConfigure,
		"freeaddress": scriptFreeAddress,
		"issuer":      func(ts *testscript.TestScript, _ bool, args []string) { scriptIssue(t, ts, args) },
		"token":       scriptToken,
		"waitready":   scriptWaitReady,
		"get":         scriptGet,
		"post":        scriptPost,
		"json":        scriptJSON,
		"save":        scriptSave,
		"member":      scriptMember,
		"decision":    scriptDecision,
		"waitreason":  func(ts *testscript.TestScript, _ bool, args []string) { scriptWaitReason(t, ts, args) },
		"signal":      scriptSignal,
	}
}

func need(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, !neg && len(args) >= 2, "exits CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func scriptFreeAddress(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		ts.Setenv(name, ports.Address())
	}
}

func scriptConfigure(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 1, "configure DIR")
	workload, ops := ports.Address(), ports.Address()
	ts.Setenv("URL", "http://"+workload)
	ts.Setenv("OPS", ops)
	replace := strings.NewReplacer("${URL}", "http://"+workload, "${WORKLOAD}", workload, "${OPS}", ops)
	dir := ts.MkAbs(args[0])
	ts.Check(os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "deployment"))))
	ts.Check(filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(replace.Replace(string(raw))), 0o644)
	}))
	ts.Check(os.MkdirAll(filepath.Join(dir, "secrets"), 0o700))
	kek := base64.StdEncoding.EncodeToString([]byte(rand.Text() + rand.Text())[:32])
	ts.Check(os.WriteFile(filepath.Join(dir, "secrets", "kek"), []byte(kek+"\n"), 0o600))
}

type issuersKey struct{}

// scriptIssuer is a platform that signs tokens.
type scriptIssuer struct {
	url string
	*federationtest.Issuer
}

func scriptIssue(t *testing.T, ts *testscript.TestScript, args []string) {
	need(ts, len(args) == 3, "issuer NAME URL FILE")
	is := &scriptIssuer{args[1], federationtest.NewNamed(t, args[1], jose.ES256)}
	ts.Value(issuersKey{}).(map[string]*scriptIssuer)[args[0]] = is
	path := ts.MkAbs(args[2])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, is.JWKS(), 0o644))
}

func scriptToken(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 3 || len(args) == 4, "token NAME CLAIMS FILE [LIFETIME]")
	is := ts.Value(issuersKey{}).(map[string]*scriptIssuer)[args[0]]
	need(ts, is != nil, "issuer "+args[0]+" first")
	life := 10 * time.Minute
	if len(args) == 4 {
		var err error
		life, err = time.ParseDuration(args[3])
		ts.Check(err)
	}
	now := time.Now()
	claims := federationtest.Claims{
		"iss": is.url, "iat": now.Add(min(life, 0)).Unix(), "exp": now.Add(life).Unix(), "jti": newID(),
	}
	text := os.Expand(ts.ReadFile(args[1]), ts.Getenv)
	ts.Check(json.Unmarshal([]byte(text), &claims))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(is.Sign(claims).Reveal()+"\n"), 0o600))
}

func scriptWaitReady(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 1, "waitready HOST:PORT")
	if err := waitReady(args[0], nil); err != nil {
		ts.Fatalf("%v", err)
	}
}

// show makes a body what `stdout` and `json stdout` look at.
func show(ts *testscript.TestScript, body []byte) {
	path := ts.MkAbs("answer.json")
	ts.Check(os.WriteFile(path, body, 0o600))
	ts.Check(ts.Exec("cat", path))
}

func scriptAnswer(ts *testscript.TestScript, resp *http.Response, err error, want string) {
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if strconv.Itoa(resp.StatusCode) != want {
		ts.Fatalf("%s %s answered %d, want %s: %s", resp.Request.Method, resp.Request.URL, resp.StatusCode, want, body)
	}
	show(ts, body)
}

func scriptGet(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 2, "get URL STATUS")
	resp, err := http.Get(args[0])
	scriptAnswer(ts, resp, err, args[1])
}

func scriptPost(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) >= 2, "post URL STATUS KEY=VALUE|KEY@FILE...")
	form, bearer := url.Values{}, ""
	for _, arg := range args[2:] {
		at := strings.IndexAny(arg, "=@")
		need(ts, at > 0, "post URL STATUS KEY=VALUE|KEY@FILE...")
		name, value := arg[:at], arg[at+1:]
		if arg[at] == '@' {
			value = strings.TrimSpace(ts.ReadFile(value))
		}
		if name == "bearer" {
			bearer = value
			continue
		}
		form.Add(name, value)
	}
	req, err := http.NewRequest(http.MethodPost, args[0], strings.NewReader(form.Encode()))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	scriptAnswer(ts, resp, err, args[1])
}

// member returns what stands at a path of a JSON document, as text.
func member(ts *testscript.TestScript, file, path string) string {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("%s is not JSON: %v", file, err)
	}
	for _, key := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			if i, err := strconv.Atoi(key); err == nil && i < len(x) {
				v = x[i]
				continue
			}
			v = nil
		default:
			v = nil
		}
	}
	if s, ok := v.(string); ok {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	ts.Check(e.Encode(v))
	return strings.TrimSpace(b.String())
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, len(args) == 3, "json FILE PATH VALUE")
	if got := member(ts, args[0], args[1]); (got == args[2]) == neg {
		ts.Fatalf("%s: %s is %s, want %s (negated: %v)", args[0], args[1], got, args[2], neg)
	}
}

func scriptSave(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 3, "save FILE PATH FILE")
	value := member(ts, args[0], args[1])
	if value == "" || value == "null" {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(value+"\n"), 0o600))
}

func scriptMember(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 3, "member FILE PATH NAME")
	ts.Setenv(args[2], member(ts, args[0], args[1]))
}

func scriptWaitReason(t *testing.T, ts *testscript.TestScript, args []string) {
	need(ts, len(args) == 3, "waitreason HOST:PORT CHECK TEXT")
	d := deployment{t: t, ops: args[0]}
	deadline := time.Now().Add(patience)
	for {
		reason := d.readyz().reason(args[1])
		if args[2] == "" && reason == "" || args[2] != "" && strings.Contains(reason, args[2]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("/readyz says %q of %s, want %q", reason, args[1], args[2])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func scriptDecision(ts *testscript.TestScript, _ bool, args []string) {
	need(ts, len(args) == 2, "decision FILE NAME")
	found := decisionIn.FindStringSubmatch(ts.ReadFile(args[0]))
	if found == nil {
		ts.Fatalf("%s names no decision", args[0])
	}
	ts.Setenv(args[1], found[1])
}

func scriptSignal(ts *testscript.TestScript, _ bool, args []string) {
	signals := map[string]os.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}
	need(ts, len(args) == 1 && signals[args[0]] != nil, "signal TERM|HUP")
	if len(ts.BackgroundCmds()) == 0 {
		ts.Fatalf("no program runs in the background")
	}
	for _, c := range ts.BackgroundCmds() {
		if err := c.Process.Signal(signals[args[0]]); err != nil && !errors.Is(err, os.ErrProcessDone) {
			ts.Check(fmt.Errorf("signalling %s: %w", c.Path, err))
		}
	}
}
