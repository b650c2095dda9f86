package vault

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
)

// csrParameter is what the workload sends: a PKCS #10 request, DER in base64. Only its key is used.
const csrParameter = "x509_csr"

// Bounds of a request.
const (
	maxCSR     = 8 << 10 // bytes of base64: an RSA 4096 request with many names is 3 KiB
	minRSABits = 2048
	maxRSABits = 4096
)

// request is a certificate request whose sender has the key.
type request struct {
	key publicKey
	pem string
}

// publicKey is what every public key of the standard library is.
type publicKey interface{ Equal(x crypto.PublicKey) bool }

func parseRequest(text string) (request, error) {
	if text == "" {
		return request{}, fmt.Errorf("%w: %s is missing: send a certificate request, DER in base64", brokers.ErrInput, csrParameter)
	}
	refused := func(why string) (request, error) {
		return request{}, fmt.Errorf("%w: %s %s", brokers.ErrInput, csrParameter, why)
	}
	if len(text) > maxCSR {
		return refused(fmt.Sprintf("is longer than %d characters", maxCSR))
	}
	der, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") { // which the decoder passes over
		return refused("is not base64 in one line (RFC 4648 section 4)")
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return refused("is no certificate request (RFC 2986)")
	}
	if r.CheckSignature() != nil {
		return refused("is not signed with its key")
	}
	var key publicKey
	switch k := r.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return refused("has a key on a curve that is not taken; use P-256")
		}
		key = k
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return refused(fmt.Sprintf("has an RSA key of %d bits; use %d to %d", n, minRSABits, maxRSABits))
		}
		key = k
	case ed25519.PublicKey:
		key = k
	default:
		return refused("has a key of a kind that is not taken; use ECDSA P-256")
	}
	return request{key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.Raw}))}, nil
}

// x509Cert is a certificate as access_token carries it. The key is where it always was.
type x509Cert struct {
	Type        string   `json:"type"`
	Certificate string   `json:"certificate" jsonschema_description:"The certificate, PEM. Its key is where it always was."`
	Chain       []string `json:"chain" jsonschema_description:"Certificates above it, PEM, the issuer first."`
	Serial      string   `json:"serial" jsonschema_description:"Serial number, hexadecimal."`
	Expiration  string   `json:"expiration" jsonschema:"format=date-time" jsonschema_description:"When it ends (RFC 3339)."`
}

// signature is the body of pki/sign/ROLE. Every name is ours; lists are lists, so that nothing in a name can split it.
type signature struct {
	CSR               string   `json:"csr"`
	CommonName        string   `json:"common_name,omitempty"`
	URISANs           []string `json:"uri_sans"`
	TTL               string   `json:"ttl"`
	Format            string   `json:"format"`
	ExcludeCNFromSANs bool     `json:"exclude_cn_from_sans"`
}

// certificate has the key of the request certified with the workload's id as its name.
func (m *mint) certificate(ctx context.Context, t token, r request) (brokers.Credential, error) {
	life, err := m.until(m.deps.Now())
	if err != nil {
		return brokers.Credential{}, err
	}
	const what = "signing the certificate"
	id := m.order.Grant().Workload().ID()
	a, err := m.vault.do(ctx, call{what: what, path: m.scope.PKI.Path, token: t.value, body: signature{
		CSR: r.pem, CommonName: m.scope.PKI.CommonName, URISANs: []string{id}, TTL: fmt.Sprintf("%ds", int64(life/time.Second)), Format: "pem", ExcludeCNFromSANs: true,
	}})
	if err != nil {
		return brokers.Credential{}, err
	}
	var data struct {
		Certificate string   `json:"certificate"`
		Issuing     string   `json:"issuing_ca"`
		Chain       []string `json:"ca_chain"`
		PrivateKey  string   `json:"private_key"`
	}
	if a.Auth != nil || a.WrapInfo != nil || !hasData(a.Data) || json.Unmarshal(a.Data, &data) != nil || data.PrivateKey != "" {
		return brokers.Credential{}, fmt.Errorf("%s: %w: the answer is not that of a signature", what, brokers.ErrMisconfigured)
	}
	chain := data.Chain
	if len(chain) == 0 && data.Issuing != "" {
		chain = []string{data.Issuing}
	}
	cert, err := m.certified(data.Certificate, chain, r, id)
	if err != nil {
		return brokers.Credential{}, fmt.Errorf("%s: %w: %w", what, brokers.ErrMisconfigured, err)
	}
	serial := fmt.Sprintf("%x", cert.SerialNumber)
	value, err := brokers.Object(x509Cert{"x509-cert", data.Certificate, chain, serial, cert.NotAfter.UTC().Format(time.RFC3339)})
	if err != nil {
		return brokers.Credential{}, err
	}
	m.data.Serial = serial
	return brokers.Credential{Type: CertType, TokenType: brokers.NotApplicable, Value: value, Expires: cert.NotAfter}, nil
}

// certified checks a certificate: our key, our names and no others, no longer than the grant, signed by its issuer.
func (m *mint) certified(text string, chain []string, r request, id string) (*x509.Certificate, error) {
	cert, err := parseCertificate(text)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errors.New("it comes without its issuer")
	}
	for i, text := range chain {
		c, err := parseCertificate(text)
		if err != nil {
			return nil, err
		}
		if i == 0 && cert.CheckSignatureFrom(c) != nil {
			return nil, errors.New("its issuer, which comes with it, did not sign it")
		}
	}
	switch {
	case !r.key.Equal(cert.PublicKey):
		return nil, errors.New("it is for another key")
	case len(cert.URIs) != 1 || cert.URIs[0].String() != id:
		return nil, errors.New("its URI is not the workload's id alone; on the role, allowed_uri_sans must cover it, and use_csr_sans be false")
	case len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.IPAddresses) > 0:
		return nil, errors.New("it has names that were not asked for; set use_csr_sans=false on the role")
	case cert.Subject.CommonName != m.scope.PKI.CommonName:
		return nil, errors.New("its common name is another; set use_csr_common_name=false and require_cn=false on the role")
	case cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return nil, errors.New("it is an authority's")
	case cert.NotAfter.After(m.end()):
		return nil, errors.New("it outlives the grant")
	case !cert.NotAfter.After(m.deps.Now()):
		return nil, errors.New("it has expired")
	case cert.NotBefore.After(m.deps.Now().Add(time.Minute)):
		return nil, errors.New("it is not valid yet")
	}
	return cert, nil
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("a certificate is not one PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("a certificate does not parse")
	}
	return cert, nil
}
