package statuslist

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Times of a list. A revocation is in the list that is served at once, and read by everybody TTL later.
const (
	TTL  = 10 * time.Second // for how long a list may be kept
	Life = 15 * time.Second // of its JWT, from iat to exp

	size = 1 << 14 // tokens of one list, 2 KiB
)

// Path is where lists are, below the issuer.
const Path = "/status/"

// Signer signs claims as a compact JWS with a key of the deployment.
type Signer interface {
	Sign(ctx context.Context, h struct{ Algorithm, Type string }, claims any) (string, error)
}

// Shared is where replicas leave their lists for each other.
type Shared interface {
	// Put leaves a list for a while.
	Put(ctx context.Context, id, jwt string, life time.Duration) error
	// Get returns a list that another replica left, "" for none.
	Get(ctx context.Context, id string) (string, error)
}

// Config is what lists are made of.
type Config struct {
	Issuer string
	Life   string // of this process: letters and digits, its own
	Signer Signer
	Set    *revocation.Set
	Shared Shared // nil for one replica
	Now    func() time.Time
}

// Lists gives tokens their places, and says what became of them. Places are this process' own and end with it: of a process
// that ended no list is served any more once what it left is over, and who has a token of it gets another. It is safe for
// concurrent use.
type Lists struct {
	Config
	mu    sync.Mutex
	lists map[int]*list
	next  int // number of the list that is being filled
}

type list struct {
	tokens  []token
	expires time.Time // of the last of them
	jwt     string
	signed  time.Time
	at      uint64 // number of the newest revocation that it has
	left    string // what was left for other replicas
}

// token is what is known of one.
type token struct{ facts revocation.Facts }

// New returns lists without a token.
func New(c Config) *Lists { return &Lists{Config: c, lists: map[int]*list{}} }

// Reserve gives a token that is about to be made its place (section 6).
func (l *Lists) Reserve(lease string, ancestors, facts []string, expires time.Time) (uri string, index int) {
	f := revocation.Facts{Lease: lease, Ancestors: ancestors, Parts: revocation.DecodeParts(facts)}
	if len(f.Parts) == 0 {
		f.Parts = []revocation.Part{{}}
	}
	f.Parts[0].Terms = append(f.Parts[0].Terms, l.Set.Hasher().Term(revocation.KeyJTI, l.Issuer+"/"+lease))
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.lists[l.next]
	if at == nil || len(at.tokens) == size {
		l.forget()
		l.next++
		at = &list{tokens: make([]token, 0, 64)}
		l.lists[l.next] = at
	}
	at.tokens = append(at.tokens, token{f})
	if expires.After(at.expires) {
		at.expires = expires
	}
	return l.Issuer + Path + l.id(l.next), len(at.tokens) - 1
}

// Minted tells what the token has become, so that it can be named by itself.
func (l *Lists) Minted(uri string, index int, fingerprint, keyID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.own(strings.TrimPrefix(uri, l.Issuer+Path))
	if !ok || index >= len(l.lists[n].tokens) {
		return
	}
	h, p := l.Set.Hasher(), &l.lists[n].tokens[index].facts.Parts[0]
	p.Terms = append(p.Terms, h.Term(revocation.KeyToken, fingerprint), h.Term(revocation.KeySigningKey, keyID))
}

func (l *Lists) id(n int) string { return l.Life + "-" + strconv.Itoa(n) }

// own returns the number of a list of this process. The caller holds mu.
func (l *Lists) own(id string) (int, bool) {
	life, number, ok := strings.Cut(id, "-")
	n, err := strconv.Atoi(number)
	_, there := l.lists[n]
	return n, ok && err == nil && life == l.Life && there
}

// forget drops lists of which every token has expired. The caller holds mu.
func (l *Lists) forget() {
	now := l.Now()
	for n, at := range l.lists {
		if now.After(at.expires.Add(Life)) {
			delete(l.lists, n)
		}
	}
}

// claims of a list's JWT (section 5.1).
type claims struct {
	Subject  string `json:"sub"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	TTL      int64  `json:"ttl"` // seconds
	List     List   `json:"status_list"`
}

// JWT returns a list as it is served, "" when there is none of this id. An error means that nobody can say now.
func (l *Lists) JWT(ctx context.Context, id string) (string, error) {
	if err := l.Set.Fresh(); err != nil {
		return "", err
	}
	l.mu.Lock()
	n, mine := l.own(id)
	l.mu.Unlock()
	if mine {
		return l.sign(ctx, n)
	}
	if l.Shared == nil || !plain(id) {
		return "", nil
	}
	return l.Shared.Get(ctx, id)
}

// plain reports whether an id has the form of ours.
func plain(id string) bool {
	return len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' })
}

// sign makes the JWT anew when something was revoked since, or half of what it may be kept for is over.
func (l *Lists) sign(ctx context.Context, n int) (string, error) {
	_, newest, _ := l.Set.News(0) // before the values are looked at
	now := l.Now()
	l.mu.Lock()
	at := l.lists[n]
	if at == nil {
		l.mu.Unlock()
		return "", nil
	}
	if age := now.Sub(at.signed); at.jwt != "" && at.at == newest && age >= 0 && age < TTL/2 {
		defer l.mu.Unlock()
		return at.jwt, nil
	}
	values := make([]uint8, size) // those that nobody has yet are valid: a list is kept longer than it takes to make one
	for i := range at.tokens {
		if _, dead := l.Set.Dead(at.tokens[i].facts); dead {
			values[i] = 1
		}
	}
	l.mu.Unlock()
	packed, err := Encode(values, 1)
	if err != nil {
		return "", err
	}
	jwt, err := l.Signer.Sign(ctx, struct{ Algorithm, Type string }{Type: Type}, claims{
		Subject: l.Issuer + Path + l.id(n), IssuedAt: now.Unix(), Expires: now.Add(Life).Unix(), TTL: int64(TTL / time.Second), List: packed,
	})
	if err != nil {
		return "", fmt.Errorf("signing a status list: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at.jwt, at.signed, at.at = jwt, now, newest
	return jwt, nil
}

// Leave leaves the lists of this process for other replicas, those that are news. It is called about once a second; while this
// replica may have missed something it leaves nothing, and what was left ends.
func (l *Lists) Leave(ctx context.Context) error {
	if l.Shared == nil || l.Set.Fresh() != nil {
		return nil
	}
	l.mu.Lock()
	l.forget()
	numbers := make([]int, 0, len(l.lists))
	for n := range l.lists {
		numbers = append(numbers, n)
	}
	l.mu.Unlock()
	for _, n := range numbers {
		jwt, err := l.sign(ctx, n)
		if err != nil {
			return err
		}
		l.mu.Lock()
		at := l.lists[n]
		known := at == nil || at.left == jwt
		l.mu.Unlock()
		if known {
			continue
		}
		if err := l.Shared.Put(ctx, l.id(n), jwt, Life); err != nil {
			return err
		}
		l.mu.Lock()
		at.left = jwt
		l.mu.Unlock()
	}
	return nil
}
