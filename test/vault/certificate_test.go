package vault

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// certificates reads PEM.
func certificates(tb testing.TB, text string) []*x509.Certificate {
	tb.Helper()
	var out []*x509.Certificate
	for raw := []byte(text); len(bytes.TrimSpace(raw)) > 0; {
		var b *pem.Block
		if b, raw = pem.Decode(raw); b == nil {
			tb.Fatalf("no PEM: %q", text)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

// certified is a certificate as its holder reads it.
type certified struct {
	*x509.Certificate
	chain  []*x509.Certificate
	serial string
}

func certifiedBy(tb testing.TB, value string) certified {
	tb.Helper()
	var v struct {
		Type, Certificate, Serial, Expiration string
		Chain                                 []string
	}
	if err := json.Unmarshal([]byte(value), &v); err != nil || v.Type != "x509-cert" {
		tb.Fatalf("%v: the credential is %s", err, value)
	}
	c := certified{certificates(tb, v.Certificate)[0], certificates(tb, strings.Join(v.Chain, "\n")), v.Serial}
	if v.Expiration != c.NotAfter.UTC().Format(time.RFC3339) {
		tb.Errorf("it is said to end at %s, and ends at %s", v.Expiration, c.NotAfter)
	}
	return c
}

// verify does what a server does that trusts the authority, at a time and for a use.
func (c certified) verify(root *x509.Certificate, at time.Time, use x509.ExtKeyUsage) error {
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}}
	o.Roots.AddCert(root)
	for _, i := range c.chain {
		o.Intermediates.AddCert(i)
	}
	_, err := c.Verify(o)
	return err
}

// names fails unless the certificate names a workload, and is good for nothing but being it.
func (c certified) names(tb testing.TB, id string, root *x509.Certificate, ends time.Time) {
	tb.Helper()
	if len(c.URIs) != 1 || c.URIs[0].String() != id || len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) > 0 || c.Subject.String() != "" {
		tb.Errorf("it is for %q, %v, %v, %v and %v; want %s alone", c.Subject, c.URIs, c.DNSNames, c.EmailAddresses, c.IPAddresses, id)
	}
	if c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 1 || len(c.UnknownExtKeyUsage) > 0 {
		tb.Errorf("it is good for %b, %v and %v (an authority: %v)", c.KeyUsage, c.ExtKeyUsage, c.UnknownExtKeyUsage, c.IsCA)
	}
	if err := c.verify(root, time.Now(), x509.ExtKeyUsageClientAuth); err != nil {
		tb.Errorf("a server does not take it: %v", err)
	}
	if err := c.verify(root, time.Now(), x509.ExtKeyUsageServerAuth); err == nil {
		tb.Error("it is good for a server")
	}
	if c.NotAfter.After(ends) || c.NotAfter.Before(ends.Add(-5*time.Second)) {
		tb.Errorf("it ends at %s, and the grant at %s", c.NotAfter, ends)
	}
	if err := c.verify(root, ends.Add(time.Second), x509.ExtKeyUsageClientAuth); err == nil {
		tb.Error("it is good after the grant")
	}
}

func newECDSA(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// server answers whoever shows a certificate of the authority, and says whom it takes them for.
func server(tb testing.TB, root *x509.Certificate, now func() time.Time) *httptest.Server {
	tb.Helper()
	clients := x509.NewCertPool()
	clients.AddCert(root)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.PeerCertificates[0].URIs[0])
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, Time: now}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	tb.Cleanup(s.Close)
	return s
}

// greet shows certificates to a server and returns what it says.
func greet(s *httptest.Server, shown ...tls.Certificate) (string, error) {
	trust := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, Certificates: shown}, DisableKeepAlives: true}}
	resp, err := client.Get(s.URL)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}
