package sts_test

import (
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/limit"
	"github.com/sallyport-sts/sallyport/sts/metrics"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// ops is the ops listener's handler behind the same contract.
func ops(t testing.TB, checks ...sts.Check) (*contract, func(method, path string, body ...string) answer) {
	t.Helper()
	return behindContract(t, httptest.NewServer(sts.OpsHandler(metrics.New(metrics.Sources{
		Audit: func() (none audit.Stats) { return }, Keys: func() (none []federation.KeyStatus) { return },
		Revocations: func() (none int, _ revocation.Position) { return }, Config: func() string { return "" },
		Limited: func() (none map[string]uint64) { return },
		Checks:  func() (none map[string]bool) { return },
	}).Handler(), checks...)))
}

// adminListener is the admin handler behind the same contract; caller is whom the listener knows, "" for nobody.
func (d *deployment) adminListener(caller string, routes ...sts.AdminRoute) (*contract, func(method, path string, body ...string) answer) {
	return d.adminListenerOf(operator.Local(caller, caller), routes...)
}

func (d *deployment) adminListenerOf(o operator.Operator, routes ...sts.AdminRoute) (*contract, func(method, path string, body ...string) answer) {
	t := d.t
	t.Helper()
	server := httptest.NewUnstartedServer(d.exchanger.AdminHandler(routes...))
	server.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return operator.With(ctx, o) }
	server.Start()
	return behindContract(t, server)
}

