package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
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
