package kubernetes

import (
	"context"
	"net/http"
	"time"
)

// object is the JSON of a Kubernetes object whose fields only the server reads.
type object = map[string]any

// Subject is whom a binding grants something: Kind is User, Group or ServiceAccount, and only the last has a
// namespace.
type Subject struct {
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// Rule is one line of an RBAC role.
type Rule struct {
	APIGroups []string `json:"apiGroups"`
	Resources []string `json:"resources"`
	Verbs     []string `json:"verbs"`
}

const rbac = "rbac.authorization.k8s.io"

// CreateNamespace creates a namespace.
func (c *Client) CreateNamespace(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": name}}, nil)
}

// CreateServiceAccount creates a service account and returns its uid.
func (c *Client) CreateServiceAccount(ctx context.Context, namespace, name string) (uid string, err error) {
	var made struct{ Metadata struct{ UID string } }
	err = c.Do(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts", object{"metadata": object{"name": name}}, &made)
	return made.Metadata.UID, err
}

// RequestToken asks for a service-account token (the TokenRequest API). The server refuses a lifetime below
// ten minutes.
func (c *Client) RequestToken(ctx context.Context, namespace, account, audience string, lifetime time.Duration) (string, error) {
	request := object{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": object{"audiences": []string{audience}, "expirationSeconds": int64(lifetime / time.Second)},
	}
	var answer struct{ Status struct{ Token string } }
	err := c.Do(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token", request, &answer)
	return answer.Status.Token, err
}

// WhoAmI returns the user that the API server takes the client for (the SelfSubjectReview API).
func (c *Client) WhoAmI(ctx context.Context) (user string, groups []string, err error) {
	request := object{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string
				Groups   []string
			}
		}
	}
	err = c.Do(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", request, &answer)
	return answer.Status.UserInfo.Username, answer.Status.UserInfo.Groups, err
}

// GrantRole creates a role in a namespace together with a binding of the same name.
func (c *Client) GrantRole(ctx context.Context, namespace, name string, to Subject, rules ...Rule) error {
	base := "/apis/" + rbac + "/v1/namespaces/" + namespace
	role := object{"metadata": object{"name": name}, "rules": rules}
	if err := c.Do(ctx, http.MethodPost, base+"/roles", role, nil); err != nil {
		return err
	}
	return c.Do(ctx, http.MethodPost, base+"/rolebindings", binding(name, "Role", name, to), nil)
}

func binding(name, roleKind, role string, to Subject) object {
	subject := object{"kind": to.Kind, "name": to.Name}
	if to.Kind == "ServiceAccount" {
		subject["namespace"] = to.Namespace
	} else {
		subject["apiGroup"] = rbac
	}
	return object{
		"metadata": object{"name": name},
		"subjects": []object{subject},
		"roleRef":  object{"apiGroup": rbac, "kind": roleKind, "name": role},
	}
}
