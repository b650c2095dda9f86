package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func parseResponse(text string) (response, error) {
	var r response
	err := r.read(bufio.NewReader(strings.NewReader(text)))
	return r, err
}

func TestResponseRead(t *testing.T) {
	for _, c := range []struct {
		name, text string
		status     int
		body       string
		closes     bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi", false},
		{"length in any case", "HTTP/1.1 400 Bad Request\r\ncontent-LENGTH:3\r\n\r\nbad", 400, "bad", false},
		{"empty body, no reason", "HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", 503, "", false},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", 200, "abc0123456789", false},
		{"closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 200, "x", true},
	} {
		got, err := parseResponse(c.text)
		if err != nil || got.status != c.status || string(got.body) != c.body || got.closes != c.closes {
			t.Errorf("%s: got %d %q closes=%v, error %v", c.name, got.status, got.body, got.closes, err)
		}
	}
}

func TestResponseReadRejects(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct{ name, text string }{
		{"another protocol", "SSH-2.0-x\r\n"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{"status without digits", "HTTP/1.1 2x0 OK\r\nContent-Length: 0\r\n\r\n"},
		{"status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"},
		{"interim answer", "HTTP/1.1 100 Continue\r\n\r\n"},
		{"no length", ok + "Date: x\r\n\r\n"},
		{"negative length", ok + "Content-Length: -1\r\n\r\n"},
		{"length that is not a number", ok + "Content-Length: ten\r\n\r\n"},
		{"length over the limit", ok + "Content-Length: 65537\r\n\r\n"},
		{"other encoding", ok + "Transfer-Encoding: gzip\r\n\r\n"},
		{"header without colon", ok + "nonsense\r\n\r\n"},
		{"endless headers", ok + strings.Repeat("A: b\r\n", 70) + "\r\n"},
		{"chunk size", ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"},
		{"chunk longer than it says", ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"},
		{"chunks over the limit", ok + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("8000\r\n"+strings.Repeat("x", 0x8000)+"\r\n", 3)},
	} {
		if got, err := parseResponse(c.text); err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %d %.20q, error %v; want a complaint about the syntax", c.name, got.status, got.body, err)
		}
	}
}

func TestResponseReadTellsTruncationFromTheEnd(t *testing.T) {
	whole := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for n := 1; n < len(whole); n++ {
		if _, err := parseResponse(whole[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("first %d bytes: got error %v, want unexpected EOF", n, err)
		}
	}
	if _, err := parseResponse(""); err != io.EOF {
		t.Errorf("nothing at all: got error %v, want EOF", err)
	}
}

// TestResponseReadAgreesWithNetHTTP reads what net/http really sends, several answers on one connection.
func TestResponseReadAgreesWithNetHTTP(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 500) // over net/http's buffer, so it goes out chunked
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			io.WriteString(w, long)
		case "/bad":
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "no")
		default:
			io.WriteString(w, "short")
		}
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var r response
	br := bufio.NewReaderSize(conn, 64) // far less than a body
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{{"/long", 200, long}, {"/bad", 400, "no"}, {"/", 200, "short"}, {"/long", 200, long}} {
		if _, err := io.WriteString(conn, "GET "+c.path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := r.read(br); err != nil || r.status != c.status || string(r.body) != c.body {
			t.Fatalf("%s: got %d and %d bytes, error %v; want %d and %d bytes", c.path, r.status, len(r.body), err, c.status, len(c.body))
		}
	}
}

func TestResponseReadAllocatesNothing(t *testing.T) {
	text := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n" + strings.Repeat("x", 20)
	in := strings.NewReader(text)
	br := bufio.NewReader(in)
	var r response
	if got := testing.AllocsPerRun(100, func() {
		in.Reset(text)
		br.Reset(in)
		if err := r.read(br); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("%v allocations for one answer, want none: they would be the load generator's noise", got)
	}
}

func TestAccessToken(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"access_token":"a.b.c","token_type":"Bearer"}`, "a.b.c"},
		{"{\n \"access_token\" : \"x\" }", "x"},
		{`{"access_token":""}`, ""},
		{`{"access_token":null}`, ""},
		{`{"access_token":"cut`, ""},
		{`{"error":"invalid_request"}`, ""},
		{`{"error_description":"no access_token"}`, ""},
		{``, ""},
	} {
		if got := string(accessToken([]byte(c.body))); got != c.want {
			t.Errorf("access token of %s: got %q, want %q", c.body, got, c.want)
		}
	}
}

func FuzzResponseRead(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseResponse(text)
		if err == nil && (r.status < 200 || len(r.body) > maxBody) {
			t.Errorf("accepted status %d with %d bytes", r.status, len(r.body))
		}
		accessToken(r.body)
	})
}
