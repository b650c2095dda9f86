package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

const reloaded = "configuration reloaded"

func TestReloadTakesEffectOnFileChangeAndOnSIGHUP(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	c := d.caller()
	wantStatus(t, "exchanging before any rule allows it", c.exchange(d.subject("billing"), "gateway"), http.StatusBadRequest)

	d.edit("policy/shop.yaml", "where: {sub: checkout}", "where: {sub: [checkout, billing]}")
	p.saidSoon(reloaded, 1)
	wantStatus(t, "exchanging after the file change", c.exchange(d.subject("billing"), "gateway"), http.StatusOK)

	before := strings.Count(p.said(), reloaded)
	p.signal(syscall.SIGHUP)
	p.saidSoon(reloaded, before+1)
	wantStatus(t, "exchanging after SIGHUP", c.exchange(d.subject("billing"), "gateway"), http.StatusOK)

	// Only what is in force counts, not how often something was reloaded.
	for _, name := range []string{"shipping", "returns"} {
		d.edit("policy/shop.yaml", "sub: [checkout,", "sub: [checkout, "+name+",")
		eventually(t, name+" may exchange", func() error {
			if a := c.exchange(d.subject(name), "gateway"); a.err != nil || a.status != http.StatusOK {
				return fmt.Errorf("got %s", a)
			}
			return nil
		})
	}
	p.stop()
}

func TestBrokenReloadKeepsTheOldSetAndSaysWhere(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	c := d.caller()
	good := d.read("policy/shop.yaml")

	// The broken set would also have taken gateway away from checkout: nothing of it may be in force.
	d.write("policy/shop.yaml", strings.Replace(good, "targets: [gateway]", "targets: [no-such-target]", 1), 0o644)
	p.saidSoon("reload refused", 1)
	wantStatus(t, "exchanging under the old set", c.exchange(d.subject("checkout"), "gateway"), http.StatusOK)
	r := d.readyz()
	if reason := r.reason("configuration"); r.status != http.StatusOK || !r.Ready ||
		!strings.Contains(reason, "policy/shop.yaml:4") || !strings.Contains(reason, "no-such-target") {
		t.Errorf("/readyz after a broken reload: got %d with %q, want 200 and a reason with policy/shop.yaml:4 in it", r.status, reason)
	}

	d.write("policy/shop.yaml", strings.Replace(good, "scopes: [call]", "scopes: [call]\n    lifetime: 1m", 1), 0o644)
	p.saidSoon(reloaded, 1)
	if a := c.exchange(d.subject("checkout"), "gateway"); a.status != http.StatusOK || a.body.ExpiresIn > 60 || a.body.ExpiresIn <= 0 {
		t.Errorf("after the fix: got %s living %d seconds, want at most 60", a, a.body.ExpiresIn)
	}
	if reason := d.readyz().reason("configuration"); reason != "" {
		t.Errorf("/readyz after the fix still says %q", reason)
	}
	p.stop()
}

// A bad set that was found and is gone before the watch looks must not stay on the list of what is wrong.
func TestRepairedSetIsSeenHoweverSoonItComes(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	good := d.read("policy/shop.yaml")
	d.write("policy/shop.yaml", strings.Replace(good, "targets: [gateway]", "targets: [no-such-target]", 1), 0o644)
	p.signal(syscall.SIGHUP)
	p.saidSoon("reload refused", 1)
	d.write("policy/shop.yaml", good, 0o644)
	eventually(t, "/readyz is content", func() error {
		if reason := d.readyz().reason("configuration"); reason != "" {
			return fmt.Errorf("it says %q", reason)
		}
		return nil
	})
	p.stop()
}

// addLegacy lets the deployment trust a second platform, with rules of its own, and returns it.
func (d *deployment) addLegacy() *federationtest.Issuer {
	legacy := federationtest.NewNamed(d.t, "https://legacy.example", jose.ES256)
	d.write("keys/legacy.json", string(legacy.JWKS()), 0o644)
	d.copy("testdata/legacy")
	return legacy
}

func TestRemovedIssuerIsRefusedAtOnceWithAllThatItObtained(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	legacy := d.addLegacy()
	p := d.start()
	c := d.caller()
	subject := legacy.Sign(legacy.Claims(time.Now(), "checkout", d.url)).Reveal()
	bearer := c.minted(t, d.subject("gateway"), "introspection")
	kept, orphan := c.minted(t, d.subject("checkout"), "gateway"), c.minted(t, subject, "gateway")
	wantAlive(t, c, bearer, []string{kept, orphan}, true)
	wantStatus(t, "exchanging the legacy workload's token onward", c.exchange(orphan, "orders"), http.StatusOK)

	for _, f := range []string{"trust/legacy.yaml", "policy/legacy.yaml"} {
		if err := os.Remove(filepath.Join(d.dir, f)); err != nil {
			t.Fatalf("removing %s: %v", f, err)
		}
	}
	p.signal(syscall.SIGHUP)
	p.saidSoon(reloaded, 1)
	wantStatus(t, "exchanging a token of the removed issuer", c.exchange(subject, "gateway"), http.StatusBadRequest)
	wantStatus(t, "exchanging onward what it obtained", c.exchange(orphan, "orders"), http.StatusBadRequest)
	wantAlive(t, c, bearer, []string{orphan}, false)
	wantAlive(t, c, bearer, []string{kept}, true)
	p.stop()
}

