package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/verify"
)

// The endpoint that is asked is the one that the deployment publishes.
func TestIntrospectionIsAskedWhereMetadataSays(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	res, err := d.server.Client().Get(d.issuer + "/.well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var metadata struct {
		Endpoint string `json:"introspection_endpoint"`
	}
	if err := json.NewDecoder(res.Body).Decode(&metadata); err != nil {
		t.Fatal(err)
	}
	if _, err := newVerifier(t, d.asking(t, 0)).Verify(t.Context(), d.mint(t, "checkout", "orders")); err != nil {
		t.Fatal(err)
	}
	if path := strings.TrimPrefix(metadata.Endpoint, d.issuer); d.count(path) != 1 {
		t.Errorf("%s was asked %d times", metadata.Endpoint, d.count(path))
	}
}

// A revocation is noticed as late as MaxAge says and no later, whichever requests come in between.
func TestRevokedTokenIsRefusedWithinTheAgeOfAnswers(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []time.Duration{0, time.Second, verify.DefaultMaxAge} {
		d := deploy(t)
		v := newVerifier(t, d.asking(t, maxAge))
		raw := d.mint(t, "checkout", "orders")
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Fatalf("a token that is alive: %v", err)
		}
		d.revoke(t, raw)
		if maxAge > 0 {
			asked := d.clock.now()
			for _, age := range []time.Duration{maxAge / 3, maxAge / 2, maxAge - 1} { // none makes the answer younger
				d.clock.nanos.Store(asked.Add(age).UnixNano())
				if _, err := v.Verify(t.Context(), raw); err != nil {
					t.Errorf("MaxAge %s, after %s: %v", maxAge, age, err)
				}
			}
			if n := d.count("/introspect"); n != 1 {
				t.Errorf("MaxAge %s: the deployment was asked %d times, want 1", maxAge, n)
			}
			d.clock.advance(1)
		}
		wantRefused(t, v, "a revoked token", raw, verify.ErrInactive)
		wantRefused(t, v, "a revoked token again", raw, verify.ErrInactive)
	}
}

// An answer is as old as its question, however long it took.
func TestSlowAnswerIsNoYoungerThanItsQuestion(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.asking(t, verify.DefaultMaxAge))
	raw := d.mint(t, "checkout", "orders")
	var once sync.Once
	d.hold(func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/introspect") {
			once.Do(func() { d.clock.advance(verify.DefaultMaxAge - time.Second) })
		}
	})
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
	d.revoke(t, raw)
	d.clock.advance(time.Second)
	wantRefused(t, v, "a revoked token, when the answer came a second ago", raw, verify.ErrInactive)
}

// Without introspection a revocation is noticed when the token expires, as the documentation says.
func TestOfflineVerifierNoticesNoRevocation(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.config())
	raw := d.mint(t, "checkout", "orders")
	d.revoke(t, raw)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("offline: %v", err)
	}
}

// What its target does not show to this resource server is not active for it, and neither is what has expired within
// the verifier's skew: the deployment has the last word.
func TestTokenThatTheDeploymentDoesNotShowIsRefused(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	c := d.asking(t, 0)
	c.Audience = "billing"
	wantRefused(t, newVerifier(t, c), "a target that lists another resource server", d.mint(t, "checkout", "billing"), verify.ErrInactive)

	c = d.config()
	raw := d.mint(t, "checkout", "orders")
	got, err := newVerifier(t, c).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	d.clock.nanos.Store(got.Expires().UnixNano())
	if _, err := newVerifier(t, c).Verify(t.Context(), raw); err != nil {
		t.Errorf("offline, within the skew: %v", err)
	}
	wantRefused(t, newVerifier(t, d.asking(t, 0)), "asked within the skew", raw, verify.ErrInactive)
}

// No answer, no access; and what went wrong is remembered for nobody.
func TestNoAnswerMeansNoAccess(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	c := d.asking(t, time.Minute)
	v := newVerifier(t, c)
	raw := d.mint(t, "checkout", "orders")
	other := claimsOf(t, d.mint(t, "checkout", "orders"))
	mine := claimsOf(t, raw)
	asked := func(answer http.HandlerFunc) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/introspect") {
				return false
			}
			answer(w, r)
			return true
		}
	}
	said := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return asked(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	active := func(iss, jti any) string {
		return fmt.Sprintf(`{"active":true,"iss":%q,"jti":%q}`, iss, jti)
	}
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"503":                     said(503, `{"error":"temporarily_unavailable"}`),
		"401":                     said(401, `{"error":"invalid_token"}`),
		"201 with a good answer":  said(201, active(mine["iss"], mine["jti"])),
		"nothing":                 said(200, ""),
		"HTML":                    said(200, "<html>"),
		"no active":               said(200, `{"iss":"x"}`),
		"active in another case":  said(200, strings.Replace(active(mine["iss"], mine["jti"]), "active", "Active", 1)),
		"active twice":            said(200, `{"active":true,`+active(mine["iss"], mine["jti"])[1:]),
		"active as a string":      said(200, `{"active":"true"}`),
		"about another token":     said(200, active(other["iss"], other["jti"])),
		"about another issuer's":  said(200, active("https://other.example", mine["jti"])),
		"active and nothing else": said(200, `{"active":true}`),
		"an endless answer":       said(200, `{"active":true,"x":"`+strings.Repeat("x", 600<<10)+`"}`),
		"no answer":               asked(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }),
	} {
		d.intercept(answer)
		wantRefused(t, v, name, raw, verify.ErrUnavailable)
	}
	d.intercept(nil)
	if _, err := v.Verify(t.Context(), raw); err != nil {
		t.Errorf("after all that, the same token: %v", err)
	}
	for name, bearer := range map[string]func(context.Context) (secret.Value, error){
		"no bearer":             nobody,
		"an empty bearer":       func(context.Context) (secret.Value, error) { return secret.New(" \n"), nil },
		"a bearer of two lines": func(context.Context) (secret.Value, error) { return secret.New("a\nb"), nil },
		"a platform's token": func(context.Context) (secret.Value, error) {
			s, err := d.identity("gateway")
			return secret.New(s), err
		},
	} {
		c.Introspect.Bearer = bearer
		wantRefused(t, newVerifier(t, c), name, raw, verify.ErrUnavailable)
	}
}

