package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/test/ports"
)

const operatorsYAML = `client_ca_file: operators-ca.crt
people:
  - name: company
    type: oidc
    issuer: https://people.example
    audiences: [sallyport-operators]
    algorithms: [ES256]
    keys: {jwks_file: keys/people.json}
    oidc:
      path: [sub]
      attributes:
        sub: {claim: sub}
        groups: {claim: groups, type: strings}
roles:
  - name: prod-responders
    may: [look, revoke, unlock]
    trust_domains: [prod.example]
    certificates: ["spiffe://ops.example/prod"]
  - name: onlookers
    may: [look]
    estate: true
    certificates: ["looker@ops.example"]
  - name: responders
    may: [look, revoke, unlock]
    estate: true
    people:
      - {issuer: company, where: {groups: {contains: responders}}}
`

// estate is a deployment with two trust domains that operators reach over the network.
type estate struct {
	*deployment
	server, operators *authority
	people, legacy    *federationtest.Issuer
	admin             string
	proc              *process
}

func newEstate(t *testing.T) *estate {
	t.Helper()
	e := &estate{server: newAuthority(t), operators: newAuthority(t)}
	e.deployment = newTLSDeployment(t, e.server)
	e.admin = ports.Address()
	e.edit("sallyport.yaml", "listen: {", `listen: {operators: "`+e.admin+`", admin: "unix:`+e.socket()+`", `)
	e.legacy = e.addLegacy()
	e.people = federationtest.NewNamed(t, "https://people.example", jose.ES256)
	e.write("keys/people.json", string(e.people.JWKS()), 0o644)
	e.write("operators-ca.crt", e.operators.pem, 0o644)
	e.write("operators.yaml", operatorsYAML, 0o644)
	e.proc = e.start()
	return e
}

func (e *estate) socket() string { return filepath.Join(filepath.Dir(e.dir), "a.sock") }