// A change of sallyport.yaml that waits for a restart keeps nobody from closing a hole in the policy: each is in force when it
// can be, and what waits is named.
func TestWhatTakesARestartKeepsNoPolicyOut(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	p := d.start()
	good := d.read("sallyport.yaml")
	d.edit("sallyport.yaml", "issuer: "+d.url, "issuer: http://localhost:1")
	p.saidSoon("which takes a restart; all else is in force", 1)
	if reason := d.readyz().reason("configuration"); !strings.Contains(reason, "this takes a restart: sallyport.yaml:1 issuer") {
		t.Errorf("/readyz after the issuer changed: %q, want which setting takes a restart", reason)
	}
	a := d.caller().exchange(d.subject("checkout"), "gateway")
	if iss := claim(a.body.AccessToken, "iss"); iss != d.url {
		t.Errorf("after the change: got %s with iss %q, want %q", a, iss, d.url)
	}
	d.write("policy/closed.yaml", "rules:\n  - {name: closed, effect: deny, workloads: {trust_domain: prod.example}, targets: [gateway]}\n", 0o644)
	p.saidSoon(reloaded, 2)
	wantStatus(t, "what a new rule denies while a setting waits", d.caller().exchange(d.subject("checkout"), "gateway"), http.StatusBadRequest)

	// One that would not even start keeps nothing out either.
	for i, broken := range []string{"issuer: [", good + "no_such_setting: 1\n", strings.Replace(good, "issuer:", "isuer:", 1)} {
		d.write("sallyport.yaml", broken, 0o644)
		p.saidSoon(reloaded, 3+2*i)
		effect := []string{"{name: open, effect: deny, workloads: {trust_domain: prod.example}, targets: [orders]}", "{name: closed, effect: deny, workloads: {trust_domain: prod.example}, targets: [gateway]}"}[i%2]
		d.write("policy/closed.yaml", "rules:\n  - "+effect+"\n", 0o644)
		p.saidSoon(reloaded, 4+2*i)
		wantStatus(t, "what a rule says beside a sallyport.yaml that does not load", d.caller().exchange(d.subject("checkout"), "gateway"), []int{http.StatusOK, http.StatusBadRequest}[i%2])
		if reason := d.readyz().reason("configuration"); !strings.Contains(reason, "the next start would fail: sallyport.yaml:") {
			t.Errorf("/readyz with a sallyport.yaml that does not load: %q", reason)
		}
	}
	n := 9
	d.write("sallyport.yaml", good, 0o644)
	p.saidSoon(reloaded, n)
	if reason := d.readyz().reason("configuration"); reason != "" {
		t.Errorf("/readyz after it was taken back: %q", reason)
	}
	p.stop()
}

