package vault_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/vault"
)

var signing = map[string]vault.Scope{"read": {Role: "orders", PKI: &vault.PKI{Path: "pki/sign/workloads", CommonName: "orders_ro"}}}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asking(o brokers.Order, csr string) brokers.Order {
	return o.WithInput(map[string]string{"x509_csr": csr})
}

func TestCertificateNamesTheWorkloadWhateverTheRequestSays(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, settings(c.server.URL), signing)
	if got := b.Parameters(); !reflect.DeepEqual(got, []string{"x509_csr"}) {
		t.Errorf("the parameters are %v", got)
	}
	key := newKey(t)
	evil, err := url.Parse("spiffe://prod.example/platform/ns/admin/sa/root")
	if err != nil {
		t.Fatal(err)
	}
	text := csr(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "evil"}, DNSNames: []string{"evil.example"}, URIs: []*url.URL{evil}, EmailAddresses: []string{"root@evil.example"}}, key)
	o := asking(order(t, 5*time.Minute, "read"), text)
	cred, err := b.Mint(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Type, Certificate, Serial string
		Chain                     []string
	}
	if err := json.Unmarshal([]byte(cred.Value.Reveal()), &got); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(got.Certificate))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) || cert.Subject.CommonName != "orders_ro" || len(cert.URIs) != 1 || cert.URIs[0].String() != workload || len(cert.DNSNames) > 0 {
		t.Errorf("the certificate is for %s %v %v", cert.Subject, cert.URIs, cert.DNSNames)
	}
	if cert.NotAfter.After(o.Grant().Expires()) || !cred.Expires.Equal(cert.NotAfter) || got.Type != "x509-cert" || len(got.Chain) != 1 {
		t.Errorf("it ends at %s, said to end at %s", cert.NotAfter, cred.Expires)
	}
	sign := c.requests()[1]
	delete(sign.body, "csr")
	delete(sign.body, "ttl")
	want := map[string]any{"common_name": "orders_ro", "uri_sans": []any{workload}, "format": "pem", "exclude_cn_from_sans": true}
	if sign.path != "pki/sign/workloads" || !reflect.DeepEqual(sign.body, want) {
		t.Errorf("%s was asked for %v\nwant %v", sign.path, sign.body, want)
	}
	if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, cred.Data)); err != nil || r.State != brokers.DiesAt || !strings.Contains(r.Reason, got.Serial) {
		t.Errorf("the receipt is %+v (%v), want dies", r, err)
	}
}

func TestCertificateThatIsNotWhatWasAskedIsRefused(t *testing.T) {
	t.Parallel()
	parse := func(s string) *url.URL { u, _ := url.Parse(s); return u }
	_, foreign := authority(t)
	for name, bend := range map[string]func(*contract){
		"another key": func(c *contract) { k := newKey(t); c.sign = func(x *x509.Certificate) { x.PublicKey = k.Public() } },
		"another id": func(c *contract) {
			c.sign = func(x *x509.Certificate) { x.URIs = []*url.URL{parse("spiffe://prod.example/x/y")} }
		},
		"two ids": func(c *contract) {
			c.sign = func(x *x509.Certificate) { x.URIs = append(x.URIs, parse("spiffe://prod.example/x/y")) }
		},
		"no id":  func(c *contract) { c.sign = func(x *x509.Certificate) { x.URIs = nil } },
		"a host": func(c *contract) { c.sign = func(x *x509.Certificate) { x.DNSNames = []string{"evil.example"} } },
		"a mailbox": func(c *contract) {
			c.sign = func(x *x509.Certificate) { x.EmailAddresses = []string{"a@evil.example"} }
		},
		"an address": func(c *contract) {
			c.sign = func(x *x509.Certificate) { x.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }
		},
		"another name":      func(c *contract) { c.sign = func(x *x509.Certificate) { x.Subject.CommonName = "evil" } },
		"a longer life":     func(c *contract) { c.sign = func(x *x509.Certificate) { x.NotAfter = x.NotAfter.Add(time.Minute) } },
		"a life that ended": func(c *contract) { c.sign = func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Second) } },
		"a life to come": func(c *contract) {
			c.sign = func(x *x509.Certificate) { x.NotBefore = time.Now().Add(2 * time.Minute) }
		},
		"an authority's": func(c *contract) { c.sign = func(x *x509.Certificate) { x.IsCA, x.BasicConstraintsValid = true, true } },
		"another issuer": func(c *contract) {
			c.bend = func(path string, a map[string]any) int {
				if d, ok := a["data"].(map[string]any); ok && strings.HasPrefix(path, "pki") {
					d["ca_chain"] = []string{pemOf(foreign.Raw)}
				}
				return 0
			}
		},
		"a private key": func(c *contract) {
			c.bend = func(path string, a map[string]any) int {
				if d, ok := a["data"].(map[string]any); ok && strings.HasPrefix(path, "pki") {
					d["private_key"] = "-----BEGIN"
				}
				return 0
			}
		},
		"no certificate": func(c *contract) {
			c.bend = func(path string, a map[string]any) int {
				if d, ok := a["data"].(map[string]any); ok && strings.HasPrefix(path, "pki") {
					d["certificate"] = ""
				}
				return 0
			}
		},
	} {
		c := newContract(t)
		bend(c)
		cred, err := newBroker(t, settings(c.server.URL), signing).Mint(t.Context(), asking(order(t, 5*time.Minute, "read"), csr(t, &x509.CertificateRequest{}, newKey(t))))
		if !errors.Is(err, brokers.ErrMisconfigured) || !cred.Value.IsZero() || c.living() > 0 {
			t.Errorf("%s: %v, want ErrMisconfigured; %d tokens live", name, err, c.living())
		}
	}
}

func TestRequestThatNobodyShouldSignIsNotSent(t *testing.T) {
	t.Parallel()
	c := newContract(t)
	b := newBroker(t, settings(c.server.URL), signing)
	good := csr(t, &x509.CertificateRequest{}, newKey(t))
	der, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte{}, der...)
	forged[len(forged)-1] ^= 1
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no base64": "!" + good, "no request": base64.StdEncoding.EncodeToString([]byte("x")), "a broken signature": base64.StdEncoding.EncodeToString(forged),
		"more behind it": base64.StdEncoding.EncodeToString(append(append([]byte{}, der...), 0)), "a line break": good[:10] + "\n" + good[10:],
		"PEM": pemOf(der), "too long": strings.Repeat("A", 8<<10+4), "a short RSA key": csr(t, &x509.CertificateRequest{}, small), "a weak curve": csr(t, &x509.CertificateRequest{}, curve),
	} {
		if _, err := b.Mint(t.Context(), asking(order(t, 5*time.Minute, "read"), text)); !errors.Is(err, brokers.ErrInput) || len(c.requests()) > 0 {
			t.Errorf("%s: %v after %d calls, want ErrInput after none", name, err, len(c.requests()))
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{ed, newKey(t)} {
		if _, err := b.Mint(t.Context(), asking(order(t, 5*time.Minute, "read"), csr(t, &x509.CertificateRequest{}, key))); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
}
