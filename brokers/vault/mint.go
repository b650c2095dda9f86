package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// margin is taken off a life that we ask for: it begins when Vault hears of it, a little after we reckoned it.
const margin = 500 * time.Millisecond

// mint makes one credential.
type mint struct {
	*Broker
	order   brokers.Order
	scope   Scope
	wrapped bool
	data    note
}

// run logs in, notes the accessor, and makes what was ordered. What fails midway is dropped with the token.
func (m *mint) run(ctx context.Context) (brokers.Credential, error) {
	var csr request
	if m.scope.PKI != nil {
		var err error
		if csr, err = parseRequest(m.order.Input(csrParameter)); err != nil {
			return brokers.Credential{}, err
		}
	}
	lease := m.order.Lease()
	t, err := m.login(ctx, m.scope.Role, lease.ID, origin{lease.ID, lease.Family, m.order.Grant().Workload().ID()}, m.scope.Batch)
	if err != nil {
		return brokers.Credential{}, err
	}
	m.data = note{Sort: m.scope.sort(), Accessor: t.accessor}
	if err := m.order.Note(ctx, m.data.seal()); err != nil {
		return brokers.Credential{}, m.abandon(ctx, t, fmt.Errorf("noting the accessor: %w", err))
	}
	var c brokers.Credential
	switch {
	case m.scope.PKI != nil:
		c, err = m.certificate(ctx, t, csr)
	case m.scope.Read != "":
		c, err = m.secret(ctx, t)
	default:
		c, err = m.token(ctx, t)
	}
	if err != nil {
		return brokers.Credential{}, m.abandon(ctx, t, err)
	}
	if c.Data = m.data.seal(); m.scope.Static {
		c.Stays = m.data.why()
	}
	return c, nil
}

// end is when the credential has to be dead.
func (m *mint) end() time.Time { return m.order.Grant().Expires().Truncate(time.Second) }

// until returns how long a life may be that begins now.
func (m *mint) until(now time.Time) (time.Duration, error) {
	left := (m.end().Sub(now) - margin).Truncate(time.Millisecond)
	if left < time.Second {
		return 0, fmt.Errorf("%w: it ends within a second", brokers.ErrTooShort)
	}
	return left, nil
}

// fits refuses what would outlive the grant. Whoever says for how long something lives in Vault says it for all grants, so
// one that is too short is told from settings that fit no grant.
func (m *mint) fits(what string, life time.Duration, begun time.Time) error {
	switch {
	case life > m.target.MaxLifetime && m.target.MaxLifetime > 0:
		return fmt.Errorf("%w: %s lives %s, longer than any grant of this target; shorten it in Vault", brokers.ErrMisconfigured, what, life)
	case begun.Add(life).After(m.end()):
		return fmt.Errorf("%w: %s lives %s", brokers.ErrTooShort, what, life)
	}
	return nil
}

// token hands out a child of the login's token, or, where the role makes batch tokens, that itself.
func (m *mint) token(ctx context.Context, t token) (brokers.Credential, error) {
	c := brokers.Credential{Type: TokenType, TokenType: "Bearer", Value: t.value, Expires: t.ends}
	switch {
	case m.scope.Batch && m.wrapped:
		return c, fmt.Errorf("%w: the token of a login is not wrapped; ask for the type %s", brokers.ErrMisconfigured, TokenType)
	case m.scope.Batch:
		return c, m.fits("the batch token", t.life, t.ends.Add(-t.life))
	case m.wrapped:
		return m.wrap(ctx, t)
	}
	child, err := m.child(ctx, t)
	c.Value, c.Expires = child.value, child.ends
	return c, err
}

// creation is the body of auth/token/create. A child has a parent, so that it dies with the login; it ends with the
// grant, cannot be renewed, and has no policy by default, which would let its holder ask for more.
type creation struct {
	Policies        []string          `json:"policies"`
	TTL             string            `json:"ttl"`
	ExplicitMaxTTL  string            `json:"explicit_max_ttl"`
	Renewable       bool              `json:"renewable"`
	NoDefaultPolicy bool              `json:"no_default_policy"`
	Type            string            `json:"type"`
	DisplayName     string            `json:"display_name"`
	Meta            map[string]string `json:"meta"`
}

