package sts_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// openAPI is openapi.yaml, loaded once.
var openAPI = sync.OnceValues(func() (*openapi3.T, error) {
	return openapi3.NewLoader().LoadFromFile(filepath.Join("..", "openapi.yaml"))
})

// Events are text to kin-openapi.
func init() {
	for _, kind := range []string{"text/event-stream", statuslist.ContentType} {
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.RegisteredBodyDecoder("text/plain"))
	}
}

// documented names one answer that openapi.yaml describes.
type documented struct {
	method, path string
	status       int
}

func (d documented) String() string { return fmt.Sprintf("%s %s %d", d.method, d.path, d.status) }

// contract is a transport that holds every answer to openapi.yaml: status, every header, body. It fails the
// test on the first word that is not in the document.
type contract struct {
	t    testing.TB
	doc  *openapi3.T
	base string // path of the issuer
	next http.RoundTripper

	mu   sync.Mutex
	seen map[documented]int
	good map[string]bool // answers that conformed, but for date and decision id: kin-openapi compiles schemas anew each time
	log  bytes.Buffer    // every answer, headers and body, but for credentials
}

func newContract(t testing.TB, base string, next http.RoundTripper) *contract {
	t.Helper()
	doc, err := openAPI()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return &contract{t: t, doc: doc, base: base, next: next, seen: map[documented]int{}, good: map[string]bool{}}
}

// RoundTrip implements http.RoundTripper.
func (c *contract) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err := c.check(r, resp, body); err != nil {
		c.t.Errorf("%s %s answered %d against openapi.yaml: %s", r.Method, r.URL.Path, resp.StatusCode, redact(err.Error()))
	}
	return resp, nil
}

func (c *contract) check(r *http.Request, resp *http.Response, body []byte) error {
	path := template(c.path(r.URL.Path))
	c.mu.Lock()
	if path != "/token" || resp.StatusCode != http.StatusOK {
		fmt.Fprintf(&c.log, "%s %s %d %v %s\n", r.Method, r.URL.Path, resp.StatusCode, resp.Header, body)
	}
	c.mu.Unlock()
	item := c.doc.Paths.Value(path)
	if item == nil {
		if resp.StatusCode != http.StatusNotFound {
			return fmt.Errorf("a path that is not documented is answered")
		}
		return c.conforms(r, nil, c.doc.Components.Responses["NotFound"].Value, resp, body)
	}
	method := r.Method
	if method == http.MethodHead && item.Get != nil && path != "/livez" && path != "/readyz" {
		method = http.MethodGet // HEAD is answered like GET
	}
	op := item.GetOperation(method)
	if op == nil { // the 405 of the one operation there is
		if resp.StatusCode != http.StatusMethodNotAllowed {
			return fmt.Errorf("a method that is not documented is answered")
		}
		for method, op = range item.Operations() {
		}
	}
	ref := op.Responses.Status(resp.StatusCode)
	if ref == nil {
		return fmt.Errorf("the status is not documented")
	}
	key := r.Method + path + repeatable(resp, body)
	c.mu.Lock()
	c.seen[documented{method, path, resp.StatusCode}]++
	good := c.good[key]
	c.mu.Unlock()
	if good {
		return nil
	}
	if err := c.conforms(r, op, ref.Value, resp, body); err != nil {
		return err
	}
	c.mu.Lock()
	c.good[key] = true
	c.mu.Unlock()
	return nil
}

// template is the documented path of a path with an id in it.
func template(path string) string {
	dir, id := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case dir == "/status/":
		return dir + "{list}"
	case decisionID.MatchString(id):
		return dir + "{id}"
	}
	return path
}

var decisionID = regexp.MustCompile(`^[a-z2-7]{26}$`)

// repeatable is an answer without what differs between two of its kind: the date, and a well-formed decision id.
func repeatable(resp *http.Response, body []byte) string {
	h := resp.Header.Clone()
	h.Del("Date")
	all := fmt.Sprint(resp.StatusCode, h, string(body))
	if id := h.Get("Sallyport-Decision"); decisionID.MatchString(id) {
		all = strings.ReplaceAll(all, id, "ID")
	}
	return all
}

// path is how openapi.yaml spells a path below the issuer's.
func (c *contract) path(p string) string {
	const inserted = "/.well-known/oauth-authorization-server"
	if c.base == "" {
		return p
	}
	if p == inserted+c.base || p == inserted+c.base+"/assertions" {
		return strings.Replace(p, c.base, "", 1)
	}
	if below, ok := strings.CutPrefix(p, c.base+"/"); ok && p != c.base+inserted {
		return "/" + below
	}
	return "not below the issuer: " + p
}

// transport headers are those of HTTP itself.
var transport = []string{"Date", "Content-Length", "Content-Type", "Connection"}

