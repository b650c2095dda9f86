package databases

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/stage"
)

// adminPassword is that of the account with which Sallyport makes logins, as the samples in deploy make it.
const adminPassword = "admin-4kZ0pQ"

// bin is the binary that every test runs.
var bin = os.Getenv("SALLYPORT_BIN")

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if bin == "" {
			dir, err := os.MkdirTemp("", "sallyport-")
			if err == nil {
				defer os.RemoveAll(dir)
				bin, err = stage.Build(dir)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		return m.Run()
	}())
}

// upstream is a server and its vendor's client, as the story sees them.
type upstream struct {
	target string            // the target file, of the target db with the scope read
	files  map[string]string // what it refers to

	form   string                      // -o
	client func(file string) *exec.Cmd // with what -o wrote; statements come on its standard input
	parts  func(l login) *exec.Cmd     // with the parts of the credential
	left   func(t *testing.T) []string // users and sessions of leases that the server has
	noise  string                      // what lines of the client begin with that are no answer; "" for none
	query  string                      // what the scope allows
	answer string                      // to it, one line
	denied map[string]string           // what the scope does not allow, and what the client says then
	locked string                      // what the client says of a login that is gone
}

// login is a credential as its holder reads it.
type login struct {
	Host, User, Password string
	Port                 int
	URLs                 []string
}

// holder is a workload's machine: a process that serves, and the commands that are run.
type holder struct {
	t        *testing.T
	dir      string // of the holder
	node     *stage.Node
	platform *stage.Platform
}

func newHolder(t *testing.T, u upstream) *holder {
	t.Helper()
	platform, err := stage.NewPlatform()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{t, t.TempDir(), &stage.Node{Name: "db", Dir: filepath.Join(t.TempDir(), "conf")}, platform}
	files := map[string]string{
		"secrets/kek": stage.KEK(), "c.jwks.json": h.platform.JWKS, "trust/prod.yaml": h.platform.Trust(audience),
		"targets/hub.yaml": "target: hub\nbroker: jwt\n", "targets/db.yaml": u.target,
		"policy/p.yaml": "rules:\n" +
			"  - {name: hub, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [hub]}\n" +
			"  - {name: direct, workloads: {trust_domain: prod.example, issuer: c, where: {sub: checkout}}, targets: [db], scopes: [read]}\n" +
			"  - {name: onward, workloads: {trust_domain: prod.example, issuer: c}, exchange_from: [hub], targets: [db], scopes: [read]}\n",
	}
	for name, text := range u.files {
		files[name] = text
	}
	for name, text := range files {
		if err := stage.Write(filepath.Join(h.node.Dir, name), text); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(h.node.Kill)
	if err := h.node.Start(bin, "issuer: http://WORKLOAD\nsigning: {seal_with: {file: secrets/kek}}\n"); err != nil {
		t.Fatal(err)
	}
	return h
}

// audience is what the platform's tokens are for.
const audience = "https://sts.prod.example"

// sallyport runs a command of the binary.
func (h *holder) sallyport(args ...string) string {
	h.t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SALLYPORT_SERVER=http://" + h.node.Workload, "SALLYPORT_ADMIN=unix:" + h.node.Admin}
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(h.node.Dir, "log"))
		h.t.Fatalf("sallyport %s: %v\n%s\nthe service says:\n%s", strings.Join(args, " "), err, out, log)
	}
	return string(out)
}

// exchange has a token exchanged into a file.
func (h *holder) exchange(target, from, form, to string) string {
	h.t.Helper()
	to = filepath.Join(h.dir, to)
	h.sallyport("exchange", "--audience", target, "--subject-token-file", from, "-o", form, "--to", to)
	return to
}

