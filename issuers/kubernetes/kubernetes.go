// Package kubernetes is the adapter for projected service-account tokens of any Kubernetes cluster.
//
// A workload's path is ns/<namespace>/sa/<service account>, as SPIFFE users expect. Both are names: a
// service account that was deleted and made again has the same path and another uid, so rules that must
// not survive that ask for service_account_uid. Whoever may create tokens of a service account
// (serviceaccounts/token) can speak for it; a namespace's administrator can be any account in it.
//
// Tokens live 10 minutes to 24 hours, by request, and kubelet renews them at 80 %; they are read from a
// file again and again, so single use does not suit them. `jti` is there from Kubernetes 1.30 on.
//
// Refused: tokens without the kubernetes.io claim (other tokens of the same issuer, and legacy ones, whose
// claims are named kubernetes.io/serviceaccount/...), tokens with warnafter (an API token stretched to a
// year), tokens by which the API server speaks to webhooks, tokens whose sub does not agree with the claims.
package kubernetes

import (
	"errors"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/issuers"
)

// Settings are the settings of one cluster.
type Settings struct {
	// RequirePod refuses tokens that are not bound to a pod: those that somebody requested from the API,
	// by `kubectl create token` for instance.
	RequirePod bool `yaml:"require_pod" json:"require_pod,omitempty" jsonschema_description:"Refuse tokens that are not bound to a pod: those requested from the API directly. Default: false."`
}

// Kind returns the issuer type "kubernetes".
func Kind() issuers.Kind {
	return issuers.NewKind("kubernetes", func(s Settings) (federation.Adapter, error) { return New(s), nil })
}

// Adapter names the workloads of a cluster. It is immutable.
type Adapter struct{ settings Settings }

var _ federation.Adapter = (*Adapter)(nil)

// New returns an adapter.
func New(s Settings) *Adapter { return &Adapter{s} }

// claims are those of Kubernetes 1.37.
type claims struct {
	Subject    string `json:"sub"`
	Kubernetes *struct {
		Namespace      string `json:"namespace"`
		ServiceAccount object `json:"serviceaccount"`
		Pod            object `json:"pod"`
		Node           object `json:"node"`
		Secret         object `json:"secret"`
		WarnAfter      any    `json:"warnafter"`

		// Kubernetes 1.37, alpha: tokens by which the API server speaks to webhooks.
		ValidatingWebhook any `json:"validatingwebhookconfiguration"`
		MutatingWebhook   any `json:"mutatingwebhookconfiguration"`
		Attestations      any `json:"attestations"`
	} `json:"kubernetes.io"`
	LegacyNamespace any `json:"kubernetes.io/serviceaccount/namespace"`
}

// object is a reference to something in the cluster.
type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Schema implements federation.Adapter.
func (a *Adapter) Schema() federation.Schema {
	name := func(name, doc string) federation.Attribute {
		return federation.Attribute{Name: name, Type: federation.TypeString, Doc: doc}
	}
	uid := func(name, doc string) federation.Attribute {
		return federation.Attribute{Name: name, Type: federation.TypeString, Anchor: true, Doc: doc}
	}
	return federation.Schema{
		name("namespace", "Namespace of the service account; can be deleted and made again."),
		name("service_account", "Name of the service account; can be deleted and made again."),
		uid("service_account_uid", "Uid of the service account, given once by the cluster."),
		name("pod", "Name of the pod that the token is bound to; absent when it is bound to none."),
		uid("pod_uid", "Uid of that pod; absent when the token is bound to none."),
		name("node", "Name of the node that the pod runs on; absent before Kubernetes 1.30."),
		uid("node_uid", "Uid of that node; absent when the cluster did not find the node."),
		name("bound_secret", "Name of the secret that the token is bound to; absent when it is bound to none."),
		uid("bound_secret_uid", "Uid of that secret; absent when the token is bound to none."),
	}
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
	k := t.Kubernetes
	attributes := make(federation.Attributes, 9)
	for _, e := range []struct{ name, value string }{
		{"namespace", k.Namespace},
		{"service_account", k.ServiceAccount.Name}, {"service_account_uid", k.ServiceAccount.UID},
		{"pod", k.Pod.Name}, {"pod_uid", k.Pod.UID},
		{"node", k.Node.Name}, {"node_uid", k.Node.UID},
		{"bound_secret", k.Secret.Name}, {"bound_secret_uid", k.Secret.UID},
	} {
		if e.value != "" {
			attributes[e.name] = federation.String(e.value)
		}
	}
	return federation.Naming{Path: "ns/" + k.Namespace + "/sa/" + k.ServiceAccount.Name, Attributes: attributes}, nil
}

// subjectPrefix starts the sub of every service account.
const subjectPrefix = "system:serviceaccount:"

// check refuses what is not a projected service-account token.
func (a *Adapter) check(t *claims) error {
	k := t.Kubernetes
	switch {
	case t.LegacyNamespace != nil:
		return errors.New("token is a legacy service-account token")
	case k == nil:
		return errors.New("token has no kubernetes.io claim")
	case k.WarnAfter != nil:
		return errors.New("token has warnafter: it is an API token stretched to a year; project one for our audience")
	case k.ValidatingWebhook != nil, k.MutatingWebhook != nil, k.Attestations != nil:
		return errors.New("token is the API server's own, for a webhook")
	case !federation.ValidSegment(k.Namespace) || strings.ContainsAny(k.Namespace, "."):
		return errors.New("namespace is missing or not a Kubernetes name")
	case !federation.ValidSegment(k.ServiceAccount.Name):
		return errors.New("service account is missing or not a Kubernetes name")
	case k.ServiceAccount.UID == "":
		return errors.New("service account has no uid")
	case t.Subject != subjectPrefix+k.Namespace+":"+k.ServiceAccount.Name:
		return errors.New("sub does not agree with the kubernetes.io claim")
	case (k.Pod.Name == "") != (k.Pod.UID == ""):
		return errors.New("pod has a name or a uid but not both")
	case a.settings.RequirePod && k.Pod.UID == "":
		return errors.New("token is not bound to a pod, which this issuer requires")
	}
	return nil
}
