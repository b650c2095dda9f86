package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/sts/audit"
)

const (
	githubURL = "https://token.actions.githubusercontent.com"
	gitlabURL = "https://gitlab.com"
)

// githubJob is the job that deploy/github is about.
var githubJob = federationtest.Claims{
	"sub":        "repo:acme@4711/shop@90210:environment:production",
	"repository": "acme/shop", "repository_id": "90210", "repository_owner": "acme", "repository_owner_id": "4711",
	"repository_visibility": "private", "ref": "refs/heads/main", "ref_type": "branch", "sha": "9f31", "event_name": "push",
	"base_ref": "", "head_ref": "", "actor": "mona", "actor_id": "583231", "environment": "production",
	"runner_environment": "github-hosted", "workflow": "release",
	"workflow_ref":     "acme/shop/.github/workflows/release.yaml@refs/heads/main",
	"job_workflow_ref": "acme/shop/.github/workflows/release.yaml@refs/heads/main", "job_workflow_sha": "11cc",
	"run_id": "8001", "run_number": "12", "run_attempt": "1",
}

// gitlabJob is the job that deploy/gitlab is about.
var gitlabJob = federationtest.Claims{
	"sub":          "project_path:acme/pay/api:ref_type:branch:ref:main",
	"namespace_id": "72", "namespace_path": "acme/pay", "project_id": "20", "project_path": "acme/pay/api",
	"job_namespace_id": "72", "job_namespace_path": "acme/pay", "job_project_id": "20", "job_project_path": "acme/pay/api",
	"user_id": "9", "user_login": "kim", "user_access_level": "maintainer", "pipeline_id": "574", "pipeline_source": "push", "job_id": "302",
	"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true",
	"environment": "production", "environment_protected": "true", "runner_id": 4, "runner_environment": "gitlab-hosted", "sha": "714a",
}

// platformDeployment is a deployment with the samples of deploy/<name>, as they stand there but for the address of this
// service and for the keys, which come from a file: the issuer signs like the platform and is not it.
func platformDeployment(t *testing.T, name, issuerURL string) (*deployment, *federationtest.Issuer) {
	t.Helper()
	d := newDeployment(t)
	issuer := federationtest.NewNamed(t, issuerURL, jose.RS256)
	d.write("keys/platform.json", string(issuer.JWKS()), 0o644)
	for _, folder := range []string{"trust", "targets", "policy"} {
		from := filepath.Join("../../deploy", name, folder)
		entries, err := os.ReadDir(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			raw, err := os.ReadFile(filepath.Join(from, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.ReplaceAll(string(raw), "audiences: [https://sts.example]", "audiences: ["+d.url+"]\n    keys: {jwks_file: keys/platform.json}")
			d.write(filepath.Join(folder, e.Name()), text, 0o644)
		}
	}
	return d, issuer
}

// script returns what the one step of a sample job runs.
func sampleScript(t *testing.T, path string, find func(doc any) any) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := yaml.Load(raw, &doc); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	text, ok := find(doc).(string)
	if !ok {
		t.Fatalf("%s has no script where one is expected", path)
	}
	return text
}

// at walks into a document.
func at(doc any, path ...any) any {
	for _, p := range path {
		switch x := doc.(type) {
		case map[string]any:
			name, _ := p.(string)
			doc = x[name]
		case []any:
			i, _ := p.(int)
			doc = x[i]
		default:
			return nil
		}
	}
	return doc
}

// runJob runs a job's script as a runner does and returns the credential that it left.
func runJob(t *testing.T, script string, env ...string) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"RUNNER_TEMP=" + dir}, env...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the job: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "credential.json"))
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(raw, &body); err != nil || body.AccessToken == "" {
		t.Fatalf("the job's credential has no access token (%v)", err)
	}
	return body.AccessToken
}

// The sample workflow, run by bash and curl: a token from the (stand-in) endpoint of GitHub, a credential from Sallyport.
func TestGitHubJobGetsACredential(t *testing.T) {
	t.Parallel()
	d, issuer := platformDeployment(t, "github", githubURL)
	p := d.start()
	script := sampleScript(t, "../../deploy/github/workflow.yaml", func(doc any) any { return at(doc, "jobs", "release", "steps", 0, "run") })
	job := federationtest.NewGitHub(t, issuer).Job(githubJob)
	runJob(t, script, append(job, "SALLYPORT="+d.url)...)
	p.stop()
	wantIssuedTo(t, d, "spiffe://ci.example/github/owner/4711/repository/90210")
}

// The sample job of GitLab CI, with the variable that (a stand-in of) GitLab puts there.
func TestGitLabJobGetsACredential(t *testing.T) {
	t.Parallel()
	d, issuer := platformDeployment(t, "gitlab", gitlabURL)
	p := d.start()
	script := sampleScript(t, "../../deploy/gitlab/gitlab-ci.yaml", func(doc any) any { return at(doc, "release", "script", 0) })
	job := federationtest.GitLabJob(issuer, gitlabJob, map[string]string{"STS_TOKEN": d.url}, time.Hour, time.Now())
	runJob(t, script, append(job, "SALLYPORT="+d.url)...)
	p.stop()
	wantIssuedTo(t, d, "spiffe://ci.example/gitlab/namespace/72/project/20")
}

