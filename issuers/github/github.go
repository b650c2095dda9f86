// Package github is the adapter for GitHub Actions: github.com, its enterprise issuers, data residency and GitHub
// Enterprise Server.
//
// A workload's path is owner/<repository_owner_id>/repository/<repository_id>. GitHub gives neither number to anybody
// else later, so a renamed repository stays the same workload and a new one under an old name is another. A repository
// that changed hands is another workload, too: whose it is is part of who it is.
//
// What the platform promises. Names are given again: repository, repository_owner, job_workflow_ref and sub in its old
// form can be met by somebody else after a rename or a deletion. sub has two forms (repo:O/R:... and
// repo:O@ID/R@ID:...) and the administrator of a repository can reshape it, so it is never read here. The job chooses
// aud. Whoever can push chooses workflow and, on their own branch, ref; environment is a name, and protects only with
// protection rules. pull_request_target and workflow_run carry the base branch in ref while they handle foreign input.
// Tokens live 5 minutes, nbf lies 10 minutes before iat, and each has a jti of its own: single use suits them.
//
// Refused: tokens without run, repository and owner ids, ids that are not JSON strings of decimal digits, tokens of an
// owner or an enterprise that is not configured.
package github

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/issuers"
)

// Settings are the settings of one issuer. Whatever is set must hold.
type Settings struct {
	OwnerIDs      []string `yaml:"owner_ids" json:"owner_ids,omitempty" jsonschema:"minItems=1" jsonschema_description:"Ids of the users and organisations (repository_owner_id, in quotes) whose tokens are accepted. Default: every owner, which on github.com is everybody."`
	EnterpriseIDs []string `yaml:"enterprise_ids" json:"enterprise_ids,omitempty" jsonschema:"minItems=1" jsonschema_description:"Ids of the enterprises (enterprise_id, in quotes) whose tokens are accepted. Default: every enterprise, and owners without one."`
}

// Kind returns the issuer type "github".
func Kind() issuers.Kind {
	return issuers.NewPlatform("github", []jose.SignatureAlgorithm{jose.RS256}, func(s Settings) (federation.Adapter, error) { return New(s) }).Sharing(hosted)
}

// hosted reports whether an issuer is one of github.com, its enterprises or its data residency.
func hosted(issuer string) bool {
	u, err := url.Parse(issuer)
	if err != nil {
		return false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	return host == "token.actions.githubusercontent.com" || host == "ghe.com" || strings.HasSuffix(host, ".ghe.com")
}

// Adapter names the workloads of GitHub Actions. It is immutable.
type Adapter struct{ settings Settings }

var (
	_ federation.Adapter = (*Adapter)(nil)
	_ federation.Tenancy = (*Adapter)(nil)
)

// New returns an adapter, or an error for ids that no token has.
func New(s Settings) (*Adapter, error) {
	for name, ids := range map[string][]string{"owner_ids": s.OwnerIDs, "enterprise_ids": s.EnterpriseIDs} {
		if ids != nil && len(ids) == 0 {
			return nil, fmt.Errorf("%s: lists nothing; an empty list does not mean all", name)
		}
		for i, id := range ids {
			if !decimal(id) {
				return nil, fmt.Errorf("%s[%d]: is not an id: decimal digits in quotes, not a name", name, i)
			}
		}
	}
	return &Adapter{Settings{slices.Clone(s.OwnerIDs), slices.Clone(s.EnterpriseIDs)}}, nil
}

// Shared implements federation.Tenancy. Only GitHub Enterprise Server belongs to one tenant; its issuers end in
// /_services/token. Whatever else calls itself GitHub is taken for shared, slugs and subdomains being names.
func (a *Adapter) Shared(issuer string) (shared, pinned bool) {
	u, err := url.Parse(issuer)
	server := err == nil && u.Path == "/_services/token" && !hosted(issuer)
	return !server, a.settings.OwnerIDs != nil || a.settings.EnterpriseIDs != nil
}

// Schema implements federation.Adapter.
func (a *Adapter) Schema() federation.Schema {
	out := make(federation.Schema, len(attributes))
	for i, e := range attributes {
		out[i] = federation.Attribute{Name: e.name, Type: federation.TypeString, Anchor: e.anchor, Doc: e.doc}
	}
	return out
}

// Name implements federation.Adapter.
func (a *Adapter) Name(c federation.Claims) (federation.Naming, error) {
	var t claims
	if err := c.Decode(&t); err != nil {
		return federation.Naming{}, err
	}
	for _, id := range []struct{ claim, value string }{
		{"repository_owner_id", t.RepositoryOwnerID}, {"repository_id", t.RepositoryID}, {"run_id", t.RunID},
	} {
		if !decimal(id.value) {
			return federation.Naming{}, fmt.Errorf("%s is missing or no id", id.claim)
		}
	}
	if o := a.settings.OwnerIDs; o != nil && !slices.Contains(o, t.RepositoryOwnerID) {
		return federation.Naming{}, fmt.Errorf("repository_owner_id %s is not in owner_ids: another tenant's token", t.RepositoryOwnerID)
	}
	if e := a.settings.EnterpriseIDs; e != nil && !slices.Contains(e, t.EnterpriseID) {
		return federation.Naming{}, fmt.Errorf("enterprise_id is not in enterprise_ids: another tenant's token")
	}
	out := make(federation.Attributes, len(attributes))
	for _, e := range attributes {
		if v := e.value(&t); v != "" {
			out[e.name] = federation.String(v)
		}
	}
	return federation.Naming{Path: "owner/" + t.RepositoryOwnerID + "/repository/" + t.RepositoryID, Attributes: out}, nil
}

// decimal reports whether s is an id as GitHub writes one. It goes into paths.
func decimal(s string) bool {
	if s == "" || len(s) > 20 || s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
