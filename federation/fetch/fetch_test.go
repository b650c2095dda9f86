package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

var lab = Network{AllowPrivate: true, AllowHTTP: true}

func get(t *testing.T, n Network, url string) (Document, error) {
	t.Helper()
	client, err := New(n)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return Get(t.Context(), client, url)
}

func serve(t *testing.T, f http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

func TestGet(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Accept-Encoding", "Cookie", "Authorization", "Referer"} {
			if v := r.Header.Get(h); v != "" {
				t.Errorf("request has %s: %s", h, v)
			}
		}
		w.Header().Set("Cache-Control", "public, max-age=300")
		_, _ = io.WriteString(w, strings.Repeat("x", MaxBody))
	})
	doc, err := get(t, lab, url)
	if err != nil || len(doc.Body) != MaxBody || doc.MaxAge != 5*time.Minute {
		t.Errorf("got %d bytes for %s, %v", len(doc.Body), doc.MaxAge, err)
	}
}

// The addresses of standards 4.9, and the disguises that IPv6 has for them.
func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		address          string
		public, allowing bool
	}{
		{"93.184.216.34", true, true}, {"2606:2800:220:1::1", true, true}, {"192.0.2.10", true, true}, {"172.32.0.1", true, true},
		{"127.0.0.1", false, true}, {"127.8.8.8", false, true}, {"::1", false, true},
		{"10.0.0.1", false, true}, {"172.16.0.1", false, true}, {"172.31.255.255", false, true}, {"192.168.1.1", false, true},
		{"100.64.0.1", false, true}, {"100.127.255.255", false, true}, {"fc00::1", false, true}, {"fd12:3456::1", false, true},
		{"::ffff:127.0.0.1", false, true}, {"::ffff:10.0.0.1", false, true},
		{"169.254.169.254", false, false}, {"169.254.0.1", false, false}, {"fe80::1", false, false}, {"fe80::1%eth0", false, false},
		{"::ffff:169.254.169.254", false, false}, {"fd00:ec2::254", false, false}, {"100.100.100.200", false, false},
		{"192.0.0.192", false, false}, {"168.63.129.16", false, false}, {"fd20:ce::254", false, false},
		{"0.0.0.0", false, false}, {"0.1.2.3", false, false}, {"::", false, false}, {"224.0.0.1", false, false}, {"ff02::1", false, false},
		{"255.255.255.255", false, false}, {"240.0.0.1", false, false}, {"198.18.0.1", false, false},
		{"64:ff9b::7f00:1", false, false}, {"64:ff9b::a9fe:a9fe", false, false}, {"2002:7f00:1::", false, false},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", false, false}, {"::127.0.0.1", false, false}, {"fec0::1", false, false},
		{"::ffff:0:127.0.0.1", false, false},
	} {
		a := netip.MustParseAddr(tc.address)
		if got := (Network{}).allows(a); got != tc.public {
			t.Errorf("%s allowed by default: %v, want %v", a, got, tc.public)
		}
		if got := (Network{AllowPrivate: true}).allows(a); got != tc.allowing {
			t.Errorf("%s allowed with allow_private: %v, want %v", a, got, tc.allowing)
		}
	}
}

func TestPrivateAddressIsNotDialled(t *testing.T) {
	var asked atomic.Int32
	address := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		u, _ := url.Parse(address)
		u.Host = host + ":" + u.Port()
		if _, err := get(t, Network{AllowHTTP: true}, u.String()); !errors.Is(err, ErrAddress) {
			t.Errorf("%s: %v, want ErrAddress", host, err)
		}
	}
	if asked.Load() != 0 {
		t.Error("a private address was asked")
	}
}

// A name that is public when it is looked at and private when it is dialled gains nothing: the address is
// checked as it is dialled. The DNS server answers public first, loopback from then on.
func TestRebindingNameIsNotDialled(t *testing.T) {
	var asked, queries atomic.Int32
	address := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	resolver := rebindingResolver(t, &queries)
	client, err := Network{AllowHTTP: true}.client(resolver)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := resolver.LookupNetIP(t.Context(), "ip4", "rebind.example"); err != nil || !(Network{}).allows(a[0]) {
		t.Fatalf("the first look sees %v, %v; want a public address", a, err)
	}
	u, _ := url.Parse(address)
	u.Host = "rebind.example:" + u.Port()
	if _, err := Get(t.Context(), client, u.String()); !errors.Is(err, ErrAddress) {
		t.Errorf("rebinding name: %v, want ErrAddress", err)
	}
	if asked.Load() != 0 || queries.Load() < 2 {
		t.Errorf("loopback was asked %d times after %d queries", asked.Load(), queries.Load())
	}
}

