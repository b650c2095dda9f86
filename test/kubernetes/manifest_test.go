package kubernetes

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// Where the API server keeps what deploy/kubernetes/sallyport.yaml describes.
var resources = map[string]string{
	"Namespace":      "/api/v1/namespaces",
	"ConfigMap":      "/api/v1/namespaces/sallyport/configmaps",
	"ServiceAccount": "/api/v1/namespaces/sallyport/serviceaccounts",
	"Service":        "/api/v1/namespaces/sallyport/services",
	"StatefulSet":    "/apis/apps/v1/namespaces/sallyport/statefulsets",
	"NetworkPolicy":  "/apis/networking.k8s.io/v1/namespaces/sallyport/networkpolicies",
}

// manifestIsTaken creates what deploy/kubernetes/sallyport.yaml describes at a real API server, which checks every field, and then
// the pod that its template describes, which the namespace's own pod security level (restricted) lets in.
func manifestIsTaken(ctx context.Context, t *testing.T, admin *Client) {
	t.Helper()
	docs := strings.Split(readDeploy(t, "sallyport.yaml"), "\n---\n")
	if len(docs) != len(resources) {
		t.Fatalf("the manifest has %d objects, want %d", len(docs), len(resources))
	}
	for _, doc := range docs {
		_, kind, _ := strings.Cut(doc, "\nkind: ")
		kind, _, _ = strings.Cut(kind, "\n")
		if err := admin.Apply(ctx, resources[kind]+"?fieldValidation=Strict", doc); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	var set struct {
		Spec struct {
			Template struct {
				Metadata map[string]any `json:"metadata"`
				Spec     map[string]any `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	if err := admin.Do(ctx, http.MethodGet, resources["StatefulSet"]+"/sallyport", nil, &set); err != nil {
		t.Fatal(err)
	}
	spec := set.Spec.Template.Spec
	spec["volumes"] = append(spec["volumes"].([]any), map[string]any{"name": "state", "emptyDir": map[string]any{}}) // the controller's part
	pod := map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "sallyport-0", "labels": set.Spec.Template.Metadata["labels"]}, "spec": spec}
	const pods = "/api/v1/namespaces/sallyport/pods?dryRun=All&fieldValidation=Strict"
	if err := admin.Do(ctx, http.MethodPost, pods, pod, nil); err != nil {
		t.Errorf("the pod: %v", err)
	}
	delete(spec["securityContext"].(map[string]any), "runAsNonRoot")
	if err := admin.Do(ctx, http.MethodPost, pods, pod, nil); err == nil || !strings.Contains(err.Error(), "restricted") {
		t.Errorf("a pod that may run as root is let in, and the test shows nothing: %v", err)
	}
}
