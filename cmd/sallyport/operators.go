package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/operator"
)

// buildAuthority compiles who may respond over the network, and names where the keys of people's issuers come from.
func (s *service) buildAuthority(set *config.Set) (*operator.Authority, []federation.KeySpec, error) {
	a := &operator.Authority{Roles: set.Operators.Roles, Second: set.Operators.Second, Same: set.Operators.Same}
	if len(set.Operators.People) == 0 {
		return a, nil, nil
	}
	list := make([]federation.Issuer, len(set.Operators.People))
	specs := make([]federation.KeySpec, len(list))
	for i, is := range set.Operators.People {
		source, err := s.keyCache.Source(is.Keys)
		if err != nil {
			return nil, nil, fmt.Errorf("keys of people/%s: %w", is.Name, err)
		}
		list[i], specs[i] = is.Issuer, is.Keys
		list[i].Keys = source
	}
	var err error
	a.People, err = federation.NewTrust(list, nil) // nothing that was minted here makes an operator
	return a, specs, err
}

// clientAuthorities reads who signs operators' certificates; nil for nobody.
func clientAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("operators.yaml: client_ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("operators.yaml: client_ca_file has no PEM certificate in it")
	}
	return pool, nil
}

// operatorsTLS asks for a client certificate and verifies one that is given, for client authentication and against the
// operators' own authorities alone.
func (s *service) operatorsTLS(pool *x509.CertPool) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificate}
	if pool != nil {
		c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, pool
	}
	return c
}

// remoteAdmin lets those through who are known, and says nothing to the others. Who was refused is in the server's log, not in
// the audit log: strangers cannot fill that.
func (s *service) remoteAdmin() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var chain []*x509.Certificate
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			chain = r.TLS.VerifiedChains[0]
		}
		var token secret.Value
		if kind, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(kind, "Bearer") {
			token = secret.New(strings.TrimSpace(value))
		}
		o, err := s.authority.Load().Authenticate(r.Context(), chain, token, time.Now())
		if err != nil {
			s.log.Warn().Err(err).Str("remote", r.RemoteAddr).Msg("an operator was refused")
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"error":"no operator: the client certificate or token that was presented is of nobody with a role in operators.yaml, or none was presented; the server's log says which"}`))
			return
		}
		s.admin.ServeHTTP(w, r.WithContext(operator.With(r.Context(), o)))
	})
}