func rebindingResolver(t *testing.T, queries *atomic.Int32) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				a := [4]byte{93, 184, 216, 34}
				if queries.Add(1) > 1 {
					a = [4]byte{127, 0, 0, 1}
				}
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: a},
				}}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestSchemes(t *testing.T) {
	for _, tc := range []struct {
		url         string
		plain, http error
	}{
		{"https://a.example/x", nil, nil},
		{"https://a.example:8443/x?y=z", nil, nil},
		{"http://a.example", ErrScheme, nil},
		{"file:///etc/passwd", ErrScheme, ErrScheme},
		{"ftp://a.example", ErrScheme, ErrScheme},
		{"//a.example", ErrScheme, ErrScheme},
		{"", ErrScheme, ErrScheme},
		{"https://user@a.example", ErrURL, ErrURL},
		{"https://a.example/#x", ErrURL, ErrURL},
		{"https:///x", ErrURL, ErrURL},
		{"https:a.example", ErrURL, ErrURL},
	} {
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Network{}).CheckURL(u); !errors.Is(err, tc.plain) {
			t.Errorf("%s: %v, want %v", tc.url, err, tc.plain)
		}
		if err := (Network{AllowHTTP: true}).CheckURL(u); !errors.Is(err, tc.http) {
			t.Errorf("%s with allow_http: %v, want %v", tc.url, err, tc.http)
		}
	}
}

// Whatever a server answers, it gets no second request, no unbounded read, and none of its words into an
// error.
func TestBadAnswers(t *testing.T) {
	const body = "internal-answer"
	var elsewhere atomic.Int32
	target := serve(t, func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) })
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 8<<20))
	_ = z.Close()
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		want   error
	}{
		{"redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, target+"/"+body, http.StatusFound) }, ErrRedirect},
		{"permanent redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target+"/"+body, http.StatusPermanentRedirect)
		}, ErrRedirect},
		{"not modified", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, ErrRedirect},
		{"404", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, http.StatusNotFound) }, ErrStatus},
		{"500", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, http.StatusInternalServerError) }, ErrStatus},
		{"204", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, ErrStatus},
		{"one byte too many", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush() // no Content-Length
			_, _ = io.WriteString(w, strings.Repeat("x", MaxBody+1))
		}, ErrTooLarge},
		{"announced too many", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "999999999") }, ErrTooLarge},
		{"gzip bomb", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		}, ErrEncoding},
	} {
		_, err := get(t, lab, serve(t, tc.answer))
		if !errors.Is(err, tc.want) || Reason(err) != tc.want.Error() {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), body) {
			t.Errorf("%s: error %v repeats the answer", tc.name, err)
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, Network{AllowPrivate: true, CAFile: ca}, s.URL); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	_, err := get(t, Network{AllowPrivate: true}, s.URL)
	if Reason(err) != "server certificate does not verify" {
		t.Errorf("without its authority: %v", err)
	}
	old := httptest.NewUnstartedServer(s.Config.Handler)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10, Certificates: s.TLS.Certificates}
	old.StartTLS()
	defer old.Close()
	if _, err := get(t, Network{AllowPrivate: true, CAFile: ca}, old.URL); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	for name, content := range map[string]string{"missing": "", "no PEM": "x"} {
		path := filepath.Join(t.TempDir(), "bad.pem")
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := New(Network{CAFile: path}); err == nil {
			t.Errorf("ca_file %s: accepted", name)
		}
	}
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	var proxied atomic.Int32
	proxy := serve(t, func(http.ResponseWriter, *http.Request) { proxied.Add(1) })
	for _, v := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"} {
		t.Setenv(v, proxy)
	}
	client, err := New(lab)
	if err != nil {
		t.Fatal(err)
	}
	if client.Transport.(*guard).base.(*http.Transport).Proxy != nil || client.Jar != nil {
		t.Error("client has a proxy or a cookie jar")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, _ = Get(ctx, client, "http://192.0.2.1/")
	if proxied.Load() != 0 {
		t.Error("the environment's proxy was asked")
	}
}

func TestMaxAge(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"": 0, "max-age=60": time.Minute, "public, Max-Age=3600, immutable": time.Hour, `max-age="60"`: time.Minute,
		"max-age=60, no-store": 0, "no-cache": 0, "max-age=-1": 0, "max-age=x": 0, "max-age=99999999999999999999": 0, "s-maxage=60": 0,
	} {
		if got := maxAge(http.Header{"Cache-Control": {header}}); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func TestLimitsOfDesign(t *testing.T) {
	client, err := New(Network{})
	if err != nil {
		t.Fatal(err)
	}
	base := client.Transport.(*guard).base.(*http.Transport)
	if client.Timeout != 10*time.Second || ConnectTimeout != 3*time.Second || MaxBody != 512<<10 ||
		base.TLSHandshakeTimeout != 3*time.Second || !base.DisableCompression || base.TLSClientConfig.MinVersion != tls.VersionTLS12 {
		t.Error("limits differ from design section 6")
	}
}

// What CheckURL refuses is not sent either: a caller that forgets to check is stopped by the client itself.
func TestRefusedURLIsNotAsked(t *testing.T) {
	var asked atomic.Int32
	address := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	if _, err := get(t, Network{AllowPrivate: true}, address); !errors.Is(err, ErrScheme) {
		t.Errorf("plain http without allow_http: %v, want ErrScheme", err)
	}
	if asked.Load() != 0 {
		t.Error("the server was asked")
	}
}
