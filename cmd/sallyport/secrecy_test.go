package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

// secrets are texts that must appear nowhere, by what they are.
type secrets map[string][]byte

// token remembers a whole token, the beginning of its payload and its signature: any of them alone would be a leak.
func (s secrets) token(name, token string) string {
	parts := strings.Split(token, ".")
	s[name] = []byte(token)
	if len(parts) == 3 {
		s["the beginning of the payload of "+name] = []byte(parts[1][:32])
		s["the signature of "+name] = []byte(parts[2])
	}
	return token
}

// absent fails for each secret that is in what was written.
func (s secrets) absent(t *testing.T, where string, written []byte) {
	t.Helper()
	for name, secret := range s {
		if bytes.Contains(written, secret) {
			t.Errorf("%s holds %s", where, name)
		}
	}
}

// absentFromProcess looks into what other users of the machine can see of a process.
func (s secrets) absentFromProcess(t *testing.T, what string, pid int) {
	t.Helper()
	for _, name := range []string{"cmdline", "environ"} {
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
		if err != nil || len(raw) == 0 {
			t.Fatalf("reading %s of %s: %d bytes, %v", name, what, len(raw), err)
		}
		s.absent(t, name+" of "+what, raw)
	}
}

// absentFromFiles looks into every file below dir but those that are made to hold secrets.
func (s secrets) absentFromFiles(t *testing.T, dir string, but ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		for _, b := range but {
			if path == b {
				return fs.SkipDir
			}
		}
		if e.IsDir() {
			return nil
		}
		raw, err := os.ReadFile(path)
		s.absent(t, path, raw)
		files++
		return err
	})
	if err != nil || files < 3 {
		t.Errorf("looked into %d files below %s: %v", files, dir, err)
	}
}

func TestNoTokenAndNoKeyAppearsInLogsFilesOrProcessLists(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	c := d.caller()
	s := secrets{"the key-encryption key": []byte(d.kek)}
	raw, err := base64.StdEncoding.DecodeString(d.kek)
	if err != nil {
		t.Fatalf("decoding the key-encryption key: %v", err)
	}
	s["the key-encryption key, raw"], s["the key-encryption key, in hex"] = raw, []byte(hex.EncodeToString(raw))

	// The whole life of a token, and everything that can be wrong with one.
	subject := s.token("a subject token", d.subject("checkout"))
	minted := s.token("a minted token", c.minted(t, subject, "gateway"))
	onward := s.token("an onward token", c.minted(t, minted, "orders"))
	bearer := s.token("an introspection token", c.minted(t, d.subject("gateway"), "introspection"))
	wantAlive(t, c, bearer, []string{minted, onward}, true)
	claims := d.cluster.Claims(time.Now(), "checkout", d.url)
	for name, bad := range map[string]string{
		"an expired token":         d.cluster.Sign(claims.With("iat", 1).With("nbf", 1).With("exp", 600)).Reveal(),
		"a token for another":      d.cluster.Sign(claims.With("aud", "https://another.example")).Reveal(),
		"a token of a stranger":    d.cluster.Sign(claims.With("iss", "https://stranger.example")).Reveal(),
		"a token with a bad claim": d.cluster.Sign(claims.With("sub", 7)).Reveal(),
		"a forged token":           federationtest.NewNamed(t, clusterURL, "ES256").Sign(claims).Reveal(),
		"a truncated token":        subject[:len(subject)-30],
	} {
		wantStatus(t, "exchanging "+name, c.exchange(s.token(name, bad), "gateway"), http.StatusBadRequest)
	}
	// In the wrong place: as target, as scope, as type, in the URL and in a header.
	for _, field := range []string{"audience", "resource", "scope", "subject_token_type", "grant_type", "client_id"} {
		form := exchangeForm(subject, "gateway", "")
		form.Set(field, subject)
		c.post("/token", "", form)
	}
	c.post("/token?subject_token="+subject, "", exchangeForm("", "gateway", ""))
	c.post("/"+subject, "", exchangeForm(subject, "gateway", ""))
	c.post("/token", subject, exchangeForm(subject, "gateway", ""))
	wantStatus(t, "introspecting as nobody", c.introspect(subject, minted), http.StatusUnauthorized)
	wantStatus(t, "revoking", c.revoke(minted), http.StatusOK)
	wantStatus(t, "exchanging what was revoked", c.exchange(minted, "orders"), http.StatusBadRequest)
	d.edit("policy/shop.yaml", "scopes: [call]", "scopes: [none]")
	p.saidSoon("reload refused", 1)

	s.absentFromProcess(t, "the server", p.cmd.Process.Pid)
	for _, id := range []string{c.exchange(minted, "orders").decision(), claim(minted, "jti")} {
		out, code := sallyport(t, "explain", "--config", d.dir, id)
		if code != exitDone {
			t.Errorf("explain %s ended with %d: %s", id, code, out)
		}
		s.absent(t, "what explain says", []byte(out))
	}
	p.kill() // the store and the log as an incident finds them
	s.absentFromFiles(t, d.dir, filepath.Join(d.dir, "secrets"))
	s.absent(t, "the server's log", []byte(p.said()))
}

