package aws

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// TrustOf returns it for a target whose settings loaded. issuer is our issuer identifier, life the longest session in seconds.
func TrustOf(t brokers.Target, s Settings, issuer string, life int64) (upstream.Trust, error) {
	if s.Compatible {
		return upstream.Trust{}, fmt.Errorf("target %s is at a store that is not AWS: tell it in its own way to trust the issuer %s%s, the audience %s and the subject %s",
			t.Name, issuer, brokers.AssertionsPath, audience(s), upstream.Subject(t.Name))
	}
	if s.Login == loginInside {
		return upstream.Trust{}, fmt.Errorf("target %s is reached from inside AWS, as the role of this service, which only AWS knows: let that role be a principal of %s for sts:AssumeRole, sts:TagSession and sts:SetSourceIdentity", t.Name, s.Role)
	}
	r, err := parseRole(s)
	if err != nil {
		return upstream.Trust{}, err
	}
	own := issuer + brokers.AssertionsPath
	u, err := url.Parse(own)
	if err != nil {
		return upstream.Trust{}, err
	}
	p := provider{url: own, name: u.Host + u.Path, audience: audience(s), account: r}
	out := upstream.Trust{
		CLI: fmt.Sprintf(`# Once for the account: an error that the provider exists means that it is there. AWS reads our keys from %s/jwks, over public https.
aws iam create-open-id-connect-provider --url %s --client-id-list %s
`, own, own, p.audience),
		Terraform: fmt.Sprintf(`resource "aws_iam_openid_connect_provider" "sallyport" {
  url            = %q
  client_id_list = [%q]
}
`, own, p.audience),
	}
	err = p.role(&out, r, "A role for this target alone. What it may do are its own policies; sessions are bounded by their scopes.",
		upstream.Subject(t.Name), max(life, 3600), []string{"sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"}, nil)
	if err != nil || s.Revoker == nil {
		return out, err
	}
	if r, err = parseRole(Settings{Role: s.Revoker.Role}); err != nil {
		return upstream.Trust{}, err
	}
	may := revokerPolicy(s.Role)
	err = p.role(&out, r, "The role that denies revoked sessions: it writes inline policies of that role, and can do nothing else.",
		RevokerSubject(t.Name), 3600, []string{"sts:AssumeRoleWithWebIdentity"}, &may)
	return out, err
}

// provider is what IAM calls our assertion issuer.
type provider struct {
	url, name, audience string
	account             role
}

// role adds a role that trusts one subject, with a policy of its own or none.
func (p provider) role(out *upstream.Trust, r role, comment, subject string, life int64, actions []string, may *policy) error {
	trust, err := json.MarshalIndent(map[string]any{"Version": policyFormat, "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"Federated": "arn:" + p.account.partition + ":iam::" + p.account.account + ":oidc-provider/" + p.name},
		"Action":    actions,
		"Condition": map[string]any{"StringEquals": map[string]string{p.name + ":aud": p.audience, p.name + ":sub": subject}},
	}}}, "", "  ")
	if err != nil {
		return err
	}
	out.CLI += fmt.Sprintf("# %s\naws iam create-role --path %s --role-name %s --max-session-duration %d --assume-role-policy-document '%s'\n", comment, r.path, r.name, life, trust)
	out.Terraform += fmt.Sprintf("\n# %s\nresource \"aws_iam_role\" %q {\n  path                 = %q\n  name                 = %q\n  max_session_duration = %d\n  assume_role_policy   = %s}\n", comment, upstream.Resource(r.name), r.path, r.name, life, heredoc(trust))
	if may == nil {
		return nil
	}
	text, err := json.MarshalIndent(may, "", "  ")
	if err != nil {
		return err
	}
	out.CLI += fmt.Sprintf("aws iam put-role-policy --role-name %s --policy-name sallyport-revoker --policy-document '%s'\n", r.name, text)
	out.Terraform += fmt.Sprintf("\nresource \"aws_iam_role_policy\" %q {\n  name   = \"sallyport-revoker\"\n  role   = aws_iam_role.%s.id\n  policy = %s}\n", upstream.Resource(r.name), upstream.Resource(r.name), heredoc(text))
	return nil
}

func heredoc(text []byte) string {
	return "<<-EOT\n    " + strings.ReplaceAll(string(text), "\n", "\n    ") + "\n  EOT\n"
}

// Withdraw prints the command that ends the trust in our keys at the account of a target.
func Withdraw(s Settings, issuer string) string {
	r, err := parseRole(s)
	u, err2 := url.Parse(issuer + brokers.AssertionsPath)
	if err != nil || err2 != nil || s.Compatible || s.Login == loginInside {
		return ""
	}
	arn := "arn:" + r.partition + ":iam::" + r.account + ":oidc-provider/" + u.Host + u.Path
	return "aws iam delete-open-id-connect-provider --open-id-connect-provider-arn " + arn + "\n# Sessions that are alive end by themselves, within the longest session of their roles.\n"
}