func wantIssuedTo(t *testing.T, d *deployment, workload string) {
	t.Helper()
	for _, r := range d.records() {
		if r.Subject != nil && r.Subject.Workload == workload && r.Granted != nil {
			return
		}
	}
	t.Errorf("the audit log has no credential for %s", workload)
}

// trap is one way in which tokens of a platform were taken for others.
type trap struct {
	name   string
	change federationtest.Claims // of the job's own token; nil values are left out
	code   string                // error on the wire
	why    string                // in the audit record
}

// Why tokens are refused before any key is asked. The audit log counts such attempts; few have a record of their own.
const (
	notForUs   = "aud "
	notTrusted = "issuer is not trusted"
	expired    = "expired"
)

// Each of what `issuers/github` says of the platform, over HTTP, against the sample configuration.
func TestTrapsOfGitHubAreRefused(t *testing.T) {
	t.Parallel()
	d, issuer := platformDeployment(t, "github", githubURL)
	d.start()
	now := time.Now()
	sign := func(c federationtest.Claims) string {
		return issuer.Sign(withoutNil(federationtest.GitHubClaims(issuer, c, d.url, now))).Reveal()
	}
	runTraps(t, d, githubJob, sign, []trap{
		{"another customer of github.com", federationtest.Claims{"repository_owner_id": "666"}, "invalid_request", "another tenant's token"},
		{"repository deleted and its name taken by another", federationtest.Claims{"repository_id": "666"}, "invalid_target", "repository_id"},
		{"owner renamed and the name taken by another", federationtest.Claims{"repository_owner_id": "666", "repository_id": "666", "repository_owner": "acme"}, "invalid_request", "another tenant's token"},
		{"sub reshaped to that of another repository", federationtest.Claims{"sub": "repo:acme@4711/shop@90210:environment:production", "repository": "acme/evil", "repository_id": "666"}, "invalid_target", "repository_id"},
		{"pull_request", federationtest.Claims{"event_name": "pull_request", "ref": "refs/pull/7/merge"}, "invalid_target", ""},
		{"pull_request_target carries the base branch", federationtest.Claims{"event_name": "pull_request_target"}, "invalid_target", "nothing-for-foreign-code"},
		{"workflow_run carries the base branch", federationtest.Claims{"event_name": "workflow_run"}, "invalid_target", "nothing-for-foreign-code"},
		{"environment's name on another branch", federationtest.Claims{"ref": "refs/heads/mine"}, "invalid_target", "ref"},
		{"tag of the branch's name", federationtest.Claims{"ref": "refs/tags/main", "ref_type": "tag"}, "invalid_target", "ref"},
		{"branch without the environment", federationtest.Claims{"environment": nil}, "invalid_target", "environment"},
		{"reusable workflow at another reference", federationtest.Claims{"job_workflow_ref": "acme/shop/.github/workflows/release.yaml@refs/heads/mine"}, "invalid_target", "job_workflow_ref"},
		{"another workflow of the repository", federationtest.Claims{"job_workflow_ref": "acme/shop/.github/workflows/lint.yaml@refs/heads/main", "workflow": "release"}, "invalid_target", "job_workflow_ref"},
		{"self-hosted runner", federationtest.Claims{"runner_environment": "self-hosted"}, "invalid_target", "runner_environment"},
		{"ids that are numbers", federationtest.Claims{"repository_id": 90210}, "invalid_request", "wrong type"},
		{"no run", federationtest.Claims{"run_id": nil}, "invalid_request", "run_id"},
		{"the audience that nobody chose", federationtest.Claims{"aud": "https://github.com/acme"}, "invalid_request", notForUs},
		{"an audience beside ours", federationtest.Claims{"aud": []string{d.url, "https://other.example"}}, "invalid_request", notForUs},
		{"enterprise issuer that is not configured", federationtest.Claims{"iss": githubURL + "/acme-inc"}, "invalid_request", notTrusted},
		{"data residency that is not configured", federationtest.Claims{"iss": "https://token.actions.acme.ghe.com"}, "invalid_request", notTrusted},
		{"issuer with a slash", federationtest.Claims{"iss": githubURL + "/"}, "invalid_request", notTrusted},
		{"token of an hour ago", federationtest.Claims{"iat": now.Add(-time.Hour).Unix(), "nbf": now.Add(-70 * time.Minute).Unix(), "exp": now.Add(-55 * time.Minute).Unix()}, "invalid_request", expired},
		{"token that lives longer than GitHub's do", federationtest.Claims{"exp": now.Add(time.Hour).Unix()}, "invalid_request", "lives"},
	})
}

