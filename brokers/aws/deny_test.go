package aws_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/aws"
	"github.com/sallyport-sts/sallyport/brokers/aws/awstest"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
)

// denying is a world whose target has a revoker.
func denying(t *testing.T) (*awstest.Server, brokers.BulkRevoker) {
	t.Helper()
	s, b := worldWith(t, func(s *aws.Settings, url string) { s.Revoker = &aws.Revoker{Role: awstest.Revoker, Endpoint: url} })
	return s, b.(brokers.BulkRevoker)
}

// made is a session with its handle.
type made struct {
	token  string
	handle brokers.Handle
}

func mint(t *testing.T, b brokers.Broker, subject string) made {
	t.Helper()
	o := order(t, 20*time.Minute, subject, "read")
	c, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ SessionToken string }
	if err := json.Unmarshal([]byte(c.Value.Reveal()), &got); err != nil {
		t.Fatal(err)
	}
	return made{got.SessionToken, brokertest.HandleOf(o, c.Data)}
}

// handles are of n sessions that were never made.
func handles(t *testing.T, n int, end time.Time) []brokers.Handle {
	t.Helper()
	out := make([]brokers.Handle, n)
	for i := range out {
		o := order(t, time.Until(end).Round(time.Second), "a", "read")
		out[i] = brokers.Handle{Lease: o.Lease().ID, Name: o.Name(), Expires: end}
	}
	return out
}

// One session is denied, and the role and everybody else's sessions live. The receipt promises no more than AWS does.
func TestContractOneSessionIsDeniedAndTheRoleLives(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	stolen, other := mint(t, b, "stolen"), mint(t, b, "other")
	if s.Denied(stolen.token) {
		t.Fatal("it is denied already")
	}
	r, err := b.Revoke(t.Context(), stolen.handle)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Denied(stolen.token) || s.Denied(other.token) {
		t.Errorf("denied: the stolen one %v, the other %v; %v", s.Denied(stolen.token), s.Denied(other.token), s.Policies())
	}
	if r.State != brokers.DiesAt || !r.At.Equal(stolen.handle.Expires) || !strings.Contains(r.Reason, "denied on the role orders") || !strings.Contains(r.Reason, "no time until") || !strings.Contains(r.Reason, "chained") {
		t.Errorf("the receipt is %+v", r)
	}
	if f := s.Asked(); f.Get("RoleArn") != awstest.Revoker || !strings.Contains(f.Get("Policy"), awstest.Role) {
		t.Errorf("the revoker's session is not bounded to the role: %v", f)
	}
}

// A batch is one policy, not one each; what is over is forgotten by whoever writes next, and policies of others are not touched.
func TestContractDenialsAreBatchedAndPruneThemselves(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	s.Put("of-somebody-else", `{"Version":"2012-10-17","Statement":[]}`)
	over := fmt.Sprintf("sallyport-revoked-%d-1-abcdefghijkl", time.Now().Add(-time.Hour).Unix())
	s.Put(over, `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/sallyport:session":["x"]}}}]}`)
	s.Put("sallyport-revoked-soon", `{}`) // begins like ours, and is not
	for _, r := range b.RevokeAll(t.Context(), handles(t, 40, time.Now().Add(20*time.Minute))) {
		if r.Err != nil || !strings.Contains(r.Receipt.Reason, "denied on the role") {
			t.Fatalf("%+v", r)
		}
	}
	p := s.Policies()
	if len(p) != 3 || p[over] != "" || p["of-somebody-else"] == "" || p["sallyport-revoked-soon"] == "" || s.Calls("PutRolePolicy") != 1 {
		t.Errorf("the policies are %v, in %d writes", p, s.Calls("PutRolePolicy"))
	}
}

