package kubernetes

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Trust is what the administrator of a cluster applies so that a target works, and nothing more than that.
type Trust struct {
	Authentication string // AuthenticationConfiguration (apiserver.config.k8s.io/v1) for the API server; "" when our login needs none
	RBAC           string // manifests for kubectl apply; "" when the target needs none of its own
}

// TrustBroker returns what lets the broker of a target make its tokens. issuer is our issuer identifier, ca the PEM of
// who signs the certificate that we serve it with ("" for a public authority), user the name that the API server has
// for the login by token ("": what the token says of itself).
func TrustBroker(issuer string, t brokers.Target, s Settings, scopes map[string]Scope, ca, user string) (Trust, error) {
	var out Trust
	v := values{CA: ca, Namespace: s.Namespace, Name: manifestName(issuer, t.Name), User: user, Type: ours + "lease"}
	for _, scope := range scopes {
		v.Accounts = append(v.Accounts, scope.ServiceAccount)
	}
	slices.Sort(v.Accounts)
	v.Accounts = slices.Compact(v.Accounts)
	if s.Assertion != nil {
		v.Issuer, v.Audience, v.User = issuer+brokers.AssertionsPath, s.Assertion.Audience, Subject(t.Name)
		v.Rules = []rule{{"claims.sub == '" + v.User + "'", "not this service, asking for target " + t.Name}}
		v.Username = "claims.sub"
		out.Authentication = fill(authentication, v)
	} else if v.User == "" {
		var err error
		if v.User, err = userOf(t, s); err != nil {
			return Trust{}, err
		}
	}
	out.RBAC = fill(rbac, v)
	return out, nil
}

// TrustUsers returns what makes an API server take the JWTs of a target of the jwt broker, whose aud is audience, for
// users that are named after workloads. Roles are bound to those by the cluster's owner.
func TrustUsers(issuer, target, audience, ca string) Trust {
	return Trust{Authentication: fill(authentication, values{
		Issuer: issuer, Audience: audience, CA: ca, Username: "'sallyport:' + claims.sub",
		Rules: []rule{
			{"claims.client_id == '" + brokers.ClientID + "'", "not a token that Sallyport minted for a workload"},
			{"claims.sallyport.target == '" + target + "'", "minted for another target"},
		},
	})}
}

type values struct {
	Issuer, Audience, CA, Username string
	Rules                          []rule
	Namespace, Name, User, Type    string
	Accounts                       []string
}

type rule struct{ Expression, Message string }

// Subject returns whom the role is bound to, as RBAC spells it.
func (v values) Subject() map[string]string {
	if rest, ok := strings.CutPrefix(v.User, "system:serviceaccount:"); ok {
		if namespace, name, ok := strings.Cut(rest, ":"); ok {
			return map[string]string{"kind": "ServiceAccount", "name": name, "namespace": namespace}
		}
	}
	return map[string]string{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": v.User}
}

// Withdraw prints what ends the trust in our keys at the cluster of a target, "" when it has none. dir is the configuration
// directory.
func Withdraw(s Settings, issuer, target, dir string) string {
	if s.Assertion == nil {
		return ""
	}
	return "# Take the entry with issuer.url " + issuer + brokers.AssertionsPath + " out of the AuthenticationConfiguration of " + s.Server + ";\n" +
		"# the API server reads the file again by itself. And at once, whatever it still believes:\n" +
		"sallyport trust kubernetes " + target + " '" + strings.ReplaceAll(dir, "'", `'\''`) + "' -o rbac | kubectl delete -f -\n"
}

// manifestName names what is made for a target, by itself where that is a Kubernetes name.
func manifestName(issuer, target string) string {
	if isSubdomain(target) {
		return "sallyport-" + target
	}
	return "sallyport-" + label(issuer, target)
}

// userOf reads who a service account's token is for, without verifying it: it is our own.
func userOf(t brokers.Target, s Settings) (string, error) {
	var c claims
	token, err := readToken(t, s.Token)
	if err != nil {
		return "", err
	}
	if parts := strings.Split(token.Reveal(), "."); len(parts) == 3 {
		if text, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(text, &c) // no JWT says nobody
		}
	}
	if !strings.HasPrefix(c.Subject, "system:serviceaccount:") {
		return "", fmt.Errorf("the token of target %s does not say whose it is; name the user that the API server takes it for (kubectl auth whoami)", t.Name)
	}
	return c.Subject, nil
}

func fill(text string, v values) string {
	var b bytes.Buffer
	t := template.Must(template.New("").Funcs(template.FuncMap{
		"quote":  func(s string) string { text, _ := json.Marshal(s); return string(text) }, // JSON strings are YAML's
		"indent": func(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n        ") },
		"keys":   func(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) },
	}).Parse(text))
	if err := t.Execute(&b, v); err != nil {
		panic(err) // a template of ours
	}
	return b.String()
}

const authentication = `# For kube-apiserver --authentication-config=FILE. An API server has one such file: add the entry to its jwt list.
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
  - issuer:
      url: {{.Issuer}}
      audiences: [{{quote .Audience}}]
      audienceMatchPolicy: MatchAny
{{- if .CA}}
      certificateAuthority: |
        {{indent .CA}}
{{- end}}
    claimValidationRules:
{{- range .Rules}}
      - expression: {{quote .Expression}}
        message: {{quote .Message}}
{{- end}}
    claimMappings:
      username:
        expression: {{quote .Username}}
    userValidationRules:
      - expression: "!user.username.startsWith('system:')"
        message: no system user comes from here
`

const rbac = `# For kubectl apply. The namespace and its service accounts are yours to make; what they may do is yours to bind.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{.Name}}
  namespace: {{.Namespace}}
rules:
  - apiGroups: [""]
    resources: [serviceaccounts/token]
    resourceNames: [{{range $i, $a := .Accounts}}{{if $i}}, {{end}}{{quote $a}}{{end}}]
    verbs: [create]
  - apiGroups: [""]
    resources: [secrets]
    verbs: [create, delete, get, list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{.Name}}
  namespace: {{.Namespace}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{.Name}}
subjects:
  - {{$s := .Subject}}{{range $i, $k := keys $s}}{{if $i}}
    {{end}}{{$k}}: {{quote (index $s $k)}}{{end}}
---
# Who may make Secrets may make one that holds a token of any service account of the namespace, without an end. This
# user makes empty ones of its own type and no others.
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{.Name}}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [""]
        apiVersions: [v1]
        resources: [secrets]
        operations: [CREATE, UPDATE]
  matchConditions:
    - name: by-sallyport
      expression: {{quote (printf "request.userInfo.username == %s" (quote .User))}}
  validations:
    - expression: object.type == '{{.Type}}' && !has(object.data)
      message: this user makes leases and nothing else
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{.Name}}
spec:
  policyName: {{.Name}}
  validationActions: [Deny]
`
