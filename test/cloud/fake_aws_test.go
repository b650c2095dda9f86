package cloud

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/brokers/aws/awstest"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
)

const assertions = "https://sts.example/assertions"

// The fake of AWS that the broker is tested against is one that AWS's own SDK understands: its answers, its errors, its signatures.
func TestFakeOfAWSSpeaksToTheVendorsSDK(t *testing.T) {
	t.Parallel()
	issuer := federationtest.NewNamed(t, assertions, jose.ES256)
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(issuer.JWKS(), &keys); err != nil {
		t.Fatal(err)
	}
	fake := awstest.New(t, assertions, "sallyport:orders-bucket", func(j *jose.JSONWebSignature) ([]byte, error) { return j.Verify(keys.Keys[0].Key) })
	assertion := func(subject string) *string {
		return aws.String(issuer.Sign(issuer.Claims(time.Now(), subject, "sts.amazonaws.com").With("sub", subject)).Reveal())
	}
	client := sts.New(sts.Options{Region: region, BaseEndpoint: &fake.URL, RetryMaxAttempts: 1})
	assume := func(role, subject string, policy *string) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		return client.AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: &role, RoleSessionName: aws.String("sdk"), DurationSeconds: aws.Int32(900), WebIdentityToken: assertion(subject), Policy: policy,
		})
	}
	code := func(what string, err error, want string) {
		t.Helper()
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}

	got, err := assume(awstest.Role, "sallyport:orders-bucket", nil)
	if err != nil || !strings.HasPrefix(aws.ToString(got.AssumedRoleUser.Arn), awstest.Session) || got.Credentials.Expiration.Before(time.Now()) {
		t.Fatalf("a session: %+v, %v", got, err)
	}
	_, err = assume(awstest.Role, "sallyport:another", nil)
	code("another subject", err, "AccessDenied")

	bound, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Resource": awstest.Role, "Action": []string{"iam:ListRolePolicies", "iam:GetRolePolicy", "iam:PutRolePolicy", "iam:DeleteRolePolicy"}}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err = assume(awstest.Revoker, "sallyport-revoker:orders-bucket", aws.String(string(bound)))
	if err != nil {
		t.Fatal(err)
	}
	as := func(secret string) *iam.Client {
		return iam.New(iam.Options{Region: region, BaseEndpoint: &fake.URL, RetryMaxAttempts: 1,
			Credentials: credentials.NewStaticCredentialsProvider(*got.Credentials.AccessKeyId, secret, *got.Credentials.SessionToken)})
	}
	role, name, document := aws.String("orders"), aws.String("sdk"), `{"Version":"2012-10-17","Statement":[]}`
	_, err = as("another-secret-that-is-wrong").ListRolePolicies(t.Context(), &iam.ListRolePoliciesInput{RoleName: role})
	code("another secret", err, "SignatureDoesNotMatch")
	admin := as(*got.Credentials.SecretAccessKey)
	if _, err := admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: role, PolicyName: name, PolicyDocument: &document}); err != nil {
		t.Fatal(err)
	}
	if list, err := admin.ListRolePolicies(t.Context(), &iam.ListRolePoliciesInput{RoleName: role}); err != nil || len(list.PolicyNames) != 1 || list.PolicyNames[0] != "sdk" {
		t.Errorf("the list is %+v, %v", list, err)
	}
	read, err := admin.GetRolePolicy(t.Context(), &iam.GetRolePolicyInput{RoleName: role, PolicyName: name})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := url.PathUnescape(*read.PolicyDocument); err != nil || text != document {
		t.Errorf("the document is %s, %v", text, err)
	}
	_, err = admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: role, PolicyName: aws.String("large"), PolicyDocument: aws.String(`"` + strings.Repeat("x", 10300) + `"`)})
	code("a policy that is too large", err, "LimitExceeded")
	_, err = admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("other"), PolicyName: name, PolicyDocument: &document})
	code("another role", err, "AccessDenied")
	if _, err := admin.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: role, PolicyName: name}); err != nil {
		t.Fatal(err)
	}
	_, err = admin.GetRolePolicy(t.Context(), &iam.GetRolePolicyInput{RoleName: role, PolicyName: name})
	code("a policy that is gone", err, "NoSuchEntity")
}
