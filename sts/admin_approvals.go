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
	ID      string              `json:"id"` // of what comes of it: it is done once, on whatever replica it is approved
	Ask     *AdminRevocation    `json:"ask,omitempty"`
	Unlock  string              `json:"unlock,omitempty"` // the id of a lock
	Reason  string              `json:"reason,omitempty"`
	By      string              `json:"by"`
	Shown   operator.Credential `json:"shown"`   // by whoever asked
	Grounds []string            `json:"grounds"` // of the roles of whoever asked
	Expires time.Time           `json:"expires"`
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

	Lock  *AdminLock    `json:"lock,omitempty"`  // that would be lifted, as it stands
	Would *AdminRevoked `json:"would,omitempty"` // what a revocation or lock would kill now, as a dry run says it
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
	p.ID, p.By, p.Shown, p.Grounds, p.Expires = x.newID(), by.Name, by.By, by.Grounds(), x.now().UTC().Add(proposalLife).Truncate(time.Second)
	out := AdminRevoked{Action: p.action(), Counts: map[string]int{}, Expires: p.Expires}
	if p.Ask != nil {
		out.Selector = p.Ask.Selector
		out.Warnings = append(x.strange(p.Ask.Selector), x.operators().Second.Why(p.Ask.Selector))
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
// take two, says yes, while whoever asked still could.
func (x *Exchanger) serveApproval(w http.ResponseWriter, r *http.Request, scan scan) {
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
	if p.Ask != nil {
		about(r, p.Ask.Selector, because(*p.Ask))
	} else {
		about(r, []string{"unlock=" + p.Unlock}, word(p.Reason))
	}
	if ask.Show {
		out := p.shown()
		for _, l := range x.locks().Locks {
			if l.ID == p.Unlock && mine(caller(r), operator.Look, l.Selector) {
				out.Lock = &l
			}
		}
		if p.Ask != nil && may(caller(r), p.Ask.Selector) {
			if would, err := x.wouldDie(r.Context(), p.Ask.Selector, *p.Ask, scan); err == nil {
				out.Would = &would
			}
		}
		writeJSON(w, http.StatusOK, "", out)
		return
	}
	by, who := caller(r), x.operators()
	asker := who.Still(p.Shown, p.Grounds)
	both := p.By + ", approved by " + by.Name
	two := who.TwoPeople(by.By, p.Shown)
	if p.Ask != nil {
		switch sel := revocation.Selector(p.Ask.Selector); {
		case !may(by, sel):
			forbid(w, operator.ErrForbidden)
		case two != nil:
			forbid(w, two)
		case !may(asker, sel):
			forbid(w, errAsker)
		case x.revocations.Knows(p.ID), x.revocations.Knows(killOf(p.ID)):
			writeJSON(w, http.StatusConflict, "", adminError{"this was approved already, and is done once: it is " + p.ID})
		default:
			x.execute(w, r, sel, *p.Ask, x.revocationBy(r, both).named(p.ID), scan)
		}
		return
	}
	list := x.revocations.Locks(x.now())
	i := slices.IndexFunc(list, func(e revocation.Entry) bool { return e.Decision == p.Unlock })
	switch {
	case by.May(operator.Unlock) != nil:
		forbid(w, operator.ErrForbidden)
	case i < 0 || !mine(by, operator.Unlock, list[i].Selector):
		writeJSON(w, http.StatusNotFound, "", adminError{"no lock with this id stands; see: sallyport locks"})
	case two != nil:
		forbid(w, two)
	case !mine(asker, operator.Unlock, list[i].Selector):
		forbid(w, errAsker)
	default:
		x.lift(w, r, list[i], p.Reason, x.revocationBy(r, both).named(p.ID))
	}
}

var errAsker = errors.New("whoever asked may not do this any more: ask anew")

// may reports whether an operator may revoke all that a selector names.
func may(o operator.Operator, sel revocation.Selector) bool {
	confined, err := o.Confine(operator.Revoke, sel)
	return err == nil && slices.Equal(confined, sel)
}

func (p proposal) shown() AdminProposed {
	out := AdminProposed{By: p.By, Action: p.action(), Unlock: p.Unlock, Reason: p.Reason, Expires: p.Expires}
	if p.Ask != nil {
		out.Selector, out.Reason, out.Ticket, out.TTL, out.Before = p.Ask.Selector, p.Ask.Reason, p.Ask.Ticket, p.Ask.TTL, p.Ask.Before
	}
	return out
}
