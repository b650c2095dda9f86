package gcp

import (
	"fmt"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// TrustOf returns what makes a Google Cloud project trust us for a target whose settings loaded. issuer is our issuer identifier.
func TrustOf(t brokers.Target, s Settings, issuer string) (upstream.Trust, error) {
	m := provider.FindStringSubmatch(s.Provider)
	if m == nil {
		return upstream.Trust{}, fmt.Errorf("target %s names no provider", t.Name)
	}
	number, pool, name := m[1], m[2], m[3]
	own, subject := issuer+brokers.AssertionsPath, upstream.Subject(t.Name)
	condition := `google.subject.startsWith("sallyport:")`
	member := fmt.Sprintf("principal://iam.googleapis.com/projects/%s/locations/global/workloadIdentityPools/%s/subject/%s", number, pool, subject)
	cli := fmt.Sprintf(`# Once for the project: an error that they exist means that they are there. Google reads our keys from %[1]s/jwks, over public https;
# where it cannot, add --jwk-json-path=FILE with that document, again after each rotation.
gcloud iam workload-identity-pools create %[3]s --project=%[2]s --location=global
gcloud iam workload-identity-pools providers create-oidc %[4]s --project=%[2]s --location=global --workload-identity-pool=%[3]s \
  --issuer-uri=%[1]s --allowed-audiences=%[5]s \
  --attribute-mapping=google.subject=assertion.sub --attribute-condition='%[6]s'
`, own, number, pool, name, audience(s), condition)
	terraform := fmt.Sprintf(`resource "google_iam_workload_identity_pool" "sallyport" {
  project                   = %q
  workload_identity_pool_id = %q
}

resource "google_iam_workload_identity_pool_provider" "sallyport" {
  project                            = %q
  workload_identity_pool_id          = google_iam_workload_identity_pool.sallyport.workload_identity_pool_id
  workload_identity_pool_provider_id = %q
  attribute_mapping                  = { "google.subject" = "assertion.sub" }
  attribute_condition                = %q
  oidc {
    issuer_uri        = %q
    allowed_audiences = [%q]
  }
}
`, number, pool, number, name, condition, own, audience(s))
	if s.ServiceAccount == "" {
		cli += "# Whoever the target serves acts as this principal; what it may do is yours to bind:\n#   " + member + "\n"
		terraform += "\n# Whoever the target serves acts as this principal; what it may do is yours to bind:\n#   " + member + "\n"
		return upstream.Trust{CLI: cli, Terraform: terraform}, nil
	}
	role := "roles/iam.workloadIdentityUser"
	if s.IDAudience != "" {
		role = "roles/iam.serviceAccountOpenIdTokenCreator"
	}
	cli += fmt.Sprintf("# This target's subject, and no other, may have tokens of the service account.\ngcloud iam service-accounts add-iam-policy-binding %s --role=%s \\\n  --member=%s\n", s.ServiceAccount, role, member)
	terraform += fmt.Sprintf(`
resource "google_service_account_iam_member" %q {
  service_account_id = "projects/-/serviceAccounts/%s"
  role               = %q
  member             = %q
}
`, upstream.Resource(t.Name), s.ServiceAccount, role, member)
	return upstream.Trust{CLI: cli, Terraform: terraform}, nil
}

// Withdraw prints the command that ends the trust in our keys at the project of a target.
func Withdraw(s Settings) string {
	m := provider.FindStringSubmatch(s.Provider)
	if m == nil {
		return ""
	}
	return strings.Join([]string{
		"gcloud iam workload-identity-pools providers update-oidc " + m[3] + " --project=" + m[1] + " --location=global --workload-identity-pool=" + m[2] + " --disabled",
		"# Tokens that are alive end by themselves, within the hour.", "",
	}, "\n")
}
