package verify_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// serve runs a handler until the test ends and returns its URL.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// soon waits for what happens at once unless something is broken.
func soon(t testing.TB, happened <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(20 * time.Second):
		t.Fatalf("it never happened that %s", what)
	}
}

var errNobody = errors.New("there is no bearer")

// nobody is a resource server without a bearer.
func nobody(context.Context) (secret.Value, error) { return secret.Value{}, errNobody }
