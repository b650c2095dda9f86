package jwt_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/federation/policy"
)

// signer signs with a key of its own, like sts/keys, which brokers must not import.
type signer struct {
	key *ecdsa.PrivateKey
}

func (s signer) Sign(_ context.Context, h brokers.Header, claims any) (string, error) {
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key}, new(jose.SignerOptions).WithType(jose.ContentType(h.Type)))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := j.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

var target = policy.Target{Name: "orders", Resource: "https://orders.example/", Scopes: []string{"read", "write"}}

func newBroker(t *testing.T, settings jwt.Settings) (brokers.Broker, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := jwt.Kind().Build(brokers.Target{Name: target.Name, Resource: target.Resource, Scopes: target.Scopes}, &settings, nil,
		brokers.Deps{Issuer: "https://sts.example", Signer: signer{key}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return b, key
}

func TestBroker(t *testing.T) {
	t.Parallel()
	b, _ := newBroker(t, jwt.Settings{})
	brokertest.Run(t, target, b)
}

func TestTokenIsThatOfRFC9068(t *testing.T) {
	t.Parallel()
	b, key := newBroker(t, jwt.Settings{})
	now := time.Now().Truncate(time.Second)
	order := brokertest.NewOrder(t, now, brokertest.Spec{
		Target: target, Scopes: []string{"read", "write"}, Lifetime: 5 * time.Minute, Subject: "ns/shop/sa/checkout",
		Lease: brokers.Lease{ID: "child", Family: "root", Ancestors: []string{"root", "parent"}, Position: "1.7"},
	})
	c, err := b.Mint(context.Background(), order)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(c.Value.Reveal(), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if typ := jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]; typ != "at+jwt" {
		t.Errorf("typ is %v, want at+jwt", typ)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"iss": "https://sts.example", "sub": "spiffe://prod.example/platform/ns/shop/sa/checkout", "aud": "https://orders.example/",
		"exp": float64(now.Add(5 * time.Minute).Unix()), "iat": float64(now.Unix()), "jti": "child", "client_id": "workload",
		"scope":     "read write",
		"sallyport": map[string]any{"family": "root", "ancestors": []any{"root", "parent"}, "target": "orders", "position": "1.7"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("claims are %v\nwant %v", got, want)
	}
	sum := sha256.Sum256([]byte(c.Value.Reveal()[:strings.LastIndex(c.Value.Reveal(), ".")]))
	if c.Fingerprint != hex.EncodeToString(sum[:]) {
		t.Errorf("fingerprint is %s, want that of the signing input", c.Fingerprint)
	}
}

func TestAudienceIsTheSettingElseTheResourceElseTheName(t *testing.T) {
	t.Parallel()
	full := brokers.Target{Name: "orders", Resource: "https://orders.example/"}
	for _, tc := range []struct {
		target   brokers.Target
		settings jwt.Settings
		want     string
	}{
		{full, jwt.Settings{Audience: "https://api.example"}, "https://api.example"},
		{full, jwt.Settings{}, "https://orders.example/"},
		{brokers.Target{Name: "orders"}, jwt.Settings{}, "orders"},
	} {
		if got := jwt.Audience(tc.target, tc.settings); got != tc.want {
			t.Errorf("audience of %+v with %+v is %s, want %s", tc.target, tc.settings, got, tc.want)
		}
	}
}

func TestBadAudiencesDoNotLoad(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"a b", "a\nb", "://x", strings.Repeat("a", 256), "ünïcode"} {
		if problems := jwt.Kind().Check(brokers.Target{}, &jwt.Settings{Audience: bad}, nil); len(problems) != 1 || problems[0].Path != "audience" {
			t.Errorf("audience %q: problems are %v, want one at audience", bad, problems)
		}
	}
}

// Attack: a target, or a rule for it, hands out what a cloud takes for credentials, past the broker of that cloud.
// issue: caller asking for an upstream audience directly
func TestAudiencesOfCloudsAreReserved(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		about brokers.Target
		set   jwt.Settings
	}{
		"by audience":     {brokers.Target{Name: "x"}, jwt.Settings{Audience: "sts.amazonaws.com"}},
		"in China":        {brokers.Target{Name: "x"}, jwt.Settings{Audience: "sts.amazonaws.com.cn"}},
		"Entra":           {brokers.Target{Name: "x"}, jwt.Settings{Audience: "api://AzureADTokenExchange"}},
		"Entra, in small": {brokers.Target{Name: "x"}, jwt.Settings{Audience: "api://azureadtokenexchange"}},
		"Google":          {brokers.Target{Name: "x"}, jwt.Settings{Audience: "https://iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/p/providers/q"}},
		"by resource":     {brokers.Target{Name: "x", Resource: "https://iam.googleapis.com/projects/7"}, jwt.Settings{}},
		"by name":         {brokers.Target{Name: "sts.amazonaws.com"}, jwt.Settings{}},
	} {
		if problems := jwt.Kind().Check(tc.about, &tc.set, map[string]any{}); len(problems) != 1 || problems[0].Path != "audience" {
			t.Errorf("%s: %v", name, problems)
		}
	}
	if problems := jwt.Kind().Check(brokers.Target{Name: "x"}, &jwt.Settings{Audience: "https://orders.example"}, map[string]any{}); len(problems) != 0 {
		t.Errorf("another audience: %v", problems)
	}
}
