package verify

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/federation/fetch"
	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// maxLists is how many lists are kept at once.
const maxLists = 64

// lists reads the deployment's status lists (OAuth Token Status List section 8.3). What a token says of where its list is is
// believed below the issuer alone.
type lists struct {
	prefix     string
	network    fetch.Network
	keys       oidc.KeySet
	algorithms []jose.SignatureAlgorithm
	skew       time.Duration
	now        func() time.Time

	mu   sync.Mutex
	kept map[string]keptList
}

type keptList struct {
	values statuslist.Statuses
	until  time.Time
}

// check returns nil when the list of a verified token calls it valid.
func (l *lists) check(ctx context.Context, t Token) error {
	if t.statusURI == "" {
		return &refusedError{ErrClaims, "it has no place in a status list"}
	}
	if !strings.HasPrefix(t.statusURI, l.prefix) || strings.ContainsAny(t.statusURI[len(l.prefix):], "/?#%") {
		return &refusedError{ErrClaims, "its status list is not the issuer's"}
	}
	values, err := l.list(ctx, t.statusURI)
	if err != nil {
		return err
	}
	switch v, ok := values.At(t.statusIndex); {
	case !ok:
		return &refusedError{ErrClaims, "its status list has no such index"}
	case v != 0:
		return ErrInactive
	}
	return nil
}

// list returns a list that is kept, or fetches it.
func (l *lists) list(ctx context.Context, uri string) (statuslist.Statuses, error) {
	now := l.now()
	l.mu.Lock()
	kept, ok := l.kept[uri]
	l.mu.Unlock()
	if ok && now.Before(kept.until) {
		return kept.values, nil
	}
	fresh, err := l.fetch(ctx, uri, now)
	if err != nil {
		return statuslist.Statuses{}, &refusedError{ErrUnavailable, "status list: " + err.Error()}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.kept) >= maxLists {
		clear(l.kept)
	}
	l.kept[uri] = fresh
	return fresh.values, nil
}

type listError string

func (e listError) Error() string { return string(e) }

// fetch reads, verifies and unpacks a list: its type, its signature, its subject and its times, in this order.
func (l *lists) fetch(ctx context.Context, uri string, now time.Time) (keptList, error) {
	client, err := fetch.New(l.network)
	if err != nil {
		return keptList{}, listError("CAFile cannot be read")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return keptList{}, listError("its address is no URL")
	}
	req.Header.Set("Accept", statuslist.ContentType)
	res, err := client.Do(req)
	if err != nil {
		return keptList{}, listError(fetch.Reason(err))
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body) // the client bounds it
	if err != nil {
		return keptList{}, listError(fetch.Reason(err))
	}
	jws, err := jose.ParseSignedCompact(string(raw), l.algorithms)
	if err != nil || len(jws.Signatures) != 1 || jws.Signatures[0].Header.ExtraHeaders[jose.HeaderType] != statuslist.Type {
		return keptList{}, listError("it is no JWT of its type")
	}
	payload, err := l.keys.VerifySignature(ctx, jws)
	if err != nil {
		return keptList{}, listError("its signature does not verify")
	}
	var c struct {
		Subject  string          `json:"sub"`
		IssuedAt int64           `json:"iat"`
		Expires  int64           `json:"exp"`
		TTL      int64           `json:"ttl"`
		List     statuslist.List `json:"status_list"`
	}
	issued, ends := time.Unix(0, 0), time.Unix(0, 0)
	if json.Unmarshal(payload, &c) == nil {
		issued, ends = time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	}
	switch {
	case c.Subject != uri:
		return keptList{}, listError("it is another list")
	case issued.After(now.Add(l.skew)) || !now.Before(ends.Add(l.skew)) || c.TTL <= 0:
		return keptList{}, listError("it is not of now")
	}
	values, err := statuslist.Decode(c.List)
	if err != nil {
		return keptList{}, listError("it cannot be unpacked")
	}
	until := now.Add(time.Duration(c.TTL) * time.Second) // HTTP's own word does not count
	if over := ends.Add(l.skew); over.Before(until) {
		until = over
	}
	return keptList{values, until}, nil
}
