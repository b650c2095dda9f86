package azure

import (
	"encoding/json"
	"fmt"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// TrustOf returns what makes an application trust us for a target whose settings loaded. issuer is our issuer identifier.
func TrustOf(t brokers.Target, s Settings, issuer string) (upstream.Trust, error) {
	own, subject := issuer+brokers.AssertionsPath, upstream.Subject(t.Name)
	name := "sallyport-" + upstream.Resource(t.Name)
	credential, err := json.Marshal(map[string]any{"name": name, "issuer": own, "subject": subject, "audiences": []string{audience(s)}})
	if err != nil {
		return upstream.Trust{}, err
	}
	return upstream.Trust{
		CLI: fmt.Sprintf(`# Entra reads our keys from %s/jwks, over public https. The credential is known everywhere after some minutes.
# For a user-assigned managed identity: az identity federated-credential create, with the same issuer, subject and audience.
az ad app federated-credential create --id %s --parameters '%s'
`, own, s.Client, credential),
		Terraform: fmt.Sprintf(`data "azuread_application" %[1]q {
  client_id = %[2]q
}

resource "azuread_application_federated_identity_credential" %[1]q {
  application_id = data.azuread_application.%[1]s.id
  display_name   = %[3]q
  issuer         = %[4]q
  subject        = %[5]q
  audiences      = [%[6]q]
}
`, upstream.Resource(t.Name), s.Client, name, own, subject, audience(s)),
	}, nil
}

// Withdraw prints the command that ends the trust in our keys at the application of a target.
func Withdraw(s Settings, target string) string {
	return "az ad app federated-credential delete --id " + s.Client + " --federated-credential-id sallyport-" + upstream.Resource(target) + "\n# Tokens that are alive end by themselves, within 90 minutes, at some resources within a day.\n"
}
