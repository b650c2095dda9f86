package gcp

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	bad := func(path, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if m := provider.FindStringSubmatch(s.Provider); m == nil || strings.HasPrefix(m[2], "gcp-") || strings.HasPrefix(m[3], "gcp-") {
		bad("provider", "provider %q is no resource name; write projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER, with the number of the project", s.Provider)
	}
	if a := s.ServiceAccount; a != "" && !uniqueID.MatchString(a) && !email.MatchString(a) {
		bad("service_account", "service_account %q is neither a unique id nor an e-mail address; see: gcloud iam service-accounts describe NAME --format='value(uniqueId)'", a)
	}
	if s.Audience != "" && !upstream.IsWord(s.Audience, 255) {
		bad("audience", "audience %q is not 1 to 255 printable ASCII characters without blanks", s.Audience)
	}
	if s.IDAudience != "" && !upstream.IsWord(s.IDAudience, 2048) {
		bad("id_token_audience", "id_token_audience %q is not printable ASCII characters without blanks", s.IDAudience)
	}
	switch {
	case s.HandOver && (s.ServiceAccount != "" || s.IDAudience != ""):
		bad("hand_over", "with hand_over: true it is the workload that asks Google for tokens; leave service_account and id_token_audience out, or hand_over")
	case s.IDAudience != "" && s.ServiceAccount == "":
		bad("id_token_audience", "ID tokens are those of a service account; name one: service_account")
	case !s.HandOver && !s.chosen() && !s.OutlivesGrant:
		bad("outlives_grant", "Google chooses the life of such a token, an hour, and takes none back: it outlives its grant and every revocation; name a service_account whose access token is given, or accept it: outlives_grant: true")
	case s.OutlivesGrant && (s.HandOver || s.chosen()):
		bad("outlives_grant", "what this target gives ends with its grant; leave outlives_grant out")
	}
	out = append(out, upstream.CheckAlgorithm(t, s.Algorithm, "RS256", "ES256")...)
	if _, err := endpoint(s.STS, "https://sts.googleapis.com"); err != nil {
		bad("sts", "sts %q %s", s.STS, err)
	}
	if _, err := endpoint(s.IAMCredentials, "https://iamcredentials.googleapis.com"); err != nil {
		bad("iam_credentials", "iam_credentials %q %s", s.IAMCredentials, err)
	}
	if _, err := upstream.Authorities(t, s.CAFile); err != nil {
		bad("ca_file", "%s; it takes PEM certificates", err)
	}
	if n := len(upstream.Subject(t.Name)); n > maxSubject {
		bad("provider", "the target's name makes a subject of %d bytes, and Google takes %d; give it a shorter name", n, maxSubject)
	}
	bounded := !s.HandOver && s.IDAudience == ""
	if bounded && len(scopes) == 0 {
		bad("scopes.", "the target has no scopes, and it is they that bound the token; add scopes: {NAME: {scopes: ['https://www.googleapis.com/auth/...']}}")
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		out = append(out, checkScope("scopes."+name, scopes[name], bounded)...)
	}
	return out
}

func checkScope(path string, s Scope, bounded bool) []brokers.Problem {
	var out []brokers.Problem
	bad := func(at, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path + at, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case !bounded && (len(s.Scopes) > 0 || len(s.Boundary) > 0):
		bad("", "ID tokens and assertions have no scopes; write {}")
	case bounded && len(s.Scopes) == 0:
		bad(".scopes", "scopes lists nothing, and an access token has some; write for instance https://www.googleapis.com/auth/devstorage.read_only")
	}
	for i, scope := range s.Scopes {
		if !strings.HasPrefix(scope, "https://") || !upstream.IsWord(scope, 512) {
			bad(fmt.Sprintf(".scopes[%d]", i), "%q is no OAuth scope of Google; they begin with https://www.googleapis.com/auth/", scope)
		}
	}
	if len(s.Boundary) > maxRules {
		bad(".boundary", "%d rules are more than %d", len(s.Boundary), maxRules)
	}
	for i, r := range s.Boundary {
		at := fmt.Sprintf(".boundary[%d]", i)
		if !strings.HasPrefix(r.Resource, "//") || !upstream.IsWord(r.Resource, 2048) {
			bad(at+".resource", "%q is no full resource name; write //storage.googleapis.com/projects/_/buckets/NAME", r.Resource)
		}
		if len(r.Permissions) == 0 {
			bad(at+".permissions", "permissions lists nothing; write for instance inRole:roles/storage.objectViewer")
		}
		for _, p := range r.Permissions {
			if !strings.HasPrefix(p, "inRole:") || !upstream.IsWord(p, 255) {
				bad(at+".permissions", "%q is none; write inRole:ROLE", p)
			}
		}
	}
	return out
}