// Neither does a certificate that is no good, nor operators who are taken out together with their listener.
func TestCertificateAndOperatorsKeepNoPolicyOut(t *testing.T) {
	t.Parallel()
	e := newEstate(t)
	closed := "rules:\n  - {name: closed, effect: deny, workloads: {trust_domain: prod.example}, targets: [gateway]}\n"
	c := e.caller().trusting(e.server)
	key := e.read("tls.key")
	e.write("tls.key", "no key", 0o600)
	e.write("policy/closed.yaml", closed, 0o644)
	e.proc.saidSoon(reloaded, 1)
	wantStatus(t, "what a new rule denies beside a bad certificate", c.exchange(e.subject("checkout"), "gateway"), http.StatusBadRequest)
	if reason := e.readyz().reason("configuration"); !strings.Contains(reason, "certificate is refused") {
		t.Errorf("/readyz with a bad certificate: %q", reason)
	}
	e.write("tls.key", key, 0o600)

	// Who has lost a role does not have it again when the file goes.
	e.edit("operators.yaml", "contains: responders", "contains: others")
	e.proc.signal(syscall.SIGHUP)
	eventually(t, "alice has no role", func() error {
		if out, code := sallyport(t, append([]string{"locks"}, e.responder("alice")...)...); code == exitDone {
			return fmt.Errorf("got %s", out)
		}
		return nil
	})
	e.edit("sallyport.yaml", `operators: "`+e.admin+`", `, "")
	if err := os.Remove(filepath.Join(e.dir, "operators.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(e.dir, "policy/closed.yaml")); err != nil {
		t.Fatal(err)
	}
	e.proc.signal(syscall.SIGHUP)
	eventually(t, "the rule is gone", func() error {
		if a := c.exchange(e.subject("checkout"), "gateway"); a.status != http.StatusOK {
			return fmt.Errorf("got %s", a)
		}
		return nil
	})
	if reason := e.readyz().reason("configuration"); !strings.Contains(reason, "operators.yaml (left out)") || !strings.Contains(reason, "listen.operators (left out)") {
		t.Errorf("/readyz with operators that are gone at the next start: %q", reason)
	}
	e.says(exitDone, "SELECTOR", e.person("erin", "sallyport-operators", "others"), "locks") // their listener is there until then
	e.says(exitFailed, "nobody with a role", e.responder("alice"), "locks")
}

// generations are two whole sets that differ in every file, so that any mixture shows: a mixture of them
// loads, and what it grants has the lifetime of the one and the audience of the other.
var generations = []struct {
	lifetime int
	audience string
}{{60, "https://blue.example"}, {120, "https://green.example"}}

func TestReloadIsAtomicUnderLoad(t *testing.T) {
	t.Parallel()
	const reloads = 150
	d := newDeployment(t)
	dirs := d.makeGenerations(t)
	p := d.start()
	subject := d.subject("checkout")
	stop := make(chan struct{})
	var running sync.WaitGroup
	for range 4 {
		c := d.caller()
		running.Go(func() {
			loop(stop, func() {
				if a := c.exchange(subject, "gateway"); a.err != nil || a.status != http.StatusOK {
					t.Errorf("exchanging while sets are swapped: got %s, want 200", a)
				}
			})
		})
	}
	for i := range reloads { // whoever deploys does not know when the server reads
		p.signal(syscall.SIGHUP)
		time.Sleep(rand.N(4 * time.Millisecond))
		swapLink(t, d.dir, dirs[(i+1)%2])
		time.Sleep(10 * time.Millisecond)
	}
	c := d.caller()
	for i, g := range generations { // both are in force at some time, however slow the machine is
		swapLink(t, d.dir, dirs[i])
		p.signal(syscall.SIGHUP)
		eventually(t, "the set of "+g.audience+" is in force", func() error {
			if a := c.exchange(subject, "gateway"); a.err != nil || claim(a.body.AccessToken, "aud") != g.audience {
				return fmt.Errorf("got %s for %q", a, claim(a.body.AccessToken, "aud"))
			}
			return nil
		})
	}
	close(stop)
	running.Wait()
	p.stop()

	seen := map[string]int{}
	for _, r := range d.records(audit.TypeExchange) {
		if r.Outcome == audit.Issued {
			seen[fmt.Sprintf("%s for %d s", r.Lease.Audience, r.Granted.LifetimeSeconds)]++
		}
	}
	for _, g := range generations {
		whole := fmt.Sprintf("%s for %d s", g.audience, g.lifetime)
		if seen[whole] == 0 {
			t.Errorf("no exchange saw the set of %s, so nothing was swapped", g.audience)
		}
		delete(seen, whole)
	}
	for what, n := range seen {
		t.Errorf("%d exchanges were granted %s, which no set says", n, what)
	}
}

// makeGenerations turns the configuration directory into a link, as git-sync and Kubernetes do, and returns what it
// can link to.
func (d *deployment) makeGenerations(t *testing.T) []string {
	t.Helper()
	parent := t.TempDir()
	var dirs []string
	link := filepath.Join(parent, "current")
	d.data = filepath.Join(parent, "data")
	d.audit = filepath.Join(d.data, "audit")
	d.edit("sallyport.yaml", "data_dir: data", "data_dir: "+d.data)
	d.edit("sallyport.yaml", "dir: data/audit", "dir: "+d.audit)
	d.edit("sallyport.yaml", "file: secrets/kek", "file: "+filepath.Join(d.dir, "secrets/kek"))
	template := d.dir
	for _, g := range generations {
		dir := filepath.Join(parent, filepath.Base(g.audience))
		if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
			t.Fatalf("copying the configuration: %v", err)
		}
		dirs = append(dirs, dir)
		d.dir = dir
		d.edit("targets/gateway.yaml", "scopes: {call: {}}", "scopes: {call: {}}\njwt: {audience: "+g.audience+"}")
		d.edit("policy/shop.yaml", "scopes: [call]", fmt.Sprintf("scopes: [call]\n    lifetime: %ds", g.lifetime))
	}
	d.dir = link
	swapLink(t, d.dir, dirs[0])
	return dirs
}

// swapLink makes link point to dir, in one step.
func swapLink(t *testing.T, link, dir string) {
	t.Helper()
	err := os.Symlink(dir, link+".new")
	if err == nil {
		err = os.Rename(link+".new", link)
	}
	if err != nil {
		t.Fatalf("linking to %s: %v", dir, err)
	}
}