// credentials writes a client certificate of an authority and returns the flags that present it.
func (e *estate) credentials(a *authority, serial int64, usage x509.ExtKeyUsage, name string) []string {
	e.t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "someone"}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}
	if strings.Contains(name, "@") {
		template.EmailAddresses = []string{name}
	} else if name != "" {
		u, err := url.Parse(name)
		if err != nil {
			e.t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	var key *ecdsa.PrivateKey
	_, key, cert := issue(e.t, template, a.cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		e.t.Fatal(err)
	}
	dir := e.t.TempDir()
	for file, content := range map[string]string{"cert": cert, "key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	return []string{"--admin", "https://" + e.admin, "--admin-ca-file", filepath.Join(e.dir, "ca.crt"), "--admin-cert", filepath.Join(dir, "cert"), "--admin-key", filepath.Join(dir, "key")}
}

func (e *estate) certificate(name string) []string {
	return e.credentials(e.operators, 7, x509.ExtKeyUsageClientAuth, name)
}

// token writes a token to a file and returns the flags that present it.
func (e *estate) token(token string) []string {
	e.t.Helper()
	file := filepath.Join(e.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		e.t.Fatal(err)
	}
	return []string{"--admin", "https://" + e.admin, "--admin-ca-file", filepath.Join(e.dir, "ca.crt"), "--admin-token-file", file}
}

func (e *estate) person(name, audience string, groups ...string) []string {
	claims := e.people.Claims(time.Now(), name, audience)
	claims["groups"] = groups
	return e.token(e.people.Sign(claims).Reveal())
}

func (e *estate) responder(name string) []string {
	return e.person(name, "sallyport-operators", "staff", "responders")
}

// reload makes the server read its configuration, for the nth time.
func (e *estate) reload(n int) {
	e.t.Helper()
	e.proc.signal(syscall.SIGHUP)
	e.proc.saidSoon(reloaded, n)
}

// says runs a command as somebody and fails unless it ends as it should and says what it should.
func (e *estate) says(code int, text string, who []string, args ...string) string {
	e.t.Helper()
	out, got := sallyport(e.t, append(args, who...)...)
	if got != code || !strings.Contains(out, text) {
		e.t.Errorf("sallyport %s ended with %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, text, out)
	}
	return out
}

// Nobody is an operator who was not made one: by the operators' own authority, or by their own issuer for their own
// audience. What this service minted itself makes nobody one.
func TestAdminListenerKnowsOnlyOperators(t *testing.T) {
	t.Parallel()
	e := newEstate(t)
	c := e.caller().trusting(e.server)
	minted := c.minted(t, e.subject("gateway"), "introspection")
	e.says(exitDone, "version", e.certificate("looker@ops.example"), "status")
	e.says(exitDone, "version", e.responder("alice"), "status")
	for name, who := range map[string][]string{
		"a certificate of the server's authority":   e.credentials(e.server, 7, x509.ExtKeyUsageClientAuth, "spiffe://ops.example/prod"),
		"a server's certificate":                    e.credentials(e.operators, 7, x509.ExtKeyUsageServerAuth, "spiffe://ops.example/prod"),
		"a certificate without a role":              e.certificate("spiffe://ops.example/prod/x"),
		"a certificate without a name":              e.certificate(""),
		"a token for another audience":              e.person("alice", e.url, "responders"),
		"a token of somebody without the group":     e.person("bob", "sallyport-operators", "staff", "respond"),
		"a token of a workload":                     e.token(e.subject("checkout")),
		"a token of a workload for operators":       e.token(e.cluster.Sign(e.cluster.Claims(time.Now(), "checkout", "sallyport-operators")).Reveal()),
		"a token that was minted here":              e.token(minted),
		"a person's token that has expired by an h": e.token(e.people.Sign(e.people.Claims(time.Now().Add(-3*time.Hour), "alice", "sallyport-operators")).Reveal()),
	} {
		out, code := sallyport(t, append([]string{"status"}, who...)...)
		if code == exitDone || strings.Contains(out, "version") {
			t.Errorf("%s made an operator (%d):\n%s", name, code, out)
		}
	}
	wantStatus(t, "exchanging an operator's token", c.exchange(strings.TrimSpace(readFile(t, e.responder("alice")[5])), "gateway"), http.StatusBadRequest)
	if a := c.post("/admin/v1/revocations", minted, nil); a.status != http.StatusNotFound {
		t.Errorf("the workload listener answers the admin API with %d, want 404", a.status)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Attack: a responder of one trust domain kills, locks, lifts or looks in another. // issue: cross-domain revoke
func TestCrossDomainRevokeIsRefused(t *testing.T) {
	t.Parallel()
	e := newEstate(t)
	c := e.caller().trusting(e.server)
	prod, looker, alice := e.certificate("spiffe://ops.example/prod"), e.certificate("looker@ops.example"), e.responder("alice")
	theirs := c.minted(t, e.legacy.Sign(e.legacy.Claims(time.Now(), "checkout", e.url)).Reveal(), "gateway")
	mine := c.minted(t, e.subject("checkout"), "gateway")
	bearer := c.minted(t, e.subject("gateway"), "introspection")
	alive := func(what, token string, want bool) {
		t.Helper()
		if a := c.introspect(bearer, token); a.err != nil || a.body.Active != want {
			t.Errorf("%s: active is %v (%v), want %v", what, a.body.Active, a.err, want)
		}
	}
	why := []string{"--reason", "stolen"}
	e.says(exitFailed, "say why", prod, "revoke", "attr.sub=checkout")
	e.says(exitFailed, "names trust domain legacy.example", prod, append(why, "revoke", "subject=spiffe://legacy.example/old/checkout")...)
	e.says(exitFailed, "no role with revoke in trust domain legacy.example", prod, append(why, "revoke", "trust_domain=legacy.example")...)
	e.says(exitFailed, "names trust domain legacy.example", prod, append(why, "lock", "issuer=legacy.example/old")...)
	e.says(exitFailed, "for operators of every trust domain", prod, append(why, "revoke", "lease=aaaaaaaaaaaaaaaaaaaaaaaaaa")...)
	e.says(exitFailed, "no role with revoke", looker, append(why, "revoke", "target=gateway")...)
	e.says(exitDone, "1 token of", prod, "revoke", "--dry-run", "target=gateway")
	e.says(exitDone, "2 tokens of", looker, "revoke", "--dry-run", "target=gateway")
	e.says(exitFailed, "no role with look in trust domain legacy.example", prod, "reach", "trust_domain=legacy.example")
	alive("before", theirs, true)

	// A token of another trust domain lives on, and nobody is told that it is dead.
	stolen := filepath.Join(t.TempDir(), "stolen.jwt")
	if err := os.WriteFile(stolen, []byte(theirs), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"revoke", "lock"} {
		if out := e.says(exitFailed, "nothing of trust domain prod.example matched", prod, append(why, what, "token-file="+stolen)...); strings.Contains(out, "dead:") {
			t.Errorf("%s of another's token says:\n%s", what, out)
		}
	}
	alive("another's token", theirs, true)

	// A selector that matches both kills what is the responder's own.
	e.says(exitDone, "trust_domain=prod.example", prod, append(why, "revoke", "target=gateway")...)
	alive("its own", mine, false)
	alive("another trust domain's", theirs, true)

	// Another's lock is not seen and not lifted.
	out := e.says(exitDone, "lock", alice, append(why, "lock", "subject=spiffe://legacy.example/old/checkout", "-o", "json")...)
	id := between(out, `"id": "`, `"`)
	if list := e.says(exitDone, "LOCK", prod, "locks"); strings.Contains(list, id) {
		t.Errorf("another trust domain's lock is shown:\n%s", list)
	}
	e.says(exitFailed, "no lock with this id", prod, append(why, "unlock", id)...)
	e.says(exitFailed, "no role with unlock", looker, append(why, "unlock", id)...)
	e.says(exitDone, "the lock refuses nothing", alice, append([]string{"unlock", id}, why...)...)

	// All of it is on record, with who.
	refused := 0
	for _, r := range e.records(audit.TypeAdmin) {
		if r.Admin.Status == http.StatusForbidden && (strings.HasPrefix(r.Admin.By, "spiffe://ops.example/prod certificate=7") || strings.HasPrefix(r.Admin.By, "looker@ops.example")) {
			refused++
		}
	}
	by := map[string]bool{}
	for _, r := range e.records(audit.TypeRevocation) {
		by[r.Revocation.By] = r.Reason == "stolen"
	}
	if refused != 7 || !by["spiffe://ops.example/prod certificate=7"] || !by["spiffe://operators/company/alice"] || len(by) != 2 {
		t.Errorf("on record are %d refusals, want 7, and revocations by %v", refused, by)
	}
}

func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}

// What takes two people is done when another one who may do it says yes, and by nobody else.
func TestSecondPersonApproves(t *testing.T) {
	t.Parallel()
	e := newEstate(t)
	e.write("operators.yaml", strings.Replace(operatorsYAML, "roles:", "second_person: [unlock, estate]\nroles:", 1), 0o644)
	e.reload(1)
	c := e.caller().trusting(e.server)
	alice, bob, looker, prod := e.responder("alice"), e.responder("bob"), e.certificate("looker@ops.example"), e.certificate("spiffe://ops.example/prod")
	token := c.minted(t, e.subject("checkout"), "gateway")
	bearer := c.minted(t, e.subject("gateway"), "introspection")
	why := []string{"--reason", "stolen", "-o", "json"}
	ask := func(who []string, args ...string) string {
		t.Helper()
		proposal := between(e.says(exitFailed, "takes a second person", who, append(why, args...)...), `"proposal": "`, `"`)
		file := filepath.Join(t.TempDir(), "proposal")
		if err := os.WriteFile(file, []byte(proposal), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	wide := ask(alice, "revoke", "target=gateway")
	if a := c.introspect(bearer, token); !a.body.Active {
		t.Fatalf("one person killed alone: %s", a)
	}
	e.says(exitDone, "target=gateway", looker, "approve", "--show", wide)
	e.says(exitFailed, "another person", alice, "approve", wide)
	e.says(exitFailed, "not allowed", looker, "approve", wide)
	e.says(exitFailed, "not allowed", prod, "approve", wide)
	forged := filepath.Join(t.TempDir(), "forged")
	raw := readFile(t, wide)
	if err := os.WriteFile(forged, []byte(raw[:len(raw)-4]+"AAAA"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.says(exitFailed, "no proposal", bob, "approve", forged)
	e.says(exitDone, "dead: all that matches", bob, "approve", wide)
	if a := c.introspect(bearer, token); a.body.Active {
		t.Errorf("what two people killed lives: %s", a)
	}
	time.Sleep(2 * time.Second) // what comes after is of a later second
	later := c.minted(t, e.subject("checkout"), "gateway")
	e.says(exitFailed, "approved already", bob, "approve", wide) // it is good for 15 minutes, and once
	if a := c.introspect(c.minted(t, e.subject("gateway"), "introspection"), later); !a.body.Active {
		t.Errorf("what was approved once killed again: %s", a)
	}

	// One workload is killed and locked by one person. The lock is lifted by two; of the socket and a certificate nobody can
	// tell whether they are, until it is said.
	root := []string{"--admin", "unix:" + e.socket()}
	id := between(e.says(exitDone, "id", prod, append(why, "lock", "attr.sub=checkout")...), `"id": "`, `"`)
	lift := ask(root, "unlock", id)
	if shown := e.says(exitDone, "it locks  attr.sub=checkout trust_domain=prod.example", prod, "approve", "--show", "-o", "table", lift); !strings.Contains(shown, "because   stolen") {
		t.Errorf("what would be lifted is not shown:\n%s", shown)
	}
	e.says(exitFailed, "another person", root, "approve", lift)
	e.says(exitFailed, "same_person", prod, "approve", lift)
	e.edit("operators.yaml", "roles:", fmt.Sprintf("same_person:\n  - {name: carol, certificates: [spiffe://ops.example/prod]}\n  - {name: dave, users: [%d]}\nroles:", os.Getuid()))
	e.reload(2)
	e.says(exitDone, "the lock refuses nothing", prod, "approve", lift)

	// Who asked has lost the right to before somebody approves.
	stale := ask(alice, "revoke", "target=gateway")
	e.edit("operators.yaml", "contains: responders", "contains: others")
	e.reload(3)
	erin := e.person("erin", "sallyport-operators", "others")
	e.says(exitFailed, "may not do this any more", erin, "approve", stale)
	for _, r := range e.records(audit.TypeAdmin) {
		if r.Admin.Call == "/admin/v1/approvals" && r.Admin.Status == http.StatusForbidden && (len(r.Admin.Selector) != 1 || r.Reason != "stolen") {
			t.Errorf("a refused approval is on record as %+v: %q", r.Admin, r.Reason)
		}
	}
	found := false
	for _, r := range e.records(audit.TypeRevocation) {
		found = found || r.Revocation.By == "spiffe://operators/company/alice, approved by spiffe://operators/company/bob"
	}
	if !found {
		t.Error("no record names both who asked and who approved")
	}
}
