// Package gitlab is the adapter for the id_tokens of GitLab CI, on gitlab.com and on servers of one's own.
//
// A workload's path is namespace/<namespace_id>/project/<project_id>. GitLab gives neither number to anybody else later.
// A project that moved to another group is another workload: whose it is is part of who it is.
//
// What the platform promises. Paths, logins and environments are names that can be given again; sub is made of names, its
// parts can be configured by project, and it is never read here. The job chooses aud and environment; whoever can push
// chooses ref. ref_protected and environment_protected are GitLab's word that the maintainers guard them. A token
// lives as long as the job may run, hours perhaps: max_lifetime must allow that. Each has a jti of its own, minted at job
// start: single use suits them, once for each target and job.
//
// Refused: ID tokens of user logins, which the same keys sign (no project, pipeline and job ids); tokens of
// merge-request pipelines that run one project's job for another project's code (job_project_id differs from
// project_id), and on older servers, which do not say so, every token of a merge-request pipeline; ids that are not
// JSON strings of decimal digits; tokens of a group or project that is not configured.
package gitlab

import (
	"errors"
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
	NamespaceIDs []string `yaml:"namespace_ids" json:"namespace_ids,omitempty" jsonschema:"minItems=1" jsonschema_description:"Ids of the groups and users (namespace_id, in quotes; the innermost group, not its parents) whose tokens are accepted. Default: every one, which on gitlab.com is everybody."`
	ProjectIDs   []string `yaml:"project_ids" json:"project_ids,omitempty" jsonschema:"minItems=1" jsonschema_description:"Ids of the projects (project_id, in quotes) whose tokens are accepted. Default: every project."`
}

// Kind returns the issuer type "gitlab".
func Kind() issuers.Kind {
	return issuers.NewPlatform("gitlab", []jose.SignatureAlgorithm{jose.RS256}, func(s Settings) (federation.Adapter, error) { return New(s) }).Sharing(hosted)
}

// hosted reports whether an issuer is gitlab.com, or below it.
func hosted(issuer string) bool {
	u, err := url.Parse(issuer)
	if err != nil {
		return false
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	return host == "gitlab.com" || strings.HasSuffix(host, ".gitlab.com")
}

// Adapter names the workloads of GitLab CI. It is immutable.
type Adapter struct{ settings Settings }

var (
	_ federation.Adapter = (*Adapter)(nil)
	_ federation.Tenancy = (*Adapter)(nil)
)

// New returns an adapter, or an error for ids that no token has.
func New(s Settings) (*Adapter, error) {
	for _, list := range []struct {
		name string
		ids  []string
	}{{"namespace_ids", s.NamespaceIDs}, {"project_ids", s.ProjectIDs}} {
		if list.ids != nil && len(list.ids) == 0 {
			return nil, fmt.Errorf("%s: lists nothing; an empty list does not mean all", list.name)
		}
		for i, id := range list.ids {
			if !decimal(id) {
				return nil, fmt.Errorf("%s[%d]: is not an id: decimal digits in quotes, not a path", list.name, i)
			}
		}
	}
	return &Adapter{Settings{slices.Clone(s.NamespaceIDs), slices.Clone(s.ProjectIDs)}}, nil
}

// Shared implements federation.Tenancy: gitlab.com is everybody's.
func (a *Adapter) Shared(issuer string) (shared, pinned bool) {
	u, err := url.Parse(issuer)
	own := err == nil && u.Hostname() != "" && !hosted(issuer)
	return !own, a.settings.NamespaceIDs != nil || a.settings.ProjectIDs != nil
}

// Schema implements federation.Adapter.
func (a *Adapter) Schema() federation.Schema {
	out := make(federation.Schema, 0, len(texts)+4)
	for _, e := range texts {
		out = append(out, federation.Attribute{Name: e.name, Type: federation.TypeString, Anchor: e.anchor, Doc: e.doc})
	}
	return append(out,
		federation.Attribute{Name: "ref_protected", Type: federation.TypeBool, Doc: "Whether the maintainers protect the branch or tag."},
		federation.Attribute{Name: "environment_protected", Type: federation.TypeBool, Doc: "Whether the environment is protected; always false on the free edition."},
		federation.Attribute{Name: "runner_id", Type: federation.TypeInt, Doc: "Id of the runner."},
		federation.Attribute{Name: "groups_direct", Type: federation.TypeStrings, Doc: "Paths of the groups that the user is a direct member of; names, and absent for members of many."},
	)
}

// Name implements federation.Adapter.
func (a *Adapter) Name(c federation.Claims) (federation.Naming, error) {
	var t claims
	if err := c.Decode(&t); err != nil {
		return federation.Naming{}, err
	}
	if err := a.check(&t); err != nil {
		return federation.Naming{}, err
	}
	out := make(federation.Attributes, len(texts)+4)
	for _, e := range texts {
		if v := e.value(&t); v != "" {
			out[e.name] = federation.String(v)
		}
	}
	for _, flag := range []struct{ name, value string }{
		{"ref_protected", t.RefProtected}, {"environment_protected", t.EnvironmentProtected},
	} {
		switch flag.value {
		case "true", "false":
			out[flag.name] = federation.Bool(flag.value == "true")
		case "":
		default:
			return federation.Naming{}, fmt.Errorf("%s is neither \"true\" nor \"false\"", flag.name)
		}
	}
	if t.RunnerID != nil {
		out["runner_id"] = federation.Int(*t.RunnerID)
	}
	if t.GroupsDirect != nil {
		out["groups_direct"] = federation.Strings(t.GroupsDirect)
	}
	return federation.Naming{Path: "namespace/" + t.NamespaceID + "/project/" + t.ProjectID, Attributes: out}, nil
}

// check refuses what is not a job's token, or not for the code of the project that runs it.
func (a *Adapter) check(t *claims) error {
	for _, id := range []struct{ claim, value string }{
		{"project_id", t.ProjectID}, {"namespace_id", t.NamespaceID}, {"pipeline_id", t.PipelineID}, {"job_id", t.JobID},
	} {
		if !decimal(id.value) {
			return fmt.Errorf("%s is missing or no id: not the token of a CI job", id.claim)
		}
	}
	switch {
	case t.JobProjectID == "" && (t.PipelineSource == "merge_request_event" || t.PipelineSource == "external_pull_request_event"):
		return errors.New("merge-request pipeline, and the server does not say whose code it runs (no job_project_id)")
	case t.JobProjectID != "" && t.JobProjectID != t.ProjectID, t.JobNamespaceID != "" && t.JobNamespaceID != t.NamespaceID:
		return errors.New("job_project_id and project_id differ: a project runs the code of a fork")
	case a.settings.NamespaceIDs != nil && !slices.Contains(a.settings.NamespaceIDs, t.NamespaceID):
		return fmt.Errorf("namespace_id %s is not in namespace_ids: another tenant's token", t.NamespaceID)
	case a.settings.ProjectIDs != nil && !slices.Contains(a.settings.ProjectIDs, t.ProjectID):
		return fmt.Errorf("project_id %s is not in project_ids: another tenant's token", t.ProjectID)
	}
	return nil
}

// decimal reports whether s is an id as GitLab writes one. It goes into paths.
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
