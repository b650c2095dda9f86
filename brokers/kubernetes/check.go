package kubernetes

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// shared are namespaces in which more lives than a target's service accounts. Who may list and delete the Secrets there
// owns the cluster.
var shared = []string{"default", "kube-system", "kube-public", "kube-node-lease"}

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	bad := func(path, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	server, err := parseServer(s.Server)
	if err != nil {
		bad("server", "server %q %s", s.Server, err)
	}
	if _, err := upstream.Authorities(t, s.CAFile); err != nil {
		bad("ca_file", "%s; it takes PEM certificates", err)
	}
	switch {
	case !isLabel(s.Namespace):
		bad("namespace", "namespace %q is not a Kubernetes name: 1 to 63 of a-z, 0-9 and -, neither first nor last a -", s.Namespace)
	case slices.Contains(shared, s.Namespace):
		bad("namespace", "namespace %s is not the target's own; this service may list and delete every Secret of it: give the target's service accounts a namespace of their own", s.Namespace)
	}
	out = append(out, checkAudiences(s, server)...)
	out = append(out, checkLogin(s)...)
	return append(out, checkScopes(scopes)...)
}

// ownAudiences begin the audiences that API servers give themselves. A token with such a one is a login, whatever
// api_access says.
var ownAudiences = []string{"https://kubernetes.default", "kubernetes.default", "kubernetes", "api"}

func checkAudiences(s Settings, server string) []brokers.Problem {
	var out []brokers.Problem
	bad := func(path, format string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	switch {
	case s.APIAccess && len(s.Audiences) > 0:
		bad("audiences", "audiences and api_access exclude each other; a token that opens the API server and another service at once can be carried from the one to the other: make two targets")
	case !s.APIAccess && len(s.Audiences) == 0:
		bad("audiences", "audiences is missing, and a token without it opens the API server; name the services that are to accept it, or set api_access: true if that is what the target is for")
	case len(s.Audiences) > 8:
		bad("audiences", "%d audiences are more than 8; make targets of fewer", len(s.Audiences))
	case s.APIAccess && s.TokenReview:
		bad("token_review", "token_review is about audiences, and there are none; leave it out, the API server asks itself")
	}
	for i, a := range s.Audiences {
		path := fmt.Sprintf("audiences[%d]", i)
		switch {
		case !isWord(a):
			bad(path, "audience %q is not 1 to 255 printable ASCII characters without spaces", a)
		case slices.Contains(s.Audiences[:i], a):
			bad(path, "audience %q stands twice", a)
		case server != "" && strings.TrimSuffix(a, "/") == server, slices.ContainsFunc(ownAudiences, func(own string) bool { return isOwn(a, own) }):
			bad(path, "audience %q is the API server's own, and such a token logs in there; set api_access: true instead of audiences if that is what the target is for", a)
		}
	}
	return out
}

// isOwn reports whether an audience is own or a name below it, as https://kubernetes.default.svc is.
func isOwn(audience, own string) bool {
	rest, ok := strings.CutPrefix(audience, own)
	return ok && (rest == "" || strings.Contains(own, ".") && (rest[0] == '.' || rest[0] == '/' || rest[0] == ':'))
}

func checkLogin(s Settings) []brokers.Problem {
	switch {
	case s.Assertion != nil && !s.Token.IsZero():
		return []brokers.Problem{{Path: "token", Message: "token and assertion exclude each other; keep assertion, which leaves no secret that could be stolen, where the API server can trust our issuer"}}
	case s.Assertion == nil && s.Token.IsZero():
		return []brokers.Problem{{Path: "assertion", Message: "there is no login for the API server; add assertion: {audience: ...} and what `sallyport trust kubernetes` prints, or token: {file: ...}"}}
	case s.Assertion != nil && !isWord(s.Assertion.Audience):
		return []brokers.Problem{{Path: "assertion.audience", Message: fmt.Sprintf("audience %q is not 1 to 255 printable ASCII characters without spaces", s.Assertion.Audience)}}
	}
	return nil
}

func checkScopes(scopes map[string]Scope) []brokers.Problem {
	if len(scopes) == 0 {
		return []brokers.Problem{{Path: "scopes.", Message: "the target has no scopes, and it is they that say whose tokens are made; add scopes: {NAME: {service_account: ACCOUNT}}"}}
	}
	var out []brokers.Problem
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		s, path := scopes[name], "scopes."+name
		if !isSubdomain(s.ServiceAccount) {
			out = append(out, brokers.Problem{Path: path + ".service_account", Message: fmt.Sprintf("service_account %q is not a Kubernetes name: 1 to 253 of a-z, 0-9, - and ., every part between dots beginning and ending with a letter or digit", s.ServiceAccount)})
		}
		if s.UID != "" && !isUID(s.UID) {
			out = append(out, brokers.Problem{Path: path + ".uid", Message: fmt.Sprintf("uid %q is none; see: kubectl get serviceaccount NAME -o jsonpath={.metadata.uid}", s.UID)})
		}
		for _, other := range slices.Sorted(maps.Keys(scopes)) {
			if o := scopes[other]; other < name && o.ServiceAccount == s.ServiceAccount && o.UID != s.UID {
				out = append(out, brokers.Problem{Path: path + ".uid", Message: fmt.Sprintf("scopes %s and %s mean the same service account with different uids; give both the same", other, name)})
			}
		}
	}
	return out
}

// parseServer returns the URL without a slash at its end.
func parseServer(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return "", errors.New("is no URL; write https://HOST:PORT")
	case u.Scheme != "https":
		return "", errors.New("is not https; our login and the tokens would be read on the way")
	case u.User != nil:
		return "", errors.New("has user information; log in with assertion or token")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return "", errors.New("has a query or a fragment; write https://HOST:PORT, with the path of a proxy in front of it if there is one")
	case strings.Contains(s, "%"), strings.Contains(u.Path, "//"), slices.ContainsFunc(strings.Split(u.Path, "/"), func(p string) bool { return p == "." || p == ".." }):
		return "", errors.New("has a path that is not plain; write it without %, // and dots")
	}
	return strings.TrimSuffix(s, "/"), nil
}

// isLabel is an RFC 1123 label, isSubdomain dot-separated ones (the names of namespaces and of service accounts).
func isLabel(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		!strings.ContainsFunc(s, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') })
}

func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || part[0] == '-' || part[len(part)-1] == '-' ||
			strings.ContainsFunc(part, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-') }) {
			return false
		}
	}
	return true
}

func isUID(s string) bool {
	return len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
	})
}

func isWord(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
