package verify_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/sts/statuslist"
	"github.com/sallyport-sts/sallyport/sts/verify"
	"github.com/sallyport-sts/sallyport/test/stage"
)

// A list is read once for as long as it may be kept, and says what was revoked; the real binary serves it.
func TestVerifierReadsStatusListsOfARealProcess(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	var ahead atomic.Int64
	v := newVerifier(t, verify.Config{Issuer: p.issuer, Audience: "listed", Algorithms: []string{"ES256"}, StatusList: true,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	one, other := p.mint(t, "checkout", "listed"), p.mint(t, "checkout", "listed")
	for _, token := range []string{one, other} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatalf("a token that was just minted: %v", err)
		}
	}
	if err := p.Want("/revoke", stage.Form("token", one), "", 200); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), one); err != nil {
		t.Errorf("a list that may be kept is read again: %v", err)
	}
	ahead.Add(int64(statuslist.TTL))
	wantRefused(t, v, "a revoked token", one, verify.ErrInactive)
	if _, err := v.Verify(t.Context(), other); err != nil {
		t.Errorf("another token of the list: %v", err)
	}
	p.Kill()
	ahead.Add(int64(statuslist.Life))
	if _, err := v.Verify(t.Context(), other); !errors.Is(err, verify.ErrUnavailable) {
		t.Errorf("without the deployment: %v", err)
	}
	plain := newVerifier(t, verify.Config{Issuer: p.issuer, Audience: "listed", Algorithms: []string{"ES256"}, StatusList: true})
	if _, err := plain.Verify(t.Context(), other); err == nil {
		t.Error("a verifier that never read anything lets a token in")
	}
}

// Attack: the list is another's, of another time, signed by nobody who may, too large, or is not there; and the token names a list
// of somebody else. // standards 3.19, 3.21
func TestStatusListThatIsNotTheIssuersIsNotBelieved(t *testing.T) {
	t.Parallel()
	d := deploy(t)
	now := d.clock.now()
	good, err := statuslist.Encode(make([]uint8, 64), 1)
	if err != nil {
		t.Fatal(err)
	}
	uri := d.issuer + statuslist.Path + "x-1"
	token := func(uri string, idx any) string {
		c := claimsOf(t, d.mint(t, "checkout", "orders"))
		c["status"] = map[string]any{"status_list": map[string]any{"idx": idx, "uri": uri}}
		return d.sign(t, "at+jwt", c)
	}
	list := func(typ string, change func(map[string]any)) string {
		c := map[string]any{"sub": uri, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "ttl": 10, "status_list": good}
		change(c)
		return d.sign(t, typ, c)
	}
	same := func(map[string]any) {}
	var says atomic.Value
	d.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, statuslist.Path) {
			return false
		}
		_, _ = w.Write([]byte(says.Load().(string)))
		return true
	})
	c := d.config()
	c.StatusList = true
	verdict := func(answer, token string) error {
		says.Store(answer)
		_, err := newVerifier(t, c).Verify(t.Context(), token)
		return err
	}
	if err := verdict(list(statuslist.Type, same), token(uri, 7)); err != nil {
		t.Fatalf("a good list: %v", err)
	}
	forged := list(statuslist.Type, same)
	for name, answer := range map[string]string{
		"another list":       list(statuslist.Type, func(c map[string]any) { c["sub"] = uri + "0" }),
		"one that is over":   list(statuslist.Type, func(c map[string]any) { c["exp"] = now.Add(-time.Hour).Unix() }),
		"one of tomorrow":    list(statuslist.Type, func(c map[string]any) { c["iat"] = now.Add(24 * time.Hour).Unix() }),
		"one without a ttl":  list(statuslist.Type, func(c map[string]any) { delete(c, "ttl") }),
		"an access token":    list("at+jwt", same),
		"a broken signature": forged[:len(forged)-8] + "AAAAAAAA",
		"no list":            "x", "three bits": list(statuslist.Type, func(c map[string]any) { c["status_list"] = statuslist.List{Bits: 3, Lst: good.Lst} }),
		"a long answer": strings.Repeat("x", 1<<20),
	} {
		if err := verdict(answer, token(uri, 7)); !errors.Is(err, verify.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, token := range map[string]string{
		"an index that is not there": token(uri, 64), "a negative one": token(uri, -1), "a list elsewhere": token("https://evil.example/status/x-1", 7),
		"a list beside the lists": token(d.issuer+statuslist.Path+"../jwks", 7), "no place": d.mint(t, "checkout", "orders"),
	} {
		if err := verdict(list(statuslist.Type, same), token); !errors.Is(err, verify.ErrClaims) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