// The token and the bearer go to the issuer's endpoint alone.
func TestIntrospectionFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.asking(t, 0))
	raw := d.mint(t, "checkout", "orders")
	asked := make(chan string, 8)
	away := listener(t, asked)
	d.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/introspect") {
			return false
		}
		http.Redirect(w, r, away+"/introspect", http.StatusTemporaryRedirect)
		return true
	})
	wantRefused(t, v, "a redirect", raw, verify.ErrUnavailable)
	select {
	case path := <-asked:
		t.Errorf("the bearer went to %s of another server", path)
	default:
	}
}

// Bearers are read from files, which end in a newline.
func TestWhiteSpaceAroundTheBearerIsNoPartOfIt(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	bearer := d.mint(t, "gateway", sts.IntrospectionTarget)
	c := d.config()
	c.Introspect = verify.Introspect(func(context.Context) (secret.Value, error) { return secret.New("\n " + bearer + "\n"), nil })
	if _, err := newVerifier(t, c).Verify(t.Context(), d.mint(t, "checkout", "orders")); err != nil {
		t.Error(err)
	}
	if c.Introspect.MaxAge != verify.DefaultMaxAge {
		t.Errorf("answers count for %s by default", c.Introspect.MaxAge)
	}
}

// What was never signed is nothing to ask about.
func TestOnlyVerifiedTokensAreAskedAbout(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.asking(t, 0))
	raw := d.mint(t, "checkout", "orders")
	dot := strings.LastIndexByte(raw, '.')
	wantRefused(t, v, "a forged signature", raw[:dot]+d.mint(t, "checkout", "orders")[dot:], verify.ErrSignature)
	wantRefused(t, v, "another audience", d.mint(t, "checkout", "billing"), verify.ErrAudience)
	if n := d.count("/introspect"); n != 0 {
		t.Errorf("the deployment was asked %d times", n)
	}
}

// However many bring a token at once, it is asked about once; another token has its own answer.
func TestOneTokenIsAskedAboutOnceAtATime(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.asking(t, time.Minute))
	good, dead := d.mint(t, "checkout", "orders"), d.mint(t, "checkout", "orders")
	d.revoke(t, dead)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := v.Verify(t.Context(), good); err != nil {
				t.Errorf("the token that is alive: %v", err)
			}
		})
		all.Go(func() {
			if _, err := v.Verify(t.Context(), dead); !errors.Is(err, verify.ErrInactive) {
				t.Errorf("the token that is dead: %v", err)
			}
		})
	}
	all.Wait()
	if n := d.count("/introspect"); n != 2 {
		t.Errorf("the deployment was asked %d times about two tokens", n)
	}
}

// Who comes after a question was sent does not get its answer when answers have no age: the token may have been
// revoked since.
func TestAnswerThatIsOnItsWayIsTooOldForWhoComesLater(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.asking(t, 0))
	raw := d.mint(t, "checkout", "orders")
	answered, send := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.hold(func(r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/introspect") {
			once.Do(func() {
				close(answered)
				<-send
			})
		}
	})
	var first, later sync.WaitGroup
	first.Go(func() {
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Errorf("who came before the revocation: %v", err)
		}
	})
	soon(t, answered, "the deployment was asked") // it says active, and that has not arrived
	d.revoke(t, raw)
	for range 10 {
		later.Go(func() {
			if _, err := v.Verify(t.Context(), raw); !errors.Is(err, verify.ErrInactive) {
				t.Errorf("who came after the revocation: %v, want ErrInactive", err)
			}
		})
	}
	time.Sleep(50 * time.Millisecond) // they wait by now; for one that does not yet, less is shown
	close(send)
	first.Wait()
	later.Wait()
}

// Whoever asked first may leave; those who wait get the answer all the same.
func TestCallerWhoLeavesTakesNoAnswerAway(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	v := newVerifier(t, d.asking(t, time.Minute))
	raw := d.mint(t, "checkout", "orders")
	arrived, answer := make(chan struct{}), make(chan struct{})
	d.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/introspect") {
			close(arrived)
			<-answer
		}
		return false
	})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := v.Verify(ctx, raw)
		left <- err
	}()
	soon(t, arrived, "the deployment was asked")
	leave()
	if err := <-left; !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("who left: %v", err)
	}
	stayed := make(chan error, 1)
	go func() {
		_, err := v.Verify(t.Context(), raw)
		stayed <- err
	}()
	close(answer)
	if err := <-stayed; err != nil {
		t.Errorf("who stayed: %v", err)
	}
	if n := d.count("/introspect"); n != 1 {
		t.Errorf("the deployment was asked %d times", n)
	}
}
