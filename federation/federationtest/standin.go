package federationtest

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// GitHub is a stand-in for the endpoint where jobs of GitHub Actions get their tokens. It is a fake: it knows of GitHub
// what its documentation says, and nobody's job runs here. The issuer signs for real.
type GitHub struct {
	issuer *Issuer
	server *httptest.Server

	mu   sync.Mutex
	jobs map[string]Claims // by bearer
}

// NewGitHub starts the stand-in on loopback. It stops with the test.
func NewGitHub(t testing.TB, issuer *Issuer) *GitHub {
	t.Helper()
	g := &GitHub{issuer: issuer, jobs: make(map[string]Claims)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /idtoken", g.token)
	g.server = httptest.NewServer(mux)
	t.Cleanup(g.server.Close)
	return g
}

// Job returns the environment of one job, whose tokens have these claims beside those that the endpoint sets.
func (g *GitHub) Job(claims Claims) []string {
	bearer := rand.Text()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.jobs[bearer] = claims
	return []string{
		"ACTIONS_ID_TOKEN_REQUEST_URL=" + g.server.URL + "/idtoken?api-version=2.0", // has a query already
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + bearer,
	}
}

// token answers as the real endpoint does: the token of the job whose bearer this is, for the audience asked for.
func (g *GitHub) token(w http.ResponseWriter, r *http.Request) {
	scheme, bearer, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	g.mu.Lock()
	claims, ok := g.jobs[bearer]
	g.mu.Unlock()
	if !ok || !strings.EqualFold(scheme, "bearer") {
		http.Error(w, "no job has this token", http.StatusUnauthorized)
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" {
		owner, _ := claims["repository_owner"].(string)
		audience = "https://github.com/" + owner
	}
	g.issuer.answer(w, map[string]any{"count": 1, "value": g.issuer.Sign(GitHubClaims(g.issuer, claims, audience, time.Now())).Reveal()})
}

// GitHubClaims are the claims of one job's token with the times that GitHub gives it: five minutes, and nbf ten minutes
// before iat. The job's own claims win.
func GitHubClaims(issuer *Issuer, job Claims, audience string, now time.Time) Claims {
	out := Claims{
		"iss": issuer.URL(), "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-10 * time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	for name, value := range job {
		out[name] = value
	}
	return out
}

// GitLabJob returns the environment of a job of GitLab CI: one variable for each entry of id_tokens, name to aud. It is
// a stand-in for what the server does when a job starts, and signs for real. The tokens live as long as the job may.
func GitLabJob(issuer *Issuer, claims Claims, idTokens map[string]string, timeout time.Duration, now time.Time) []string {
	env := []string{"CI=true", "GITLAB_CI=true", "CI_SERVER_URL=" + issuer.URL()}
	for name, audience := range idTokens {
		env = append(env, name+"="+issuer.Sign(GitLabClaims(issuer, claims, audience, timeout, now)).Reveal())
	}
	return env
}

// GitLabClaims are the claims of one of a job's id_tokens. The job's own claims win.
func GitLabClaims(issuer *Issuer, job Claims, audience string, timeout time.Duration, now time.Time) Claims {
	out := Claims{
		"iss": issuer.URL(), "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-5 * time.Second).Unix(), "exp": now.Add(timeout).Unix(),
	}
	for name, value := range job {
		out[name] = value
	}
	return out
}
