package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Client speaks plain REST to one API server. client-go would do the same with a hundred more packages to
// compile, and would hide the status codes that the tests are about. A Client may be used concurrently.
type Client struct {
	base   string
	bearer string
	http   *http.Client
}

// StatusError is an answer other than 2xx.
type StatusError struct {
	Method, Path string
	Code         int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.Method, e.Path, e.Code, e.Body)
}

// Answers are read up to this many bytes; the largest that a test wants is a list of a few kilobytes.
const maxAnswer = 1 << 20

func newClient(base string, roots *x509.CertPool, bearer string) *Client {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DisableKeepAlives: true, // a client is made per identity and never closed
	}
	return &Client{base: base, bearer: bearer, http: &http.Client{Transport: transport, Timeout: 15 * time.Second}}
}

// Do sends one request with in as its JSON body and decodes the answer into out; each may be nil. An answer
// other than 2xx is a [*StatusError].
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var data []byte
	if in != nil {
		var err error
		if data, err = json.Marshal(in); err != nil {
			return fmt.Errorf("%s %s: encoding the body: %w", method, path, err)
		}
	}
	return c.send(ctx, method, path, "application/json", data, out)
}

// Apply creates the object that a YAML manifest describes, as kubectl create does.
func (c *Client) Apply(ctx context.Context, path, manifest string) error {
	return c.send(ctx, http.MethodPost, path, "application/yaml", []byte(manifest), nil)
}

func (c *Client) send(ctx context.Context, method, path, contentType string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: reading the answer: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &StatusError{Method: method, Path: path, Code: resp.StatusCode, Body: string(data)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: decoding the answer: %w", method, path, err)
	}
	return nil
}
