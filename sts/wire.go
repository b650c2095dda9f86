package sts

import (
	"encoding/json"
	"net/http"
	"net/netip"
)

// decisionHeader carries the decision id on every answer that decided something; an introspection did not.
const decisionHeader = "Sallyport-Decision"

// Refusal is what a caller is told: a row of the table and the decision id under which the operator finds
// the reason. It never carries the reason itself.
type Refusal struct {
	Decision string
	answer   answer
}

// Error implements error with the public text alone.
func (r *Refusal) Error() string { return r.answer.code + ": " + r.description() }

func (r *Refusal) description() string { return r.answer.text + " Decision " + r.Decision }

// write sends the refusal (RFC 6749 section 5.2).
func (r *Refusal) write(w http.ResponseWriter) {
	h := w.Header()
	if r.answer.retryAfter != "" {
		h.Set("Retry-After", r.answer.retryAfter)
	}
	if r.answer.challenge != "" {
		h.Set("WWW-Authenticate", r.answer.challenge)
	}
	writeJSON(w, r.answer.status, r.Decision, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{r.answer.code, r.description()})
}

// writeJSON sends an answer that nobody may store (RFC 6749 section 5.1).
func writeJSON(w http.ResponseWriter, status int, decision string, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"server_error"}`)
	}
	h := w.Header()
	noStore(h)
	h.Set("Content-Type", "application/json")
	if decision != "" {
		h.Set(decisionHeader, decision)
	}
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}

// remote is the peer of the connection. Forwarding headers are not believed.
func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
