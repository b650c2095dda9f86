package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a certificate that signs itself, for 127.0.0.1, and its key: what servers of a test show, and believe.
type authority struct{ cert, key string } // paths

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	a := &authority{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	return a, errors.Join(
		os.WriteFile(a.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(a.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

// lines make a server listen with TLS on a port, and use it with its peers.
func (a *authority) lines(port string) []string {
	return []string{
		"port 0", "tls-port " + port, "tls-cert-file " + a.cert, "tls-key-file " + a.key, "tls-ca-cert-file " + a.cert,
		"tls-auth-clients no", "tls-replication yes",
	}
}

// scheme is that of URLs of servers with TLS, or without.
func (a *authority) scheme() string {
	if a == nil {
		return "redis"
	}
	return "rediss"
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(fmt.Sprintf("%s has no port", address))
	}
	return port
}
