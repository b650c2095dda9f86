package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/sallyport-sts/sallyport/sts/config"
)

func (s *service) loadCertificate() error {
	if s.server.TLS.Off {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(s.server.TLS.CertFile, s.server.TLS.KeyFile)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if old := s.cert.Swap(&cert); old != nil && !bytes.Equal(old.Certificate[0], cert.Certificate[0]) {
		s.log.Info().Time("not_after", cert.Leaf.NotAfter).Msg("certificate replaced")
	}
	return nil
}

// tryCertificate loads the certificate, and remembers for /readyz whether it could.
func (s *service) tryCertificate() error {
	err := s.loadCertificate()
	if err == nil {
		s.certErr.Store(nil)
		return nil
	}
	reason := "the new certificate is refused, the old one is served: " + err.Error()
	if old := s.certErr.Swap(&reason); old == nil || *old != reason {
		s.log.Error().Err(err).Msg("certificate refused; the old one is served")
	}
	return err
}

// renewCertificate looks for a new certificate now and then: its files are not among those whose changes are told.
// A pair that does not fit may be half written; the old one is served on, and the next look decides.
func (s *service) renewCertificate() {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	_ = s.tryCertificate() // told
}

func (s *service) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.cert.Load(), nil
}

// certificateEnds is when the certificate that is served ends; zero without TLS.
func (s *service) certificateEnds() time.Time {
	if cert := s.cert.Load(); cert != nil {
		return cert.Leaf.NotAfter
	}
	return time.Time{}
}

// certificateHealth warns of a certificate that ends soon: whoever replaces it should have done so.
func (s *service) certificateHealth() error {
	cert := s.cert.Load()
	if cert == nil {
		return nil
	}
	if why := ending(cert.Leaf, time.Now()); why != "" {
		return errors.New(why)
	}
	return nil
}

// ending says that a certificate is over, or in the last tenth of its life.
func ending(leaf *x509.Certificate, now time.Time) string {
	switch left := leaf.NotAfter.Sub(now); {
	case left <= 0:
		return "the certificate has expired at " + moment(leaf.NotAfter) + ": callers refuse it; put a new one there"
	case now.Before(leaf.NotBefore):
		return "the certificate is valid from " + moment(leaf.NotBefore) + " on: callers refuse it"
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/10:
		return "the certificate ends at " + moment(leaf.NotAfter) + " and was not replaced"
	}
	return ""
}

// certificateWarnings says what callers will not like of the certificate of a configuration that loads.
func certificateWarnings(server config.Server, now time.Time) []string {
	if server.TLS.Off {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(server.TLS.CertFile, server.TLS.KeyFile)
	if err != nil {
		return []string{"tls: " + err.Error()}
	}
	var out []string
	if u, err := url.Parse(server.Issuer); err == nil {
		if err := cert.Leaf.VerifyHostname(u.Hostname()); err != nil {
			out = append(out, fmt.Sprintf("tls.cert_file is not for %s, the host of issuer (%v): callers that reach this server there refuse it", visible(u.Hostname()), err))
		}
	}
	if why := ending(cert.Leaf, now); why != "" {
		out = append(out, "tls.cert_file: "+why)
	}
	return out
}
