package aws

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
)

// Trust is what makes AWS trust us for a target: once in two forms.
type Trust struct {
	CLI       string // commands of the AWS CLI
	Terraform string
}

// TrustOf returns it for a target whose settings loaded. issuer is our issuer identifier, life the longest session in seconds.
func TrustOf(t brokers.Target, s Settings, issuer string, life int64) (Trust, error) {
	if s.Compatible {
		return Trust{}, fmt.Errorf("target %s is at a store that is not AWS: tell it in its own way to trust the issuer %s%s, the audience %s and the subject %s",
			t.Name, issuer, brokers.AssertionsPath, audience(s), Subject(t.Name))
	}
	r, err := parseRole(s)
	if err != nil {
		return Trust{}, err
	}
	own := issuer + brokers.AssertionsPath
	u, err := url.Parse(own)
	if err != nil {
		return Trust{}, err
	}
	provider := u.Host + u.Path
	arn := "arn:" + r.partition + ":iam::" + r.account + ":oidc-provider/" + provider
	policy, err := json.MarshalIndent(map[string]any{"Version": policyFormat, "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"Federated": arn},
		"Action":    []string{"sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"},
		"Condition": map[string]any{"StringEquals": map[string]string{provider + ":aud": audience(s), provider + ":sub": Subject(t.Name)}},
	}}}, "", "  ")
	if err != nil {
		return Trust{}, err
	}
	life = max(life, 3600)
	cli := fmt.Sprintf(`# Once for the account: an error that the provider exists means that it is there. AWS reads our keys from %s/jwks, over public https.
aws iam create-open-id-connect-provider --url %s --client-id-list %s
# A role for this target alone. What it may do are its own policies; sessions are bounded by their scopes.
aws iam create-role --role-name %s --max-session-duration %d --assume-role-policy-document '%s'
`, own, own, audience(s), r.name, life, policy)
	terraform := fmt.Sprintf(`resource "aws_iam_openid_connect_provider" "sallyport" {
  url            = %q
  client_id_list = [%q]
}

resource "aws_iam_role" %q {
  name                 = %q
  max_session_duration = %d
  assume_role_policy   = <<-EOT
    %s
  EOT
}
`, own, audience(s), strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.Name), r.name, life, strings.ReplaceAll(string(policy), "\n", "\n    "))
	return Trust{cli, terraform}, nil
}

// Withdraw prints the command that ends the trust in our keys at the account of a target.
func Withdraw(s Settings, issuer string) string {
	r, err := parseRole(s)
	u, err2 := url.Parse(issuer + brokers.AssertionsPath)
	if err != nil || err2 != nil || s.Compatible {
		return ""
	}
	arn := "arn:" + r.partition + ":iam::" + r.account + ":oidc-provider/" + u.Host + u.Path
	return "aws iam delete-open-id-connect-provider --open-id-connect-provider-arn " + arn + "\n# Sessions that are alive end by themselves, within the longest session of their roles.\n"
}
