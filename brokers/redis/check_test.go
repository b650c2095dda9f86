package redis_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

// word is one well-formed rule of a command.
var word = regexp.MustCompile(`^[+-](@[a-z]+|[a-z.-]+(\|[a-z]+)?)$`)

func TestUnsafeSettingsAreRefused(t *testing.T) {
	t.Parallel()
	garbage := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(garbage, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	const password = "p4ss-word"
	good := "rediss://sallyport:" + password + "@redis-1.example:6379"
	for _, tc := range []struct {
		name   string
		urls   []string
		change func(*redis.Settings)
		scopes map[string]any
		path   string // "" for accepted
		text   string
	}{
		{name: "TLS", urls: []string{good, "rediss://sallyport:" + password + "@redis-2.example:6379/"}},
		{name: "loopback", urls: []string{"redis://sallyport:" + password + "@127.0.0.1:6379", "redis://sallyport:" + password + "@[::1]:6379"}},
		{name: "socket", urls: []string{"unix://sallyport:" + password + "@/run/redis/redis.sock"}},
		{name: "plain, by their word", urls: []string{"redis://sallyport:" + password + "@redis-1.example"}, change: func(s *redis.Settings) { s.AllowPlaintext = true }},
		{name: "plain", urls: []string{good, "redis://sallyport:" + password + "@redis-2.example:6379"}, path: "urls[1]", text: "allow_plaintext"},
		{name: "no verification", urls: []string{good + "?skip_verify=true"}, path: "urls[0]", text: "parameters"},
		{name: "a database", urls: []string{good + "/3"}, path: "urls[0]", text: "database"},
		{name: "the same node twice", urls: []string{good, "rediss://other:" + password + "@redis-1.example:6379/"}, path: "urls[1]", text: "each node once"},
		{name: "no URL", urls: []string{"sallyport:" + password + "@redis-1.example:6379"}, path: "urls[0]", text: "rediss://"},
		{name: "no host", urls: []string{"rediss://sallyport:" + password + "@:6379"}, path: "urls[0]", text: "rediss://"},
		{name: "another scheme", urls: []string{"http://sallyport:" + password + "@redis-1.example:6379"}, path: "urls[0]", text: "rediss://"},
		{name: "a broken URL", urls: []string{"rediss://sallyport:" + password + "%zz@redis-1.example:6379"}, path: "urls[0]", text: "rediss://"},
		{name: "no authority", urls: []string{good}, change: func(s *redis.Settings) { s.CAFile = "/nowhere/ca.pem" }, path: "ca_file", text: "no such file"},
		{name: "garbage for an authority", urls: []string{good}, change: func(s *redis.Settings) { s.CAFile = garbage }, path: "ca_file", text: "no PEM"},
		{name: "no nodes", change: func(s *redis.Settings) { s.URLs = nil }, path: "urls"},
		{name: "no endpoints", urls: []string{good}, change: func(s *redis.Settings) { s.Endpoints = nil }, path: "endpoints"},
		{name: "endpoint in the clear", urls: []string{good}, change: func(s *redis.Settings) { s.Endpoints = []string{"redis://redis.example:6379/0"} }, path: "endpoints[0]", text: "in the clear"},
		{name: "endpoint with a password", urls: []string{good}, change: func(s *redis.Settings) { s.Endpoints = []string{"rediss://x:" + password + "@redis.example:6379/0"} }, path: "endpoints[0]", text: "not repeated"},
		{name: "endpoint with parameters", urls: []string{good}, change: func(s *redis.Settings) { s.Endpoints = []string{"rediss://redis.example:6379/0?skip_verify=true"} }, path: "endpoints[0]"},
		{name: "endpoint with a quote", urls: []string{good}, change: func(s *redis.Settings) { s.Endpoints = []string{`rediss://redis.example:6379/0"`} }, path: "endpoints[0]"},
		{name: "other endpoints", urls: []string{good}, change: func(s *redis.Settings) {
			s.Endpoints = []string{"rediss://redis.example:6379/15", "rediss://[2001:db8::1]:6379", "unix:///run/redis.sock", "redis://localhost"}
		}},
		{name: "no scopes", urls: []string{good}, scopes: map[string]any{}, path: "scopes.", text: "no scopes"},
	} {
		s := settings(tc.urls...)
		if tc.change != nil {
			tc.change(s)
		}
		if tc.scopes == nil {
			tc.scopes = scopes()
		}
		problems := redis.Kind().Check(targetOf(tc.urls...), s, tc.scopes)
		switch {
		case tc.path == "" && len(problems) > 0:
			t.Errorf("%s: refused: %v", tc.name, problems)
		case tc.path != "" && (len(problems) != 1 || problems[0].Path != tc.path || !strings.Contains(problems[0].Message, tc.text)):
			t.Errorf("%s: got %v, want one problem at %s with %q", tc.name, problems, tc.path, tc.text)
		}
		for _, p := range problems {
			if strings.Contains(p.Message, password) {
				t.Errorf("%s: the message repeats the password: %s", tc.name, p.Message)
			}
		}
	}
}

func TestNodesAreReachedOverVerifiedTLS(t *testing.T) {
	dir := t.TempDir()
	if err := brokertest.WriteCertificates(dir, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	n, err := redistest.StartNode("port 0", "tls-port "+port, "tls-auth-clients no",
		"tls-ca-cert-file "+filepath.Join(dir, "ca.pem"), "tls-cert-file "+filepath.Join(dir, "server.pem"), "tls-key-file "+filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	url := "rediss://:" + n.Password + "@127.0.0.1:" + port
	o := order(t, "read")
	for caFile, want := range map[string]error{"": brokers.ErrUnavailable, filepath.Join(dir, "ca.pem"): nil} {
		s := settings(url)
		s.CAFile = caFile
		b := build(t, s, scopes(), url)
		if _, err := b.Mint(t.Context(), o); !errors.Is(err, want) {
			t.Errorf("with ca_file %q: %v, want %v", caFile, err, want)
		}
		if want != nil {
			continue
		}
		if r, err := b.Revoke(t.Context(), brokertest.HandleOf(o, secret.Value{})); err != nil || r.Gone {
			t.Errorf("%+v, %v", r, err)
		}
	}
}