// identity is a file with the platform's token of the workload.
func (h *holder) identity() string {
	h.t.Helper()
	file := filepath.Join(h.dir, "identity.jwt")
	if err := stage.Write(file, h.platform.Token("checkout", audience)); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// leases are the rows of `sallyport leases`.
func (h *holder) leases() []string {
	h.t.Helper()
	return strings.Split(strings.TrimSpace(h.sallyport("leases")), "\n")[1:]
}

// ask runs the client for one statement, and returns whatever it says.
func (u upstream) ask(t *testing.T, cmd *exec.Cmd, statement string) string {
	t.Helper()
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(statement+"\n"), &said, &said
	if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(said.String()) {
		if !u.isNoise(line) {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, ""))
}

func (u upstream) isNoise(line string) bool { return u.noise != "" && strings.HasPrefix(line, u.noise) }

// tell is the whole story.
func (u upstream) tell(t *testing.T) {
	h := newHolder(t, u)
	if left := u.left(t); len(left) > 0 {
		t.Fatalf("before anything was exchanged, the server has %v", left)
	}
	// A token for the hub, and from it a login as the vendor's client reads it: the token stays with its holder, who can
	// give back by it whatever came of it.
	hub := h.exchange("hub", h.identity(), "token", "hub.jwt")
	file := h.exchange("db", hub, u.form, "login")
	if got := u.ask(t, u.client(file), u.query); got != u.answer {
		t.Fatalf("%s says %q, want %q", u.query, got, u.answer)
	}
	for statement, want := range u.denied {
		if got := u.ask(t, u.client(file), statement); !strings.Contains(got, want) {
			t.Errorf("%s says %q, want %q in it", statement, got, want)
		}
	}
	first := u.open(t, u.client(file))
	if err := first.answers(u); err != nil {
		t.Fatalf("a session: %v", err)
	}

	// Another one, straight from the workload's token, and given back by what it is itself.
	held := h.exchange("db", h.identity(), "token", "held")
	var l login
	raw, err := os.ReadFile(held)
	if err != nil || json.Unmarshal(raw, &l) != nil {
		t.Fatalf("the credential is no JSON (%v)", err)
	}
	second := u.open(t, u.parts(l))
	if err := second.answers(u); err != nil {
		t.Fatalf("the second login: %v", err)
	}
	if rows := h.leases(); len(rows) != 2 || !strings.Contains(strings.Join(rows, "\n"), l.User+" ") {
		t.Errorf("sallyport leases shows %q, want two, one of them %s", rows, l.User)
	}
	h.sallyport("revoke", "token-file="+held)
	u.dead(t, "the second login", second, u.parts(l))
	if rows := h.leases(); len(rows) != 1 || strings.Contains(rows[0], l.User) {
		t.Errorf("after one of two was revoked, sallyport leases shows %q", rows)
	}
	if left := strings.Join(u.left(t), " "); strings.Contains(left, l.User) || left == "" {
		t.Errorf("after %s was revoked, and the other not, the server has %q", l.User, left)
	}
	if err := first.answers(u); err != nil {
		t.Fatalf("the first session, when another login was revoked: %v", err)
	}

	h.sallyport("revoke", "token-file="+hub)
	u.dead(t, "the first login", first, u.client(file))
	if left := u.left(t); len(left) > 0 {
		t.Errorf("the server still has %v", left)
	}
	if rows := h.leases(); len(rows) > 0 {
		t.Errorf("sallyport leases still shows %q", rows)
	}
	h.secret(l.Password)
}

// dead fails unless a session is over and its login opens no other.
func (u upstream) dead(t *testing.T, what string, s *session, again *exec.Cmd) {
	t.Helper()
	if err := s.answers(u); err == nil {
		t.Errorf("%s was revoked, and its session goes on", what)
	}
	if got := u.ask(t, again, u.query); !strings.Contains(got, u.locked) {
		t.Errorf("%s was revoked, and the client says %q, want %q in it", what, got, u.locked)
	}
}

// secret fails when a file of the service, its log among them, holds a password.
func (h *holder) secret(password string) {
	h.t.Helper()
	looked := 0
	err := filepath.WalkDir(h.node.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if looked++; bytes.Contains(b, []byte(password)) {
			h.t.Errorf("a password stands in %s", path)
		}
		return err
	})
	if err != nil || looked < 5 || password == "" {
		h.t.Errorf("looked into %d files for a password of %d characters (%v)", looked, len(password), err)
	}
}

// session is a client that runs.
type session struct {
	in   io.Writer
	said chan string // lines; closed when the client has ended
}

func (u upstream) open(t *testing.T, cmd *exec.Cmd) *session {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	s := &session{in, make(chan string, 100)}
	go func() {
		defer close(s.said)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if line := lines.Text(); !u.isNoise(line) {
				s.said <- line
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = out.Close()
	})
	return s
}

// answers asks the query in the session. It returns what is wrong with the answer.
func (s *session) answers(u upstream) error {
	if _, err := io.WriteString(s.in, u.query+"\n"); err != nil {
		return err
	}
	select {
	case line, ok := <-s.said:
		if !ok {
			return errors.New("the client has ended")
		}
		if line != u.answer {
			return fmt.Errorf("it says %q, want %q", line, u.answer)
		}
		return nil
	case <-time.After(stage.Patience):
		return errors.New("no answer")
	}
}
