package verify_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// serve runs a handler until the test ends and returns its URL.
func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}
