package aws

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
	if _, err := parseRole(s); err != nil {
		bad("role", "role %q %s", s.Role, err)
	}
	switch {
	case !region.MatchString(s.Region):
		bad("region", "region %q is none; write for instance eu-west-1", s.Region)
	default:
		if _, err := stsEndpoint(s); err != nil {
			bad("endpoint", "endpoint %q %s", s.Endpoint, err)
		}
	}
	if s.Audience != "" && !upstream.IsWord(s.Audience, 255) {
		bad("audience", "audience %q is not 1 to 255 printable ASCII characters without spaces", s.Audience)
	}
	out = append(out, upstream.CheckAlgorithm(t, s.Algorithm, "RS256", "RS384", "RS512", "ES256", "ES384", "ES512")...)
	switch {
	case s.Login != "" && s.Login != loginAssertion && s.Login != loginInside:
		bad("login", "login %q is neither assertion nor inside", s.Login)
	case s.Login == loginInside && (s.HandOver || s.Compatible):
		bad("login", "login: inside is for AWS itself, and leaves no assertion to hand over; leave hand_over and compatible out, or login")
	case s.Login != loginInside && s.ExternalID != "":
		bad("external_id", "external ids are for login: inside; a role that trusts assertions names their subject")
	case s.ExternalID != "" && (len(s.ExternalID) > 1224 || !externalID.MatchString(s.ExternalID)):
		bad("external_id", "external_id %q is not 2 to 1224 letters, digits and _+=,.@:/-", s.ExternalID)
	}
	if s.Compatible && s.Endpoint == "" {
		bad("compatible", "compatible: true is for another endpoint than AWS; name it, or leave compatible out: session tags and source identity say for whom a session is")
	}
	if r := s.Revoker; r != nil {
		if target, err := parseRole(s); err == nil {
			if own, err := parseRole(Settings{Role: r.Role}); err != nil {
				bad("revoker.role", "role %q %s", r.Role, err)
			} else if own == target {
				bad("revoker.role", "the revoker's role is the target's own: whoever has a session of it could lift the denial; give the revoker a role that may write that role's inline policies and nothing else")
			} else if own.account != target.account {
				bad("revoker.role", "role %q is of another account than the target's role; IAM changes roles of its own account alone", r.Role)
			}
		}
		if _, err := iamEndpoint(s); err != nil {
			bad("revoker.endpoint", "endpoint %q %s", r.Endpoint, err)
		}
		if s.Compatible {
			bad("revoker", "a store that is not AWS has no IAM; leave revoker out")
		}
	}
	if _, err := upstream.Authorities(t, s.CAFile); err != nil {
		bad("ca_file", "%s; it takes PEM certificates", err)
	}
	if s.HandOver {
		if len(scopes) > 0 || s.Revoker != nil || s.Compatible {
			bad("hand_over", "with hand_over: true it is the workload that asks AWS for sessions, so nothing here bounds or ends them; leave scopes, revoker and compatible out, or hand_over")
		}
		return out
	}
	if len(scopes) == 0 {
		bad("scopes.", "the target has no scopes, and it is they that bound the session; add scopes: {NAME: {policy: ...}}, or {NAME: {whole_role: true}}")
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		out = append(out, checkScope("scopes."+name, scopes[name])...)
	}
	return out
}

func checkScope(path string, s Scope) []brokers.Problem {
	var out []brokers.Problem
	bad := func(at, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path + at, Message: fmt.Sprintf(format, args...)})
	}
	bounded := len(s.Policy) > 0 || len(s.ARNs) > 0
	switch {
	case s.All && bounded:
		bad(".whole_role", "whole_role and a policy contradict each other; leave one of them out")
	case !s.All && !bounded:
		bad("", "the scope bounds nothing, and such a session may do all that the role may; add policy or policy_arns, or say whole_role: true")
	}
	if len(s.Policy) > 0 {
		if v, _ := s.Policy["Version"].(string); v != policyFormat {
			bad(".policy", "the policy's Version is not '%s' (in quotes: YAML takes it for a date)", policyFormat)
		} else if len(s.Policy) != 2 || len(statementsOf(s.Policy)) == 0 {
			bad(".policy", "a session policy has Version and Statement, at least one, and nothing else")
		} else if text, err := encode(statementsOf(s.Policy)); err != nil {
			bad(".policy", "the policy cannot be written as JSON")
		} else if len(text) > maxPolicy {
			bad(".policy", "the policy has %d characters as JSON, and a session's has at most %d; move statements into a managed policy (policy_arns)", len(text), maxPolicy)
		}
	}
	if len(s.ARNs) > maxARNs {
		bad(".policy_arns", "%d managed policies are more than %d", len(s.ARNs), maxARNs)
	}
	for i, a := range s.ARNs {
		if !strings.HasPrefix(a, "arn:") || !strings.Contains(a, ":policy/") || !upstream.IsWord(a, 2048) {
			bad(fmt.Sprintf(".policy_arns[%d]", i), "%q is no ARN of a managed policy", a)
		}
	}
	return out
}