const createPath = "auth/token/create"

func (m *mint) creation(life time.Duration) creation {
	lease := m.order.Lease()
	ttl := fmt.Sprintf("%dms", life.Milliseconds())
	return creation{
		Policies: m.scope.Policies, TTL: ttl, ExplicitMaxTTL: ttl, NoDefaultPolicy: true, Type: "service", DisplayName: m.order.Name(),
		Meta: map[string]string{"lease": lease.ID, "family": lease.Family, "target": m.target.Name, "workload": m.order.Grant().Workload().ID()},
	}
}

// child makes a token that ends with the grant.
func (m *mint) child(ctx context.Context, parent token) (token, error) {
	begun := m.deps.Now()
	life, err := m.until(begun)
	if err != nil {
		return token{}, err
	}
	a, err := m.vault.do(ctx, call{what: "making the token", path: createPath, token: parent.value, body: m.creation(life)})
	if err != nil {
		return token{}, err
	}
	t, err := a.token(begun)
	if err == nil {
		err = a.isOf(false)
	}
	if err != nil {
		return token{}, fmt.Errorf("making the token: %w", err)
	}
	slices.Sort(a.Auth.Policies)
	switch {
	case t.life > life:
		err = fmt.Errorf("it lives %s and %s was asked for", t.life, life)
	case a.Auth.Renewable || a.Auth.Orphan:
		err = fmt.Errorf("it can be renewed (%v) or has no parent (%v)", a.Auth.Renewable, a.Auth.Orphan)
	case !slices.Equal(a.Auth.Policies, m.scope.Policies):
		err = fmt.Errorf("it has not the policies that the scope says, and no others; look at those of its identity")
	}
	if err != nil {
		return token{}, fmt.Errorf("making the token: %w: %w", brokers.ErrMisconfigured, err)
	}
	if life-t.life < time.Second { // whole seconds are all that it says
		t.ends = begun.Add(life)
	}
	t.ends = earliest(t.ends, parent.ends)
	return t, nil
}

// wrap has the child put into a wrapping token: we never see it.
func (m *mint) wrap(ctx context.Context, parent token) (brokers.Credential, error) {
	begun := m.deps.Now()
	life, err := m.until(begun)
	if err != nil {
		return brokers.Credential{}, err
	}
	ttl := min(m.settings.WrapTTL, life).Truncate(time.Second)
	a, err := m.vault.do(ctx, call{what: "making the wrapped token", path: createPath, token: parent.value, wrap: ttl, body: m.creation(life)})
	if err != nil {
		return brokers.Credential{}, err
	}
	return m.wrapping(a, createPath, ttl, earliest(begun.Add(life), parent.ends))
}

// wrapping hands out a wrapping token whose contents end at ends.
func (m *mint) wrapping(a answer, path string, ttl time.Duration, ends time.Time) (brokers.Credential, error) {
	w := a.WrapInfo
	switch {
	case a.Auth != nil || a.LeaseID != "" || hasData(a.Data):
		return brokers.Credential{}, fmt.Errorf("%w: what should be wrapped stands open in the answer", brokers.ErrMisconfigured)
	case w == nil || !printable(w.Token) || !printable(w.Accessor) || path == createPath && !printable(w.WrappedAccessor):
		return brokers.Credential{}, fmt.Errorf("%w: the answer holds no wrapping token with its accessor", brokers.ErrMisconfigured)
	case w.CreationPath != path:
		return brokers.Credential{}, fmt.Errorf("%w: the wrapping token was made by another path", brokers.ErrMisconfigured)
	case w.TTL <= 0 || time.Duration(w.TTL)*time.Second > ttl:
		return brokers.Credential{}, fmt.Errorf("%w: the wrapping token lives %d s and %s was asked for", brokers.ErrMisconfigured, w.TTL, ttl)
	}
	m.data.Wrapping = w.Accessor
	return brokers.Credential{Type: WrappingType, TokenType: "Bearer", Value: secret.New(w.Token), Expires: earliest(ends, m.end())}, nil
}

