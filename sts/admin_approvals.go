package sts

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// proposal is what one operator asked for and another has to approve. It travels as a JWS under the key that all replicas
// share, from the one person to the other: no replica keeps it.
type proposal struct {
	Ask     *AdminRevocation `json:"ask,omitempty"`
	Unlock  string           `json:"unlock,omitempty"` // the id of a lock
	Reason  string           `json:"reason,omitempty"`
	By      string           `json:"by"`
	Person  string           `json:"person"`
	Expires time.Time        `json:"expires"`
}

const (
	proposalLife = 15 * time.Minute
	proposalType = "sallyport-proposal+jwt"
)

// AdminApproval is the body of POST /admin/v1/approvals.
type AdminApproval struct {
	Proposal string `json:"proposal"`
	Show     bool   `json:"show,omitempty"` // nothing is done: the answer says what would be
}

// AdminProposed is the answer to one that is only shown.
type AdminProposed struct {
	By       string    `json:"by"`
	Action   string    `json:"action"` // revoke, lock or unlock
	Selector []string  `json:"selector,omitempty"`
	Unlock   string    `json:"unlock,omitempty"` // the id of the lock
	Reason   string    `json:"reason,omitempty"`
	Ticket   string    `json:"ticket,omitempty"`
	TTL      int64     `json:"ttl_seconds,omitempty"`
	Before   time.Time `json:"before,omitzero"`
	Expires  time.Time `json:"expires"`
}

// ProposeWith derives the key under which proposals travel from the one that all replicas share. Without it what takes two
// people is refused.
func (x *Exchanger) ProposeWith(shared []byte) (err error) {
	x.proposals, err = hkdf.Key(sha256.New, shared, nil, "sallyport proposal", sha256.Size)
	return err
}

// propose answers with what another person has to approve.
func (x *Exchanger) propose(w http.ResponseWriter, r *http.Request, p proposal) {
	by := caller(r)
	p.By, p.Person, p.Expires = by.Name, by.Person, x.now().UTC().Add(proposalLife).Truncate(time.Second)
	out := AdminRevoked{Action: p.action(), Counts: map[string]int{}, Expires: p.Expires}
	if p.Ask != nil {
		out.Selector = p.Ask.Selector
	}
	payload, err := json.Marshal(p)
	var signer jose.Signer
	if err == nil {
		signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: x.proposals}, (&jose.SignerOptions{}).WithType(proposalType))
	}
	if err == nil {
		var signed *jose.JSONWebSignature
		if signed, err = signer.Sign(payload); err == nil {
			out.Proposal, err = signed.CompactSerialize()
		}
	}
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, "", adminError{"this takes two people, and nothing can be proposed here"})
		return
	}
	writeJSON(w, http.StatusAccepted, "", out)
}

func (p proposal) action() string {
	switch {
	case p.Ask == nil:
		return "unlock"
	case p.Ask.Lock:
		return "lock"
	default:
		return "revoke"
	}
}

var errProposal = errors.New("this is no proposal of this deployment, or it is older than 15 minutes: ask anew")

func (x *Exchanger) proposed(s string) (proposal, error) {
	jws, err := jose.ParseSignedCompact(s, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil || len(x.proposals) == 0 || jws.Signatures[0].Header.ExtraHeaders[jose.HeaderType] != proposalType {
		return proposal{}, errProposal
	}
	payload, err := jws.Verify(x.proposals)
	var p proposal
	if err != nil || json.Unmarshal(payload, &p) != nil || x.now().After(p.Expires) {
		return proposal{}, errProposal
	}
	return p, nil
}

// serveApproval answers POST /admin/v1/approvals: another person than the one who asked, who could do it alone if it did not
// take two, says yes.
func (x *Exchanger) serveApproval(w http.ResponseWriter, r *http.Request) {
	var ask AdminApproval
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&ask); err != nil {
		writeJSON(w, http.StatusBadRequest, "", adminError{`the body must be {"proposal": "...", "show": true or false}`})
		return
	}
	p, err := x.proposed(ask.Proposal)
	if err != nil {
		writeJSON(w, http.StatusBadRequest, "", adminError{err.Error()})
		return
	}
	if ask.Show {
		writeJSON(w, http.StatusOK, "", p.shown())
		return
	}
	by := caller(r)
	if by.Person == p.Person {
		forbid(w, errors.New("it takes another person than the one who asked"))
		return
	}
	both := p.By + ", approved by " + by.Name
	if p.Ask != nil {
		sel, err := by.Confine(operator.Revoke, p.Ask.Selector)
		if err != nil || !slices.Equal(sel, p.Ask.Selector) {
			forbid(w, operator.ErrForbidden)
			return
		}
		x.execute(w, r, sel, *p.Ask, both)
		return
	}
	list := x.revocations.Locks(x.now())
	i := slices.IndexFunc(list, func(e revocation.Entry) bool { return e.Decision == p.Unlock })
	switch {
	case by.May(operator.Unlock) != nil:
		forbid(w, operator.ErrForbidden)
	case i < 0 || !mine(by, operator.Unlock, list[i].Selector):
		writeJSON(w, http.StatusNotFound, "", adminError{"no lock with this id stands; see: sallyport locks"})
	default:
		x.lift(w, r, list[i], p.Reason, both)
	}
}

func (p proposal) shown() AdminProposed {
	out := AdminProposed{By: p.By, Action: p.action(), Unlock: p.Unlock, Reason: p.Reason, Expires: p.Expires}
	if p.Ask != nil {
		out.Selector, out.Reason, out.Ticket, out.TTL, out.Before = p.Ask.Selector, p.Ask.Reason, p.Ask.Ticket, p.Ask.TTL, p.Ask.Before
	}
	return out
}
