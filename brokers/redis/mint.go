package redis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// login is the credential as the workload gets it.
type login struct {
	Type       string   `json:"type"`
	Version    int      `json:"version" jsonschema_description:"Version of this form; what a later one adds can be ignored."`
	URLs       []string `json:"urls" jsonschema_description:"Every node, without user and password."`
	User       string   `json:"user" jsonschema_description:"User to log in as; it is for this credential alone."`
	Password   string   `json:"password" jsonschema_description:"Its password: 32 letters and digits."`
	Expiration string   `json:"expiration" jsonschema:"format=date-time" jsonschema_description:"When it ends (RFC 3339)."`
}

// Mint implements [brokers.Broker]. The user is on every node, or on none.
func (b *Broker) Mint(ctx context.Context, o brokers.Order) (brokers.Credential, error) {
	if o.IsZero() {
		return brokers.Credential{}, brokers.ErrZeroOrder
	}
	ctx, cancel := within(ctx)
	defer cancel()
	if len(o.Grant().Scopes()) == 0 {
		return brokers.Credential{}, fmt.Errorf("%w: the grant names no scope of target %s, and a user without rules can do nothing; name scopes in the rule", brokers.ErrMisconfigured, b.target)
	}
	// A node that cannot be reached is found before anything is made on the others.
	if err := b.first("reaching", b.each(func(_ int, n *redis.Client) error { return n.Ping(ctx).Err() }), false); err != nil {
		return brokers.Credential{}, err
	}
	password := brokers.NewPassword()
	if err := b.make(ctx, o.Name(), b.rules(password, o.Grant().Scopes())); err != nil {
		return brokers.Credential{}, err
	}
	return b.credential(o, password)
}

// rules are the arguments of ACL SETUSER behind the name. The call is atomic, and the same twice is the same as once.
func (b *Broker) rules(password secret.Value, scopes []string) []any {
	sum := sha256.Sum256([]byte(password.Reveal()))
	out := []any{"reset", "on", "#" + hex.EncodeToString(sum[:])}
	for _, s := range slices.Sorted(slices.Values(scopes)) {
		if selector, ok := b.selectors[s]; ok {
			out = append(out, selector)
		}
	}
	return out
}

// make creates the user on all nodes.
func (b *Broker) make(ctx context.Context, name string, rules []any) error {
	err := b.first("making a user", b.each(func(_ int, n *redis.Client) error {
		if err := n.Do(ctx, append([]any{"ACL", "SETUSER", name}, rules...)...).Err(); err != nil || !b.save {
			return err
		}
		return n.Do(ctx, "ACL", "SAVE").Err()
	}), true)
	if err == nil {
		return nil
	}
	// An answer that was lost may be to a command that is still on its way: then deleting what is there proves nothing.
	if undo := b.delete(ctx, []string{name})[0].Err; undo != nil && !errors.Is(err, brokers.ErrUncertain) {
		return fmt.Errorf("%w: it could not be deleted again (%w) after: %w", brokers.ErrUncertain, undo, err)
	}
	return err
}

func (b *Broker) credential(o brokers.Order, password secret.Value) (brokers.Credential, error) {
	expires := o.Grant().Expires().Truncate(time.Second)
	value, err := brokers.Object(login{
		Type: "redis", Version: 1, URLs: b.endpoints, User: o.Name(), Password: password.Reveal(), Expiration: expires.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%w: %w", brokers.ErrUncertain, err)
	}
	return brokers.Credential{
		Type:      Type,
		TokenType: brokers.NotApplicable,
		Value:     value,
		Audience:  b.target,
		Scopes:    o.Grant().Scopes(),
		Expires:   expires,
	}, nil
}

// first maps what the nodes said to one error: the worst of them, with the number of its node. sent says that a
// command may have reached them.
func (b *Broker) first(doing string, errs []error, sent bool) error {
	var out error
	rank := 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		class, why := classify(err, sent)
		if r := slices.Index([]error{nil, brokers.ErrMisconfigured, brokers.ErrUnavailable, brokers.ErrUncertain}, class); r > rank {
			rank, out = r, fmt.Errorf("%s at urls[%d] of target %s: %w: %w", doing, i, b.target, class, why)
		}
	}
	return out
}

func classify(err error, sent bool) (class, why error) {
	var reply redis.Error
	switch {
	case errors.As(err, new(configError)):
		return brokers.ErrMisconfigured, err
	case !errors.As(err, &reply):
		if sent {
			return brokers.ErrUncertain, err
		}
		return brokers.ErrUnavailable, err
	}
	text := reply.Error() // it may repeat rules, and is not
	code, _, _ := strings.Cut(text, " ")
	switch code {
	case "WRONGPASS", "NOAUTH":
		return brokers.ErrMisconfigured, errors.New("the node refuses the user of the URL")
	case "NOPERM":
		return brokers.ErrMisconfigured, errors.New("the user of the URL lacks a right; docs/brokers/redis.md lists them")
	case "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "OOM":
		return brokers.ErrUnavailable, fmt.Errorf("the node answers %s", code)
	}
	switch {
	case strings.HasPrefix(text, "ERR max number of clients"):
		return brokers.ErrUnavailable, errors.New("the node has too many connections")
	case strings.HasPrefix(text, "ERR Error in ACL SETUSER"):
		return brokers.ErrMisconfigured, errors.New("the node does not know a word in the commands of a scope")
	case strings.Contains(text, "not configured to use an ACL file"):
		return brokers.ErrMisconfigured, errors.New("the node has no aclfile; leave save out, or give it one")
	case strings.HasPrefix(text, "ERR There was an error trying to save the ACLs"):
		return brokers.ErrUnavailable, errors.New("the node cannot write its aclfile; its log says why")
	}
	return brokers.ErrMisconfigured, fmt.Errorf("the node answers an error that begins with %.12q", code)
}