// vaultSecret is a secret as access_token carries it.
type vaultSecret struct {
	Type       string          `json:"type"`
	Data       json.RawMessage `json:"data" jsonschema_description:"What Vault returned as data; its members are those of the engine."`
	Lease      string          `json:"lease_id,omitempty" jsonschema_description:"Vault's lease of a dynamic secret."`
	Static     bool            `json:"static,omitempty" jsonschema_description:"The secret works after the grant: it is a stored one."`
	Expiration string          `json:"expiration,omitempty" jsonschema:"format=date-time" jsonschema_description:"When it ends (RFC 3339). Absent for a stored one."`
}

// secret reads the scope's path.
func (m *mint) secret(ctx context.Context, t token) (brokers.Credential, error) {
	owner := t
	if m.scope.TakesBack {
		var err error
		if owner, err = m.child(ctx, t); err != nil {
			return brokers.Credential{}, err
		}
	}
	begun := m.deps.Now()
	life, err := m.until(begun)
	if err != nil {
		return brokers.Credential{}, err
	}
	q := call{what: "reading the secret", path: m.scope.Read, token: owner.value}
	if m.scope.TTLParameter != "" {
		q.query = url.Values{m.scope.TTLParameter: {fmt.Sprintf("%ds", int64(life/time.Second))}}
	}
	if m.wrapped {
		q.wrap = min(m.settings.WrapTTL, life).Truncate(time.Second)
	}
	a, err := m.vault.do(ctx, q)
	if err != nil {
		return brokers.Credential{}, err
	}
	ends := owner.ends
	if m.scope.Static { // its lease is ours alone
		ends = m.end()
	}
	if m.wrapped {
		return m.wrapping(a, m.scope.Read, q.wrap, ends)
	}
	if err := m.leased(a, begun); err != nil {
		return brokers.Credential{}, fmt.Errorf("reading the secret: %w", err)
	}
	if !m.scope.Static {
		ends = earliest(ends, begun.Add(time.Duration(a.LeaseDuration)*time.Second))
	}
	ends = earliest(ends, m.end())
	s := vaultSecret{Type: "vault-secret", Data: a.Data, Lease: a.LeaseID, Static: m.scope.Static}
	if !s.Static {
		s.Expiration = ends.UTC().Format(time.RFC3339)
	}
	value, err := brokers.Object(s)
	if err != nil {
		return brokers.Credential{}, err
	}
	m.data.Lease = a.LeaseID
	return brokers.Credential{Type: SecretType, TokenType: brokers.NotApplicable, Value: value, Expires: ends}, nil
}

// leased checks that what was read is what the scope says: data and nothing else, with a lease within the grant or, said to
// be static, without.
func (m *mint) leased(a answer, begun time.Time) error {
	life := time.Duration(a.LeaseDuration) * time.Second
	switch {
	case a.Auth != nil || a.WrapInfo != nil || !hasData(a.Data):
		return fmt.Errorf("%w: the answer holds no data, or more than data", brokers.ErrMisconfigured)
	case m.scope.Static && a.LeaseID != "":
		return fmt.Errorf("%w: the secret has a lease, and the scope says that it is static", brokers.ErrMisconfigured)
	case m.scope.Static:
		return nil
	case a.LeaseID == "":
		return fmt.Errorf("%w: what is there has no lease and never ends; say static: true if it may be handed out all the same", brokers.ErrMisconfigured)
	case !strings.HasPrefix(a.LeaseID, m.scope.Read+"/") || !path(a.LeaseID):
		return fmt.Errorf("%w: the lease is of another path", brokers.ErrMisconfigured)
	case a.LeaseDuration <= 0 || a.LeaseDuration > maxLease:
		return fmt.Errorf("%w: the lease has no length", brokers.ErrMisconfigured)
	case m.scope.TakesBack: // it ends with its token
		return nil
	}
	return m.fits("the secret", life, begun)
}

// maxLease is the longest lease in seconds that is believed: ten years.
const maxLease = 10 * 366 * 24 * 60 * 60

func hasData(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) > 2 && raw[0] == '{'
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
