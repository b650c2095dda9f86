package kubernetes_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// contract is an API server as its published contract and its source describe it, no more than this broker needs: it
// answers in the same form, and can be told to misbehave. The real one runs in test/kubernetes.
type contract struct {
	*httptest.Server
	CAFile string

	mu       sync.Mutex
	secrets  map[string]map[string]any // by namespace/name
	requests []request
	// refuse may answer with a status before anything is done: its code, and its reason. 0 refuses nothing.
	refuse func(r request) (int, string)
	// spoil may change an answer before it is sent; nil for none.
	spoil func(r request, code int, answer map[string]any) (int, map[string]any)
	// instead answers in the server's place and reports that it did; nil for none.
	instead    func(w http.ResponseWriter, r *http.Request) bool
	finalizers bool // something keeps deleted Secrets
	ahead      time.Duration
	most       int64 // seconds, longest life; 0 for any
}

// request is what the server was asked.
type request struct {
	Method, Path, Query, Accept, Bearer string
	Body                                map[string]any
}

const (
	namespace  = "sallyport-orders"
	accountUID = "5d2f7c1e-6a0b-4a43-9a57-0d2b8a8f1c11"
	login      = "the-login-of-this-service"
	kubeAPI    = "https://kubernetes.default.svc"
)

func newContract(t *testing.T) *contract {
	t.Helper()
	c := &contract{secrets: map[string]map[string]any{}}
	c.Server = httptest.NewUnstartedServer(c)
	c.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that the suite cuts
	c.StartTLS()
	t.Cleanup(c.Close)
	c.CAFile = filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	if err := os.WriteFile(c.CAFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// ServeHTTP implements http.Handler.
func (c *contract) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := request{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Accept: r.Header.Get("Accept"), Bearer: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}
	_ = json.NewDecoder(r.Body).Decode(&req.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, req)
	if c.instead != nil && c.instead(w, r) {
		return
	}
	if c.refuse != nil {
		if code, reason := c.refuse(req); code != 0 {
			code, answer := status(code, reason)
			send(w, code, answer)
			return
		}
	}
	code, answer := c.answer(req, r)
	if c.spoil != nil {
		code, answer = c.spoil(req, code, answer)
	}
	send(w, code, answer)
}

func send(w http.ResponseWriter, code int, answer map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

func status(code int, reason string) (int, map[string]any) {
	return code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": "not repeated: " + login}
}

func (c *contract) answer(req request, r *http.Request) (int, map[string]any) {
	if req.Bearer == "" {
		return status(401, "Unauthorized")
	}
	parts := strings.Split(strings.TrimPrefix(req.Path, "/api/v1/namespaces/"), "/")
	if len(parts) < 2 || parts[0] != namespace && parts[0] != "moved" {
		return status(403, "Forbidden")
	}
	switch {
	case parts[1] == "secrets" && len(parts) == 2 && req.Method == http.MethodPost:
		return c.create(parts[0], req)
	case parts[1] == "secrets" && len(parts) == 2 && req.Method == http.MethodGet:
		return c.list(parts[0], r)
	case parts[1] == "secrets" && len(parts) == 3:
		return c.secret(req.Method, parts[0]+"/"+parts[2])
	case parts[1] == "serviceaccounts" && len(parts) == 4 && parts[3] == "token" && req.Method == http.MethodPost:
		return c.token(parts[0], parts[2], req)
	}
	return status(404, "NotFound")
}

func (c *contract) now() time.Time { return time.Now().Add(c.ahead) }

func (c *contract) create(namespace string, req request) (int, map[string]any) {
	m := req.Body["metadata"].(map[string]any)
	key := namespace + "/" + m["name"].(string)
	if c.secrets[key] != nil {
		return status(409, "AlreadyExists")
	}
	m["uid"], m["creationTimestamp"], m["namespace"] = rand.Text(), c.now().UTC().Format(time.RFC3339), namespace
	c.secrets[key] = m
	return 201, map[string]any{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": maps.Clone(m)}
}

func (c *contract) secret(method, key string) (int, map[string]any) {
	m := c.secrets[key]
	if m == nil {
		return status(404, "NotFound")
	}
	if method == http.MethodDelete {
		if !c.finalizers {
			delete(c.secrets, key)
			return 200, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"}
		}
		if m["deletionTimestamp"] == nil {
			m["deletionTimestamp"] = c.now().UTC().Format(time.RFC3339)
		}
	}
	return 200, map[string]any{"kind": "PartialObjectMetadata", "metadata": maps.Clone(m)}
}

func (c *contract) list(namespace string, r *http.Request) (int, map[string]any) {
	want := map[string]string{}
	for pair := range strings.SplitSeq(r.URL.Query().Get("labelSelector"), ",") {
		k, v, _ := strings.Cut(pair, "=")
		want[k] = v
	}
	var keys []string
	for key, m := range c.secrets {
		labels, _ := m["labels"].(map[string]any)
		match := strings.HasPrefix(key, namespace+"/")
		for k, v := range want {
			match = match && labels[k] == v
		}
		if match {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	to, rest := min(from+limit, len(keys)), ""
	if to < len(keys) {
		rest = strconv.Itoa(to)
	}
	items := []any{}
	for _, key := range keys[from:to] {
		items = append(items, map[string]any{"metadata": c.secrets[key]})
	}
	return 200, map[string]any{"kind": "PartialObjectMetadataList", "metadata": map[string]any{"continue": rest}, "items": items}
}

// token follows pkg/registry/core/serviceaccount/storage/token.go.
func (c *contract) token(namespace, account string, req request) (int, map[string]any) {
	if account != "reader" && account != "writer" {
		return status(404, "NotFound")
	}
	spec := req.Body["spec"].(map[string]any)
	meta, _ := req.Body["metadata"].(map[string]any)
	if uid, ok := meta["uid"]; ok && uid != accountUID {
		return status(409, "Conflict")
	}
	seconds := int64(spec["expirationSeconds"].(float64))
	if seconds < 600 {
		return status(422, "Invalid")
	}
	bound := spec["boundObjectRef"].(map[string]any)
	m := c.secrets[namespace+"/"+bound["name"].(string)]
	if m == nil {
		return status(404, "NotFound")
	}
	if m["uid"] != bound["uid"] {
		return status(409, "Conflict")
	}
	if c.most > 0 {
		seconds = min(seconds, c.most)
	}
	audiences := spec["audiences"]
	if audiences == nil {
		audiences = []any{kubeAPI}
	}
	now := c.now()
	return 201, map[string]any{
		"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": map[string]any{"name": account, "uid": accountUID}, "spec": spec,
		"status": map[string]any{
			"expirationTimestamp": now.Add(time.Duration(seconds) * time.Second).UTC().Format(time.RFC3339),
			"token": jws(map[string]any{
				"iss": kubeAPI, "sub": "system:serviceaccount:" + namespace + ":" + account, "aud": audiences, "jti": rand.Text(),
				"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Duration(seconds) * time.Second).Unix(),
				"kubernetes.io": map[string]any{
					"namespace": namespace, "serviceaccount": map[string]any{"name": account, "uid": accountUID},
					"secret": map[string]any{"name": bound["name"], "uid": bound["uid"]},
				},
			}),
		},
	}
}

// jws has the form of a token; nothing here verifies signatures.
func jws(claims map[string]any) string {
	text, _ := json.Marshal(claims)
	return fmt.Sprintf("%s.%s.%s", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256"}`)), base64.RawURLEncoding.EncodeToString(text), base64.RawURLEncoding.EncodeToString([]byte(rand.Text())))
}

// claimsOf decodes a token.
func claimsOf(token string) map[string]any {
	var out map[string]any
	if parts := strings.Split(token, "."); len(parts) == 3 {
		text, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(text, &out)
	}
	return out
}

// works reports whether the server would take a token now: its Secret stands (TokenReview, without the cache).
func (c *contract) works(token string) bool {
	k, _ := claimsOf(token)["kubernetes.io"].(map[string]any)
	if k == nil {
		return false
	}
	bound := k["secret"].(map[string]any)
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.secrets[fmt.Sprintf("%s/%s", k["namespace"], bound["name"])]
	return m != nil && m["uid"] == bound["uid"]
}

func (c *contract) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.secrets)
}

// asked returns the requests so far.
func (c *contract) asked() []request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// set changes how the server behaves.
func (c *contract) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}
