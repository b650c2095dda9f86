package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// authority is a certificate authority made for one test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem = issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	return a
}

// server returns a certificate for ownHost and its key, in PEM.
func (a *authority) server(serial int64) (cert, key string) {
	a.t.Helper()
	_, private, cert := issue(a.t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "sallyport"},
		IPAddresses: []net.IP{net.ParseIP(ports.Host())}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatalf("marshalling a key: %v", err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// issue signs a template, by itself when there is no parent.
func issue(t *testing.T, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	if parent == nil {
		parent, by = template, key
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatalf("making a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("making a certificate: %v", err)
	}
	return cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// newTLSDeployment is a deployment that speaks TLS with the authority's certificate number 100.
func newTLSDeployment(t *testing.T, a *authority) *deployment {
	t.Helper()
	d := newDeployment(t)
	d.url = "https" + strings.TrimPrefix(d.url, "http")
	d.copy("testdata/deployment", "${WORKLOAD}", strings.TrimPrefix(d.url, "https://"), "tls: off", "tls: {cert_file: tls.crt, key_file: tls.key}")
	d.write("ca.crt", a.pem, 0o644)
	d.install(a.server(100))
	return d
}

func (d *deployment) install(cert, key string) {
	d.write("tls.key", key, 0o600)
	d.write("tls.crt", cert, 0o644)
}

// trusting lets the client believe the authority, and connect anew for each request.
func (c *caller) trusting(a *authority) *caller {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	tr := c.http.Transport.(*http.Transport)
	tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	tr.DisableKeepAlives = true
	return c
}

// serial is the number of the certificate that the server shows now.
func (d *deployment) serial(a *authority) (int64, error) {
	resp, err := d.caller().trusting(a).http.Get(d.url + "/jwks")
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
}

func (d *deployment) wantSerial(a *authority, want int64) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("certificate %d is served", want), func() error {
		if got, err := d.serial(a); err != nil || got != want {
			return fmt.Errorf("it is %d, %v", got, err)
		}
		return nil
	})
}

func TestExchangeOverTLSWithAnAuthorityOfOurOwn(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	d := newTLSDeployment(t, a)
	p := d.start()
	subject := d.subject("checkout")
	args := []string{"exchange", "--server", d.url, "--audience", "gateway"}

	out, code := sallyportIn(t, subject, append(args, "--ca-file", d.dir+"/ca.crt")...)
	if code != exitDone || claim(strings.TrimSpace(out), "iss") != d.url {
		t.Errorf("exchange with --ca-file ended with %d, want %d and a token", code, exitDone)
	}
	out, code = sallyportIn(t, subject, args...)
	if code != exitUnreachable || !strings.Contains(out, "certificate") {
		t.Errorf("exchange without --ca-file ended with %d and %q, want %d and a word about the certificate", code, out, exitUnreachable)
	}

	plain := d.caller()
	plain.url = "http" + strings.TrimPrefix(d.url, "https")
	if a := plain.exchange(subject, "gateway"); a.status == http.StatusOK || strings.Contains(a.raw, "access_token") {
		t.Errorf("plain HTTP to the TLS port: got %d %s, want no token", a.status, a.raw)
	}
	old := d.caller().trusting(a)
	old.http.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS10
	old.http.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	if a := old.exchange(subject, "gateway"); a.err == nil {
		t.Errorf("TLS 1.1: got %s, want no connection", a)
	}
	p.stop()
	if got := len(d.records("exchange")); got != 1 {
		t.Errorf("the log has %d exchanges, want the one that was made over TLS", got)
	}
}

func TestReplacedCertificateIsServed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	d := newTLSDeployment(t, a)
	p := d.start()
	d.wantSerial(a, 100)

	d.install(a.server(101))
	p.signal(syscall.SIGHUP)
	p.saidSoon(reloaded, 1)
	if got, err := d.serial(a); err != nil || got != 101 {
		t.Errorf("after SIGHUP certificate %d is served (%v), want 101", got, err)
	}

	d.install(a.server(102)) // and nobody says so
	d.wantSerial(a, 102)

	d.write("tls.crt", "not a certificate\n", 0o644)
	p.signal(syscall.SIGHUP)
	p.saidSoon("certificate refused", 1)
	if got, err := d.serial(a); err != nil || got != 102 {
		t.Errorf("after a broken certificate file %d is served (%v), want 102 still", got, err)
	}
	if r := d.readyz(); r.status != http.StatusOK || !strings.Contains(r.reason("configuration"), "tls") {
		t.Errorf("/readyz after a broken certificate file: got %d with %q, want 200 and a word about tls", r.status, r.reason("configuration"))
	}

	d.install(a.server(103)) // the repair is enough, within half a minute: nobody signals again
	d.wantSerial(a, 103)
	eventually(t, "/readyz is content", func() error {
		if reason := d.readyz().reason("configuration"); reason != "" {
			return fmt.Errorf("it says %q", reason)
		}
		return nil
	})
	p.stop()
}

func TestServerWithoutTLSDoesNotStartBeyondLoopback(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.edit("sallyport.yaml", `workload: "`+strings.TrimPrefix(d.url, "http://"), `workload: "0.0.0.0:`+d.url[strings.LastIndex(d.url, ":")+1:])
	wantNoStart(t, d, "sallyport.yaml:3", "tls: off needs a loopback address")
}

// A certificate that callers refuse, now or soon, is told before they say so.
func TestCertificateThatCallersRefuseIsTold(t *testing.T) {
	t.Parallel()
	now := time.Now()
	leaf := func(from, to time.Duration) *x509.Certificate {
		return &x509.Certificate{NotBefore: now.Add(from), NotAfter: now.Add(to)}
	}
	for name, tc := range map[string]struct {
		cert *x509.Certificate
		want string
	}{
		"in its middle":      {leaf(-45*24*time.Hour, 45*24*time.Hour), ""},
		"of an hour":         {leaf(-30*time.Minute, 30*time.Minute), ""},
		"in its last tenth":  {leaf(-85*24*time.Hour, 5*24*time.Hour), "ends at"},
		"of an hour, at end": {leaf(-56*time.Minute, 4*time.Minute), "ends at"},
		"over":               {leaf(-2*time.Hour, -time.Hour), "has expired"},
		"not yet":            {leaf(time.Hour, 2*time.Hour), "is valid from"},
	} {
		if got := ending(tc.cert, now); tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	d := newTLSDeployment(t, newAuthority(t))
	if out, code := sallyport(t, "check", d.dir); code != exitDone || strings.Contains(out, "warning") {
		t.Errorf("a good one (%d): %s", code, out)
	}
	d.edit("sallyport.yaml", "issuer: https://"+ports.Host(), "issuer: https://sts.example")
	if out, code := sallyport(t, "check", d.dir); code != exitDone || !strings.Contains(out, "warning: tls.cert_file is not for sts.example, the host of issuer") {
		t.Errorf("of another host (%d): %s", code, out)
	}
}