// TestClientKeepsTheTokenOutOfTheProcessList looks at a client while it waits for an answer that does not come.
func TestClientKeepsTheTokenOutOfTheProcessList(t *testing.T) {
	t.Parallel()
	s := secrets{}
	d := newDeployment(t)
	token := s.token("the subject token", d.subject("checkout"))
	arrived, release := make(chan string, 1), make(chan struct{})
	var metadata string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, metadata)
			return
		}
		arrived <- r.FormValue("subject_token")
		<-release
	}))
	srv.Start()
	defer srv.Close()
	defer close(release)
	metadata = strings.ReplaceAll(`{"issuer":"URL","token_endpoint":"URL/token","jwks_uri":"URL/jwks"}`, "URL", srv.URL)

	client := exec.Command("sallyport", "exchange", "--server", srv.URL, "--audience", "gateway")
	client.Env = cleanEnvironment()
	client.Stdin = strings.NewReader(token + "\n")
	if err := client.Start(); err != nil {
		t.Fatalf("starting the client: %v", err)
	}
	defer func() { _ = client.Wait() }()
	defer func() { _ = client.Process.Kill() }()
	select {
	case got := <-arrived:
		if got != token {
			t.Errorf("the client sent %d bytes of token, want those of the subject token, %d", len(got), len(token))
		}
	case <-time.After(patience):
		t.Fatal("the client sent nothing")
	}
	s.absentFromProcess(t, "the client", client.Process.Pid)
}

// A token goes to the server that was named, whatever that server's metadata says.
func TestClientSendsTokensToNoOtherHost(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	asked := make(chan string, 8)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer elsewhere.Close()
	var metadata string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, metadata)
	}))
	defer srv.Close()
	metadata = strings.NewReplacer("URL", srv.URL, "OTHER", elsewhere.URL).Replace(
		`{"issuer":"URL","token_endpoint":"OTHER/token","revocation_endpoint":"OTHER/revoke","jwks_uri":"URL/jwks"}`)
	d.write("token.jwt", d.subject("checkout"), 0o600)
	for _, args := range [][]string{
		{"exchange", "--server", srv.URL, "--audience", "gateway", "--subject-token-file", filepath.Join(d.dir, "token.jwt")},
		{"revoke", "--server", srv.URL, "token-file=" + filepath.Join(d.dir, "token.jwt")},
	} {
		if out, code := sallyport(t, args...); code != exitFailed || !strings.Contains(out, "names an endpoint on another host") {
			t.Errorf("%s ended with %d and said %q, want 1 and why", args[0], code, out)
		}
	}
	if out, code := sallyport(t, "exchange", "--server", "http://sts.example", "--audience", "gateway", "--subject-token-file", filepath.Join(d.dir, "token.jwt")); code != exitUsage || !strings.Contains(out, "in the clear") {
		t.Errorf("exchange over http ended with %d and said %q, want 2 and why", code, out)
	}
	select {
	case path := <-asked:
		t.Errorf("the other host was asked for %s", path)
	default:
	}
}

func TestRecordedAddressIsThePeersWhateverHeadersSay(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	c := d.caller()
	peer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}
	c.http.Transport.(*http.Transport).DialContext = peer.DialContext
	lies := []string{
		"X-Forwarded-For", "203.0.113.9", "X-Real-IP", "203.0.113.9", "Forwarded", "for=203.0.113.9;proto=https",
		"True-Client-IP", "203.0.113.9", "CF-Connecting-IP", "203.0.113.9", "X-Forwarded-Host", "evil.example",
	}
	for _, target := range []string{"gateway", "orders"} { // one is issued, one refused
		a := c.post("/token", "", exchangeForm(d.subject("checkout"), target, ""), lies...)
		if a.err != nil || a.decision() == "" {
			t.Fatalf("exchanging for %s: got %s", target, a)
		}
		if rec := d.record(a.decision()); rec.Remote != "127.0.0.7" {
			t.Errorf("exchange for %s from 127.0.0.7 with lying headers: recorded as from %q", target, rec.Remote)
		}
	}
	p.stop()
	s := secrets{"the forwarded address": []byte("203.0.113.9"), "the forwarded host": []byte("evil.example")}
	s.absentFromFiles(t, d.audit)
	s.absent(t, "the server's log", []byte(p.said()))
}
