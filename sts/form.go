package sts

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Limits of a request body.
const (
	maxBody  = 64 << 10 // bytes; a subject and an actor token of 16 KiB, percent-encoded, fit
	maxPairs = 64       // parameters; RFC 8693 defines nine, two of which may repeat
)

// readForm reads a form body by the rules of RFC 6749 section 3.2: the body alone, never the query string;
// one media type, UTF-8, bounded, no NUL. Values are as sent; [single] and [repeated] read them.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, fmt.Errorf("%w: content type is not application/x-www-form-urlencoded", ErrForm)
	}
	if cs, ok := params["charset"]; ok && !strings.EqualFold(cs, "utf-8") {
		return nil, fmt.Errorf("%w: charset is not UTF-8", ErrForm)
	}
	if r.Header.Get("Content-Encoding") != "" {
		return nil, fmt.Errorf("%w: content encodings are not accepted", ErrForm)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, fmt.Errorf("%w: body is over %d bytes", ErrTooLarge, maxBody)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: body ended early", ErrForm)
	}
	if strings.Count(string(body), "&") >= maxPairs {
		return nil, fmt.Errorf("%w: over %d parameters", ErrForm, maxPairs)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fmt.Errorf("%w: body is not form-encoded", ErrForm)
	}
	for name, values := range form {
		for _, s := range append(values, name) {
			if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
				return nil, fmt.Errorf("%w: a parameter has a NUL or invalid UTF-8", ErrForm)
			}
		}
	}
	return form, nil
}

// single returns a parameter that must not repeat, not even with an empty twin (RFC 6749 section 3.2).
// An empty value counts as absent.
func single(form url.Values, name string) (string, error) {
	values := form[name]
	if len(values) > 1 {
		return "", fmt.Errorf("%w: parameter %s is repeated", ErrForm, name)
	}
	if len(values) == 0 {
		return "", nil
	}
	return values[0], nil
}

// repeated returns the non-empty values of a parameter that may repeat (RFC 8693 section 2.1).
func repeated(form url.Values, name string) []string {
	var out []string
	for _, v := range form[name] {
		if v != "" {
			out = append(out, v)
		}
	}
	return out
}
