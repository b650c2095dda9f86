package aws_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/aws"
	"github.com/sallyport-sts/sallyport/brokers/aws/awstest"
)

// A service that runs in AWS assumes the role as itself, with the tags as parameters; denying works the same.
func TestContractInsideAWS(t *testing.T) {
	s, made := worldWith(t, func(s *aws.Settings, url string) {
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url) // before the broker is built
		s.Login, s.ExternalID, s.Revoker = "inside", awstest.ExternalID, &aws.Revoker{Role: awstest.Revoker, Endpoint: url}
	})
	b := made.(brokers.BulkRevoker)
	stolen, other := mint(t, b, "stolen"), mint(t, b, "other")
	f := s.Asked()
	if f.Get("Action") != "AssumeRole" || f.Get("SourceIdentity") != "familyabcdefghijklmnopqrst" || f.Has("WebIdentityToken") || f.Get("Tags.member.3.Key") != "sallyport:session" || f.Get("Tags.member.3.Value") != other.handle.Name || f.Get("TransitiveTagKeys.member.3") != "sallyport:session" {
		t.Errorf("asked: %v", f)
	}
	if _, err := b.Revoke(t.Context(), stolen.handle); err != nil || !s.Denied(stolen.token) || s.Denied(other.token) {
		t.Errorf("denied: the stolen one %v, the other %v, %v", s.Denied(stolen.token), s.Denied(other.token), err)
	}
	// Attack: what AWS never sends, to this call as to the other.
	s.Change(func(a string) string { return strings.ReplaceAll(a, "AssumeRoleRes", "AssumeRoleWithWebIdentityRes") })
	if c, err := b.Mint(t.Context(), order(t, 20*time.Minute, "a", "read")); !errors.Is(err, brokers.ErrUncertain) || !c.Value.IsZero() {
		t.Errorf("an answer to the other call: %v", err)
	}
}

// Outside AWS nothing is made, and no static key is looked for.
func TestContractInsideAWSAndNotThere(t *testing.T) {
	for name, at := range map[string]map[string]string{
		"no metadata":              {"AWS_EC2_METADATA_DISABLED": "true"},
		"an endpoint of strangers": {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://credentials.example/"},
		"static keys":              {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-shown-not-shown-not-shown"},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range at {
				t.Setenv(k, v)
			}
			s, b := worldWith(t, func(s *aws.Settings, _ string) { s.Login = "inside" })
			if _, err := b.Mint(t.Context(), order(t, 20*time.Minute, "a", "read")); !errors.Is(err, brokers.ErrUnavailable) || s.Asked() != nil {
				t.Errorf("%v, asked %v", err, s.Asked())
			}
		})
	}
}