// Each of what `issuers/gitlab` says of the platform, over HTTP, against the sample configuration.
func TestTrapsOfGitLabAreRefused(t *testing.T) {
	t.Parallel()
	d, issuer := platformDeployment(t, "gitlab", gitlabURL)
	d.start()
	now := time.Now()
	sign := func(c federationtest.Claims) string {
		return issuer.Sign(withoutNil(federationtest.GitLabClaims(issuer, c, d.url, time.Hour, now))).Reveal()
	}
	runTraps(t, d, gitlabJob, sign, []trap{
		{"another customer of gitlab.com", federationtest.Claims{"namespace_id": "666", "job_namespace_id": "666"}, "invalid_request", "another tenant's token"},
		{"ID token of a user's login", federationtest.Claims{"project_id": nil, "pipeline_id": nil, "job_id": nil, "job_project_id": nil}, "invalid_request", "not the token of a CI job"},
		{"job id missing", federationtest.Claims{"job_id": nil}, "invalid_request", "job_id"},
		{"merge request of a fork, run in the target project", federationtest.Claims{"job_project_id": "21", "pipeline_source": "merge_request_event"}, "invalid_request", "code of a fork"},
		{"the fork speaks for the project", federationtest.Claims{"project_id": "666", "pipeline_source": "merge_request_event"}, "invalid_request", "code of a fork"},
		{"merge request on a server that does not say whose code it is", federationtest.Claims{"job_project_id": nil, "job_namespace_id": nil, "pipeline_source": "merge_request_event"}, "invalid_request", "whose code"},
		{"merge request of the project itself", federationtest.Claims{"pipeline_source": "merge_request_event"}, "invalid_target", "nothing-for-merge-requests"},
		{"external pull request", federationtest.Claims{"pipeline_source": "external_pull_request_event"}, "invalid_target", "nothing-for-merge-requests"},
		{"project deleted and its path taken by another", federationtest.Claims{"project_id": "666", "job_project_id": "666"}, "invalid_target", "project_id"},
		{"sub reshaped to that of another project", federationtest.Claims{"project_id": "666", "job_project_id": "666", "project_path": "acme/evil"}, "invalid_target", "project_id"},
		{"branch that nobody protects", federationtest.Claims{"ref_protected": "false"}, "invalid_target", "ref_protected"},
		{"ref_protected is a boolean", federationtest.Claims{"ref_protected": true}, "invalid_request", "wrong type"},
		{"ref_protected is neither", federationtest.Claims{"ref_protected": "yes"}, "invalid_request", "ref_protected"},
		{"environment that nobody protects", federationtest.Claims{"environment_protected": "false"}, "invalid_target", "environment_protected"},
		{"tag of the branch's name", federationtest.Claims{"ref_path": "refs/tags/main", "ref_type": "tag"}, "invalid_target", "ref_path"},
		{"ids that are numbers", federationtest.Claims{"project_id": 20}, "invalid_request", "wrong type"},
		{"another audience of the same job", federationtest.Claims{"aud": "https://vault.example"}, "invalid_request", notForUs},
		{"token of a job that may run for a day", federationtest.Claims{"exp": now.Add(24 * time.Hour).Unix()}, "invalid_request", "lives"},
		{"issuer with a slash", federationtest.Claims{"iss": gitlabURL + "/"}, "invalid_request", notTrusted},
	})
}

func withoutNil(c federationtest.Claims) federationtest.Claims {
	out := federationtest.Claims{}
	for name, v := range c {
		if v != nil {
			out[name] = v
		}
	}
	return out
}

// runTraps presents the job's own token, which is good, once more for the replay, and then one token for each trap.
func runTraps(t *testing.T, d *deployment, job federationtest.Claims, sign func(federationtest.Claims) string, traps []trap) {
	t.Helper()
	c := d.caller()
	good := sign(job)
	wantStatus(t, "the job's own token", c.exchange(good, "releases"), http.StatusOK)
	traps = append([]trap{{"token presented again", nil, "invalid_request", "again"}}, traps...)
	for i, tr := range traps {
		t.Run(tr.name, func(t *testing.T) {
			token := good
			if i > 0 {
				claims := job
				for name, v := range tr.change {
					claims = claims.With(name, v)
				}
				token = sign(claims)
			}
			a := c.exchange(token, "releases")
			if a.err != nil || a.status != http.StatusBadRequest || a.body.Error != tr.code {
				t.Fatalf("got %s, want 400 %s", a, tr.code)
			}
			r, found, err := audit.Find(d.audit, a.decision())
			if err == nil && !found && slices.Contains([]string{notForUs, notTrusted, expired}, tr.why) { // counted, and only now and then kept
				return
			}
			if err != nil || !found {
				t.Fatalf("looking for the attempt in the audit log: found %v, %v", found, err)
			}
			said := r.Reason + " " + strings.Join(r.Reasons, " ") + " " + r.Signal
			if r.Near != nil {
				said += fmt.Sprintf(" %s %s", r.Near.Rule, r.Near.Claim)
			}
			if !strings.Contains(said, tr.why) {
				t.Errorf("the audit record says %q, want %q in it", said, tr.why)
			}
		})
	}
}