// Many small policies become one, and nothing that lives is lost, whoever writes at the same time.
func TestContractWritersAtOnceLoseNoDenial(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	var all []made
	for range 24 {
		all = append(all, mint(t, b, "a"))
	}
	var wg sync.WaitGroup
	for _, m := range all {
		wg.Go(func() {
			if _, err := b.Revoke(t.Context(), m.handle); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range all {
		if !s.Denied(m.token) {
			t.Errorf("%s is not denied", m.handle.Name)
		}
	}
	last := mint(t, b, "a")
	if _, err := b.Revoke(t.Context(), last.handle); err != nil || !s.Denied(last.token) {
		t.Errorf("the last: %v", err)
	}
	if n := len(s.Policies()); n > 12 {
		t.Errorf("%d policies were not joined", n)
	}
}

// Where no more fits, nobody is denied unasked: the receipt holds the command that ends every session of the role. // issue: policy-size overflow
func TestContractFullRoleAsksBeforeItDeniesAll(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	other := mint(t, b, "other")
	asked := 0
	for _, r := range b.RevokeAll(t.Context(), handles(t, 400, time.Now().Add(20*time.Minute))) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if strings.Contains(r.Receipt.Reason, "aws iam put-role-policy --role-name orders") && strings.Contains(r.Receipt.Reason, "aws:TokenIssueTime") {
			asked++
		}
	}
	if asked == 0 || asked > 200 || s.Denied(other.token) {
		t.Errorf("%d of 400 were not denied; the other session is denied: %v", asked, s.Denied(other.token))
	}
}

// Attack: a workload gives back one session after the other, each of its own, until the role has no room, so that an operator who
// revokes finds none. Holders have half of it.
func TestContractHoldersLeaveRoomForOperators(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	held, waiting := 0, 0
	for _, h := range handles(t, 300, time.Now().Add(20*time.Minute)) {
		h.Returned = true
		r, err := b.Revoke(t.Context(), h)
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Again && strings.Contains(r.Reason, "the rest is for operators"):
			waiting++
		case !r.Again:
			held++
		}
	}
	if held != 128 || waiting != 300-128 {
		t.Errorf("%d sessions that holders gave back are denied, and %d wait", held, waiting)
	}
	for i := range 100 { // one by one, which takes the most room
		m := mint(t, b, "a")
		if r, err := b.Revoke(t.Context(), m.handle); err != nil || r.Again || !s.Denied(m.token) {
			t.Fatalf("an operator's revocation %d after that is not in force: %+v, %v", i, r, err)
		}
	}
	both := handles(t, 2, time.Now().Add(20*time.Minute))
	both[0].Returned = true
	if r := b.RevokeAll(t.Context(), both); !r[0].Receipt.Again || r[1].Receipt.Again {
		t.Errorf("of both at once: %+v", r)
	}
}

// A role takes as many denials as it is said to, however they come, and keeps each.
func TestContractRoleHasRoomForSomeTwoHundredDenials(t *testing.T) {
	t.Parallel()
	for _, at := range []int{1, 5, 64} {
		s, b := denying(t)
		n := 0
		for list := handles(t, 320, time.Now().Add(20*time.Minute)); len(list) >= at; list = list[at:] {
			full := false
			for _, r := range b.RevokeAll(t.Context(), list[:at]) {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				full = full || r.Receipt.Again
			}
			if full {
				break
			}
			n += at
		}
		names := map[string]bool{}
		for name, text := range s.Policies() {
			var p struct {
				Statement []struct {
					Condition map[string]map[string][]string
				}
			}
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, session := range p.Statement[0].Condition["StringEquals"]["aws:PrincipalTag/sallyport:session"] {
				names[session] = true
			}
		}
		if n < 220 || len(names) != n {
			t.Errorf("%d at a time: full after %d, of which %d are denied; want 220 at least, and all", at, n, len(names))
		}
	}
}

// What IAM refuses is an error that is tried again, by its code and without its words.
func TestContractDenialThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]struct {
		status int
		err    error
	}{
		"AccessDenied": {403, brokers.ErrMisconfigured}, "UnmodifiableEntity": {400, brokers.ErrMisconfigured}, "NoSuchEntity": {404, brokers.ErrMisconfigured}, "Throttling": {400, brokers.ErrUnavailable},
		"ServiceFailure": {500, brokers.ErrUnavailable}, "ConcurrentModification": {409, brokers.ErrUnavailable},
	} {
		s, b := denying(t)
		m := mint(t, b, "a")
		s.Before(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("X-Amz-Security-Token") == "" {
				return false // STS
			}
			w.WriteHeader(want.status)
			_, _ = io.WriteString(w, `<ErrorResponse><Error><Code>`+code+`</Code><Message>secret</Message></Error></ErrorResponse>`)
			return true
		})
		if _, err := b.Revoke(t.Context(), m.handle); !errors.Is(err, want.err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", code, err)
		}
		s.Before(nil)
		if _, err := b.Revoke(t.Context(), m.handle); err != nil || !s.Denied(m.token) {
			t.Errorf("after %s: %v", code, err)
		}
	}
}

// A session that has ended costs no call.
func TestContractEndedSessionIsNotDenied(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	if r, err := b.Revoke(t.Context(), brokers.Handle{Name: "x", Expires: time.Now().Add(-time.Second)}); err != nil || r.State != brokers.Dead || s.Asked() != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

// Attack on ourselves: IAM is eventually consistent, and what is listed may be minutes old: policies that are gone, and none of those that
// came since. No denial is lost, and none is written where it would be.
func TestContractListThatIsOldLosesNoDenial(t *testing.T) {
	t.Parallel()
	s, b := denying(t)
	var all []made
	deny := func(n int) {
		t.Helper()
		for range n {
			m := mint(t, b, "a")
			if _, err := b.Revoke(t.Context(), m.handle); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
	}
	deny(8)
	var members strings.Builder
	for name := range s.Policies() {
		members.WriteString("<member>" + name + "</member>")
	}
	deny(1) // joins them: what was listed is gone
	s.Before(func(w http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if err != nil || !strings.Contains(string(body), "Action=ListRolePolicies") {
			return false
		}
		_, _ = io.WriteString(w, `<ListRolePoliciesResponse><ListRolePoliciesResult><PolicyNames>`+members.String()+`</PolicyNames><IsTruncated>false</IsTruncated></ListRolePoliciesResult></ListRolePoliciesResponse>`)
		return true
	})
	deny(4)
	s.Before(nil)
	deny(4)
	for i, m := range all {
		if !s.Denied(m.token) {
			t.Errorf("denial %d is lost", i)
		}
	}
}