// conforms checks headers both ways, then the body. kin-openapi checks neither headers nor body of HEAD and
// 304, and knows of no header that is too many.
func (c *contract) conforms(r *http.Request, op *openapi3.Operation, want *openapi3.Response, resp *http.Response, body []byte) error {
	known := slices.Clone(transport)
	for name := range want.Headers {
		known = append(known, http.CanonicalHeaderKey(name))
	}
	for name, values := range resp.Header {
		if !slices.Contains(known, name) {
			return fmt.Errorf("header %s is not documented", name)
		}
		if len(values) != 1 {
			return fmt.Errorf("header %s comes %d times", name, len(values))
		}
	}
	only := &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(200, &openapi3.ResponseRef{Value: want}))}
	asGet := r.Clone(r.Context())
	asGet.Method = http.MethodGet
	headOnly := r.Method == http.MethodHead || resp.StatusCode == http.StatusNotModified
	err := openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: asGet, Route: &routers.Route{Spec: c.doc, Operation: only},
		},
		Status: 200, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, ExcludeResponseBody: headOnly},
	})
	if err != nil {
		return err
	}
	if (headOnly || len(want.Content) == 0) && len(body) > 0 {
		return fmt.Errorf("there is a body where none is documented")
	}
	return nil
}

var tokenLike = regexp.MustCompile(`[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`)

// redact keeps tokens out of test logs: kin-openapi quotes values.
func redact(s string) string { return tokenLike.ReplaceAllString(s, "[token]") }

// answersOf lists what openapi.yaml documents.
func answersOf(doc *openapi3.T) []documented {
	var out []documented
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status := range op.Responses.Map() {
				var n int
				_, _ = fmt.Sscan(status, &n)
				out = append(out, documented{method, path, n})
			}
		}
	}
	slices.SortFunc(out, func(a, b documented) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func TestOpenAPIDocumentIsValid(t *testing.T) {
	t.Parallel()
	doc, err := openAPI()
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Errorf("openapi.yaml: %v", err)
	}
	for _, d := range answersOf(doc) {
		if d.status == 0 {
			t.Errorf("%s: a status is not a number; ranges and default hide what is answered", d)
		}
	}
	for status, codes := range texts {
		for code := range codes {
			if row := fmt.Sprintf("| %d | `%s` |", status, code); !strings.Contains(doc.Info.Description, row) {
				t.Errorf("the table of errors has no row that ends in %s", row)
			}
		}
	}
}

// The checker itself: each of these is one lie about an answer, and none may pass.
func TestContractNoticesAnswersThatAreNotDocumented(t *testing.T) {
	t.Parallel()
	good := func() (*http.Response, string) {
		h := http.Header{}
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("Pragma", "no-cache")
		h.Set("Sallyport-Decision", "7oe4c2mhxw3n5r6tqzjkv4bq5y")
		return &http.Response{StatusCode: 400, Header: h},
			`{"error":"invalid_target","error_description":"The requested target was refused. Decision 7oe4c2mhxw3n5r6tqzjkv4bq5y"}`
	}
	for name, change := range map[string]func(*http.Response, *string){
		"status":            func(r *http.Response, _ *string) { r.StatusCode = 418 },
		"header missing":    func(r *http.Response, _ *string) { r.Header.Del("Pragma") },
		"header wrong":      func(r *http.Response, _ *string) { r.Header.Set("Cache-Control", "no-cache") },
		"header too many":   func(r *http.Response, _ *string) { r.Header.Set("X-Powered-By", "x") },
		"header twice":      func(r *http.Response, _ *string) { r.Header.Add("Pragma", "no-cache") },
		"content type":      func(r *http.Response, _ *string) { r.Header.Set("Content-Type", "text/html") },
		"decision":          func(r *http.Response, _ *string) { r.Header.Set("Sallyport-Decision", "42") },
		"error unknown":     func(_ *http.Response, b *string) { *b = strings.Replace(*b, "invalid_target", "invalid_grant", 1) },
		"text of other row": func(_ *http.Response, b *string) { *b = strings.Replace(*b, "target was", "scope was", 1) },
		"member too many":   func(_ *http.Response, b *string) { *b = strings.Replace(*b, "{", `{"detail":"x",`, 1) },
		"not JSON":          func(_ *http.Response, b *string) { *b = "refused" },
	} {
		c := newContract(t, "", nil)
		req, _ := http.NewRequest(http.MethodPost, "https://sts.example/token", nil)
		resp, body := good()
		if err := c.check(req, resp, []byte(body)); err != nil {
			t.Fatalf("a good answer: %v", err)
		}
		change(resp, &body)
		if err := c.check(req, resp, []byte(body)); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
}
