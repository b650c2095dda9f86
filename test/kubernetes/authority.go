package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority that lives as long as a test. Servers get real TLS from it, because
// both sides refuse plain http for an issuer and neither is told to skip verification.
type Authority struct {
	CAFile string // PEM, for programs that take a path
	CAPEM  []byte
	Pool   *x509.CertPool // trusts this authority and nothing else

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority and writes its certificate to ca.crt in dir.
func NewAuthority(tb testing.TB, dir string) *Authority {
	tb.Helper()
	key := newKey(tb)
	template := certificate("Sallyport test authority")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatalf("creating the authority's certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("parsing the authority's certificate: %v", err)
	}
	a := &Authority{CAFile: filepath.Join(dir, "ca.crt"), CAPEM: encode("CERTIFICATE", der), Pool: x509.NewCertPool(), cert: cert, key: key}
	a.Pool.AddCert(cert)
	WriteFile(tb, a.CAFile, a.CAPEM, 0o644)
	return a
}

// Issue writes a server certificate for 127.0.0.1 and its private key (mode 0600) to the two paths.
func (a *Authority) Issue(tb testing.TB, certFile, keyFile string) {
	tb.Helper()
	key := newKey(tb)
	template := certificate("127.0.0.1")
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		tb.Fatalf("creating a server certificate: %v", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatalf("encoding a server key: %v", err)
	}
	WriteFile(tb, certFile, encode("CERTIFICATE", der), 0o644)
	WriteFile(tb, keyFile, encode("PRIVATE KEY", private), 0o600)
}

// WriteFile writes a file and makes the directories above it.
func WriteFile(tb testing.TB, path string, data []byte, mode os.FileMode) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		tb.Fatal(err)
	}
}

// certificate returns what both kinds of certificate share. An hour is longer than any test and an hour of
// backdating covers a clock that was just corrected.
func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(time.Hour),
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatalf("generating a key: %v", err)
	}
	return key
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