// remoteOperator is one who came over the network, and may do everything.
func remoteOperator(t testing.TB) operator.Operator {
	t.Helper()
	name := "spiffe://ops.example/all"
	u, _ := url.Parse(name)
	a := operator.Authority{Roles: []operator.Role{{Name: "all", May: operator.Actions(), Estate: true, Certificates: []string{name}}}}
	now := time.Now()
	o, err := a.Authenticate(t.Context(), []*x509.Certificate{{URIs: []*url.URL{u}, SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}}, secret.Value{}, now)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func behindContract(t testing.TB, server *httptest.Server) (*contract, func(method, path string, body ...string) answer) {
	t.Helper()
	t.Cleanup(server.Close)
	c := newContract(t, "", server.Client().Transport)
	d := &deployment{t: t, issuer: server.URL, client: &http.Client{Transport: c}}
	return c, func(method, path string, body ...string) answer { return d.send(method, path, strings.Join(body, "")) }
}

// Every answer that openapi.yaml documents is given, and each that is given conforms: the document has nothing too
// many, and (by the contract in every other test) nothing too few.
func TestEveryDocumentedAnswerIsGiven(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	down := deploy(t, func(w *world) { w.ownKeys = panicking{} })
	limited := deploy(t)
	limited.exchanger.Limit(sts.NewLimits(limit.Rate{PerSecond: 1, Burst: 1}, limit.Rate{}))
	limited.send("POST", "/token", "")
	tooMany := func(path string) func() answer { return func() answer { return limited.send("POST", path, "") } }
	token, caller := d.mint(d.checkout(), "orders").token, d.gateway()
	removed := *d.world
	removed.issuers = removed.issuers[1:]
	without := d.build(&removed, "config-2")
	strange := down.mint(down.checkout(), "orders").token
	huge := strings.Repeat("x", 70_000)
	bearer := []string{"Authorization", "Bearer " + caller}
	form := func(path, body string, headers ...string) func() answer {
		return func() answer {
			return d.send("POST", path, body, append([]string{"Content-Type", formType}, headers...)...)
		}
	}
	auditDown := func(send func() answer) func() answer {
		return func() answer {
			d.recorder.failing(audit.ErrUnavailable)
			defer d.recorder.failing(nil)
			return send()
		}
	}
	state := errors.New("no space left")
	var failing error
	seenByOps, askOps := ops(t, sts.Check{Name: "audit", Err: func() error { return failing }}, sts.Check{Name: "configuration", Err: func() error { return nil }, Warn: true})
	status := sts.StatusRoute(func() sts.AdminStatus {
		return sts.AdminStatus{Issuer: d.issuer, Checks: []sts.CheckResult{}, Issuers: []sts.AdminIssuer{{Source: "inline"}}}
	})
	var ledger error
	leases := sts.LeasesRoute(func(_ context.Context, do func(lease.Lease) error) error {
		for i := range 3 {
			_ = do(lease.Lease{ID: newID(), Family: newID(), State: lease.Dying, Target: "fruit", Tries: i})
		}
		return ledger
	}, d.revocations.Hasher())
	var logDown error
	revocations := append(d.exchanger.RevocationRoutes(func(time.Time, func(audit.Record) error) error { return logDown }), d.exchanger.ReachRoute())
	seenByAdmin, askAdmin := d.adminListener("uid=0", append(revocations, status, leases)...)
	seenByNobody, askNobody := d.adminListener("", append(revocations, status, leases)...)
	alone := deploy(t)
	away := new(others)
	away.gone.Store(true)
	alone.revocations.Share(away)
	seenAlone, askAlone := alone.adminListener("uid=0", alone.exchanger.RevocationRoutes(alone.recorder.scan)...)
	seenByRemote, askRemote := d.adminListenerOf(remoteOperator(t), revocations...)
	two := deploy(t)
	careful := *two.state
	careful.Operators = &operator.Authority{Second: operator.Second{Unlock: true, Estate: true}, Same: []operator.Person{
		{Name: "alice", Credentials: []operator.Credential{{Kind: operator.User, ID: "alice"}}},
		{Name: "bob", Credentials: []operator.Credential{{Kind: operator.User, ID: "bob"}}},
	}}
	two.exchanger.Swap(&careful)
	if err := two.exchanger.ProposeWith(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	seenByAlice, askAlice := two.adminListener("alice", two.exchanger.RevocationRoutes(two.recorder.scan)...)
	seenByBob, askBob := two.adminListener("bob", two.exchanger.RevocationRoutes(two.recorder.scan)...)
	proposed := func(a answer) string {
		p, _ := object(t, a.body)["proposal"].(string)
		return `{"proposal":"` + p + `"}`
	}
	wide := func() string {
		return proposed(askAlice("POST", "/admin/v1/revocations", `{"selector":["target=orders"]}`))
	}
	twoLocked := func() string {
		id, _ := object(t, askAlice("POST", "/admin/v1/revocations", `{"selector":["subject=spiffe://prod.example/a/b"],"lock":true}`).body)["id"].(string)
		return id
	}
	kill := `{"selector":["lease=` + newID() + `"],"reason":"a drill"}`
	locked := func() string {
		a := askAdmin("POST", "/admin/v1/revocations", `{"selector":["attr.namespace=nowhere"],"lock":true}`)
		id, _ := object(t, a.body)["id"].(string)
		return id
	}
	get := func(path string, headers ...string) func() answer {
		return func() answer { return d.send("GET", path, "", headers...) }
	}
	provoke := map[documented]func() answer{
		{"POST", "/token", 200}: func() answer { a := d.exchange(te(d.checkout())); d.issued(a); return a },
		{"POST", "/token", 400}: form("/token", ""),
		{"POST", "/token", 401}: form("/token", te(d.checkout()).Encode(), "Authorization", "Basic YTpi"),
		{"POST", "/token", 405}: get("/token"),
		{"POST", "/token", 413}: form("/token", huge),
		{"POST", "/token", 429}: tooMany("/token"),
		{"POST", "/token", 500}: func() answer { return down.exchange(te(strange)) },
		{"POST", "/token", 503}: auditDown(form("/token", te(d.checkout()).Encode())),

		{"POST", "/introspect", 200}: form("/introspect", "token="+token, bearer...),
		{"POST", "/introspect", 400}: form("/introspect", "", bearer...),
		{"POST", "/introspect", 401}: form("/introspect", "token="+token),
		{"POST", "/introspect", 405}: get("/introspect"),
		{"POST", "/introspect", 413}: form("/introspect", huge, bearer...),
		{"POST", "/introspect", 429}: tooMany("/introspect"),
		{"POST", "/introspect", 500}: func() answer { return down.ask(strange, strange) },
		{"POST", "/introspect", 503}: auditDown(func() answer {
			d.exchanger.Swap(without) // a bearer of ours whose workload is not trusted any more belongs in the chain
			defer d.exchanger.Swap(d.state)
			return d.ask(caller, token)
		}),

		{"GET", "/status/{list}", 200}: func() answer {
			uri, _ := place(t, d.listed(d.checkout()))
			return d.send("GET", strings.TrimPrefix(uri, d.issuer), "")
		},
		{"GET", "/status/{list}", 404}: get("/status/x"),
		{"GET", "/status/{list}", 405}: form("/status/x", ""),
		{"GET", "/status/{list}", 429}: func() answer { return limited.send("GET", "/status/x", "") },
		{"GET", "/status/{list}", 501}: get("/status/x?time=1"),
		{"GET", "/status/{list}", 503}: func() answer {
			far := deploy(t)
			uri, _ := place(t, far.listed(far.checkout()))
			far.revocations.Share(away)
			a := far.send("GET", strings.TrimPrefix(uri, far.issuer), "")
			d.contract.seen[documented{"GET", "/status/{list}", 503}] += far.contract.seen[documented{"GET", "/status/{list}", 503}]
			return a
		},
		{"GET", "/revocations", 200}: func() answer { d.exchanger.CloseFeeds(); return d.feed(caller) },
		{"GET", "/revocations", 401}: get("/revocations"),
		{"GET", "/revocations", 405}: form("/revocations", ""),
		{"GET", "/revocations", 429}: func() answer { return limited.send("GET", "/revocations", "") },
		{"GET", "/revocations", 500}: func() answer { return down.feed(strange) },
		{"GET", "/revocations", 503}: auditDown(func() answer {
			d.exchanger.Swap(without)
			defer d.exchanger.Swap(d.state)
			return d.feed(caller)
		}),

		{"POST", "/revoke", 200}: form("/revoke", "token=unknown"),
		{"POST", "/revoke", 400}: form("/revoke", ""),
		{"POST", "/revoke", 405}: get("/revoke"),
		{"POST", "/revoke", 413}: form("/revoke", huge),
		{"POST", "/revoke", 429}: tooMany("/revoke"),
		{"POST", "/revoke", 500}: func() answer { return down.revoke(strange) },
		{"POST", "/revoke", 503}: func() answer {
			d.log.(*memory).setFail(errors.New("disk"))
			defer d.log.(*memory).setFail(nil)
			return d.revoke(token)
		},

		{"GET", "/admin/v1/status", 200}: func() answer { return askAdmin("GET", "/admin/v1/status") },
		{"GET", "/admin/v1/status", 403}: func() answer { return askNobody("GET", "/admin/v1/status") },
		{"GET", "/admin/v1/status", 405}: func() answer { return askAdmin("POST", "/admin/v1/status") },

		{"GET", "/admin/v1/leases", 200}: func() answer { return askAdmin("GET", "/admin/v1/leases?target=fruit&limit=2") },
		{"GET", "/admin/v1/leases", 400}: func() answer { return askAdmin("GET", "/admin/v1/leases?colour=red") },
		{"GET", "/admin/v1/leases", 403}: func() answer { return askNobody("GET", "/admin/v1/leases") },
		{"GET", "/admin/v1/leases", 405}: func() answer { return askAdmin("POST", "/admin/v1/leases") },
		{"GET", "/admin/v1/leases", 503}: func() answer {
			ledger = lease.ErrUnavailable
			defer func() { ledger = nil }()
			return askAdmin("GET", "/admin/v1/leases")
		},
		{"POST", "/admin/v1/revocations", 200}: func() answer { return askAdmin("POST", "/admin/v1/revocations", kill) },
		{"POST", "/admin/v1/revocations", 202}: func() answer { return askAlone("POST", "/admin/v1/revocations", kill) },
		{"POST", "/admin/v1/approvals", 200}:   func() answer { return askBob("POST", "/admin/v1/approvals", wide()) },
		{"POST", "/admin/v1/approvals", 202}: func() answer {
			far := deploy(t)
			far.exchanger.Swap(&sts.State{Trust: far.state.Trust, Policy: far.state.Policy, Brokers: far.state.Brokers, Hash: "x", Operators: careful.Operators})
			_ = far.exchanger.ProposeWith(make([]byte, 32))
			far.revocations.Share(away)
			_, askFar := far.adminListener("bob", far.exchanger.RevocationRoutes(far.recorder.scan)...)
			a := askFar("POST", "/admin/v1/approvals", wide())
			two.contract.seen[documented{"POST", "/admin/v1/approvals", 202}]++ // held to it by its own contract
			return a
		},
		{"POST", "/admin/v1/approvals", 400}: func() answer { return askBob("POST", "/admin/v1/approvals", `{"proposal":"x"}`) },
		{"POST", "/admin/v1/approvals", 403}: func() answer { return askAlice("POST", "/admin/v1/approvals", wide()) },
		{"POST", "/admin/v1/approvals", 404}: func() answer {
			id := twoLocked()
			lift := proposed(askAlice("DELETE", "/admin/v1/locks/"+id))
			askBob("POST", "/admin/v1/approvals", lift)
			return askBob("POST", "/admin/v1/approvals", lift)
		},
		{"POST", "/admin/v1/approvals", 409}: func() answer {
			ask := wide()
			askBob("POST", "/admin/v1/approvals", ask)
			return askBob("POST", "/admin/v1/approvals", ask)
		},
		{"POST", "/admin/v1/approvals", 405}: func() answer { return askBob("GET", "/admin/v1/approvals") },
		{"POST", "/admin/v1/approvals", 503}: func() answer {
			ask := wide()
			two.log.(*memory).setFail(errors.New("disk"))
			defer two.log.(*memory).setFail(nil)
			return askBob("POST", "/admin/v1/approvals", ask)
		},
		{"DELETE", "/admin/v1/locks/{id}", 202}: func() answer { return askAlice("DELETE", "/admin/v1/locks/"+twoLocked()) },
		{"DELETE", "/admin/v1/locks/{id}", 400}: func() answer {
			return askRemote("DELETE", "/admin/v1/locks/"+locked())
		},
		{"POST", "/admin/v1/revocations", 400}: func() answer { return askAdmin("POST", "/admin/v1/revocations", `{"leese":""}`) },
		{"POST", "/admin/v1/revocations", 403}: func() answer { return askNobody("POST", "/admin/v1/revocations", kill) },
		{"POST", "/admin/v1/revocations", 405}: func() answer { return askAdmin("GET", "/admin/v1/revocations") },
		{"POST", "/admin/v1/revocations", 503}: func() answer {
			d.log.(*memory).setFail(errors.New("disk"))
			defer d.log.(*memory).setFail(nil)
			return askAdmin("POST", "/admin/v1/revocations", `{"selector":["lease=`+newID()+`"]}`)
		},

		{"GET", "/admin/v1/revocations/{id}", 200}: func() answer { return askAdmin("GET", "/admin/v1/revocations/"+newID()+"?position=1.1") },
		{"GET", "/admin/v1/revocations/{id}", 400}: func() answer { return askAdmin("GET", "/admin/v1/revocations/"+newID()) },
		{"GET", "/admin/v1/revocations/{id}", 403}: func() answer { return askNobody("GET", "/admin/v1/revocations/"+newID()+"?position=1.1") },
		{"GET", "/admin/v1/revocations/{id}", 503}: func() answer { return askAlone("GET", "/admin/v1/revocations/"+newID()+"?position=1.1") },
		{"GET", "/admin/v1/revocations/{id}", 405}: func() answer { return askAdmin("POST", "/admin/v1/revocations/"+newID()) },
		{"POST", "/admin/v1/reach", 200}:           func() answer { return askAdmin("POST", "/admin/v1/reach", `{"selector":["attr.team=checkout"]}`) },
		{"POST", "/admin/v1/reach", 400}:           func() answer { return askAdmin("POST", "/admin/v1/reach", `{}`) },
		{"POST", "/admin/v1/reach", 403}:           func() answer { return askNobody("POST", "/admin/v1/reach", `{}`) },
		{"POST", "/admin/v1/reach", 405}:           func() answer { return askAdmin("GET", "/admin/v1/reach") },
		{"GET", "/admin/v1/locks", 200}: func() answer {
			if a := askAdmin("POST", "/admin/v1/revocations", `{"selector":["attr.namespace=nowhere"],"lock":true,"ttl_seconds":60}`); a.status != 200 {
				return a
			}
			return askAdmin("GET", "/admin/v1/locks")
		},
		{"GET", "/admin/v1/locks", 403}:         func() answer { return askNobody("GET", "/admin/v1/locks") },
		{"GET", "/admin/v1/locks", 405}:         func() answer { return askAdmin("POST", "/admin/v1/locks") },
		{"DELETE", "/admin/v1/locks/{id}", 200}: func() answer { return askAdmin("DELETE", "/admin/v1/locks/"+locked()) },
		{"DELETE", "/admin/v1/locks/{id}", 403}: func() answer { return askNobody("DELETE", "/admin/v1/locks/"+newID()) },
		{"DELETE", "/admin/v1/locks/{id}", 404}: func() answer { return askAdmin("DELETE", "/admin/v1/locks/"+newID()) },
		{"DELETE", "/admin/v1/locks/{id}", 405}: func() answer { return askAdmin("GET", "/admin/v1/locks/"+newID()) },
		{"DELETE", "/admin/v1/locks/{id}", 503}: func() answer {
			id := locked()
			d.log.(*memory).setFail(errors.New("disk"))
			defer d.log.(*memory).setFail(nil)
			return askAdmin("DELETE", "/admin/v1/locks/"+id)
		},

		{"GET", "/livez", 200}:   func() answer { return askOps("GET", "/livez") },
		{"GET", "/livez", 405}:   func() answer { return askOps("POST", "/livez") },
		{"GET", "/metrics", 200}: func() answer { return askOps("GET", "/metrics") },
		{"GET", "/metrics", 405}: func() answer { return askOps("POST", "/metrics") },
		{"GET", "/readyz", 200}:  func() answer { return askOps("GET", "/readyz") },
		{"GET", "/readyz", 405}:  func() answer { return askOps("HEAD", "/readyz") },
		{"GET", "/readyz", 503}:  func() answer { failing = state; defer func() { failing = nil }(); return askOps("GET", "/readyz") },
	}
	for _, path := range []string{"/jwks", openID, oauthServer, "/assertions/jwks", "/assertions" + openID, "/assertions" + oauthServer, oauthServer + "/assertions"} {
		provoke[documented{"GET", path, 200}] = get(path)
		provoke[documented{"GET", path, 304}] = get(path, "If-None-Match", "*")
		provoke[documented{"GET", path, 405}] = func() answer { return d.send("POST", path, "") }
	}
	doc, err := openAPI()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range answersOf(doc) {
		send, ok := provoke[want]
		if !ok {
			t.Errorf("%s is documented, and this test does not know how to get it", want)
			continue
		}
		if a := send(); a.status != want.status {
			t.Errorf("%s: answered %d %s", want, a.status, a.body)
		}
		if d.contract.seen[want]+down.contract.seen[want]+limited.contract.seen[want]+seenByOps.seen[want]+seenByAdmin.seen[want]+seenByNobody.seen[want]+seenAlone.seen[want]+seenByAlice.seen[want]+seenByBob.seen[want]+two.contract.seen[want]+seenByRemote.seen[want] == 0 {
			t.Errorf("%s was not held to the document", want)
		}
		delete(provoke, want)
	}
	for left := range provoke {
		t.Errorf("%s is not documented", left)
	}
	for _, path := range []string{"/", "/tokens", "/.well-known/", "/metrics", "/livez", "/admin/v1/", "/assertions/token"} { // ops and admin are elsewhere
		if d.contract.doc.Paths.Value(path) == nil {
			if a := d.send("GET", path, ""); a.status != 404 {
				t.Errorf("%s on the workload listener answers %d", path, a.status)
			}
		}
	}
}

// What /readyz says is what the checks say; a warning does not stop the service.
func TestReadinessSaysWhy(t *testing.T) {
	t.Parallel()
	err := errors.New("audit log: no space left on device")
	for _, tc := range []struct {
		audit, reload error
		status        int
		body          string
	}{
		{nil, nil, 200, `{"ready":true,"checks":[{"name":"audit","ok":true},{"name":"configuration","ok":true}]}`},
		{nil, err, 200, `{"ready":true,"checks":[{"name":"audit","ok":true},{"name":"configuration","ok":false,"reason":"audit log: no space left on device"}]}`},
		{err, nil, 503, `{"ready":false,"checks":[{"name":"audit","ok":false,"reason":"audit log: no space left on device"},{"name":"configuration","ok":true}]}`},
	} {
		_, ask := ops(t, sts.Check{Name: "audit", Err: func() error { return tc.audit }}, sts.Check{Name: "configuration", Err: func() error { return tc.reload }, Warn: true})
		if a := ask("GET", "/readyz"); a.status != tc.status || a.body != tc.body {
			t.Errorf("/readyz answers %d %s, want %d %s", a.status, a.body, tc.status, tc.body)
		}
		if a := ask("GET", "/livez"); a.status != 200 || a.body != `{"live":true}` {
			t.Errorf("/livez answers %d %s: it lives, ready or not", a.status, a.body)
		}
	}
	_, ask := ops(t)
	for _, method := range []string{"POST", "HEAD", "BREW"} {
		if a := ask(method, "/livez"); a.status != 405 || a.header.Get("Allow") != "GET" {
			t.Errorf("%s /livez answers %d, Allow %q", method, a.status, a.header.Get("Allow"))
		}
	}
}

// The request that openapi.yaml shows is one that works, and one that its own schema accepts.
func TestDocumentedExampleWorks(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	op := d.contract.doc.Paths.Value("/token").Post
	media := op.RequestBody.Value.Content.Get(formType)
	example := media.Examples["kubernetes"].Value.Value.(map[string]any)
	params := url.Values{}
	for name, v := range example {
		switch v := v.(type) {
		case string:
			params.Set(name, v)
		case []any:
			for _, s := range v {
				params.Add(name, s.(string))
			}
		}
	}
	params.Set("subject_token", d.checkout())
	m := d.issued(d.exchange(params))
	if m.response["scope"] != "read" {
		t.Errorf("scope %v", m.response["scope"])
	}
	req, _ := http.NewRequest(http.MethodPost, d.issuer+"/token", strings.NewReader(params.Encode()))
	req.Header.Set("Content-Type", formType)
	err := openapi3filter.ValidateRequest(t.Context(), &openapi3filter.RequestValidationInput{
		Request: req, Route: &routers.Route{Spec: d.contract.doc, PathItem: new(openapi3.PathItem), Operation: &openapi3.Operation{RequestBody: op.RequestBody, Security: openapi3.NewSecurityRequirements()}},
	})
	if err != nil {
		t.Errorf("the schema refuses the example: %s", redact(err.Error()))
	}
}
