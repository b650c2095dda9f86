package awstest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// What the role's trust policy demands of those who assume it from inside AWS.
const (
	Instance   = "arn:aws:iam::123456789012:role/sallyport-instance"
	ExternalID = "orders:external"
)

const metadataToken = "token-of-the-metadata"

// metadata answers as an instance's metadata does (IMDSv2): credentials of its role, for who has a token of it.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	const role = "/latest/meta-data/iam/security-credentials/"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
		_, _ = w.Write([]byte(metadataToken))
	case r.Header.Get("X-aws-ec2-metadata-token") != metadataToken:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == role:
		_, _ = w.Write([]byte("sallyport-instance"))
	case r.URL.Path == role+"sallyport-instance":
		made := session{key: "ASIA" + rand.Text()[:16], secret: rand.Text() + rand.Text()[:12], role: Instance}
		token := strings.Repeat(rand.Text(), 10)
		s.mu.Lock()
		s.sessions[token] = made
		s.mu.Unlock()
		now := time.Now().UTC()
		_ = json.NewEncoder(w).Encode(map[string]string{
			"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": now.Format(time.RFC3339), "Expiration": now.Add(time.Hour).Format(time.RFC3339),
			"AccessKeyId": made.key, "SecretAccessKey": made.secret, "Token": token,
		})
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// inside checks who signed an AssumeRole, and reads its parameters.
func (s *Server) inside(r *http.Request, body []byte, f url.Values) (source string, tags map[string][]string, code, message string) {
	s.mu.Lock()
	who, ok := s.sessions[r.Header.Get("X-Amz-Security-Token")]
	s.mu.Unlock()
	switch {
	case !ok:
		return "", nil, "InvalidClientTokenId", "The security token included in the request is invalid."
	case !signed(r, body, who):
		return "", nil, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
	case who.role != Instance, f.Get("RoleArn") == Role && f.Get("ExternalId") != ExternalID:
		return "", nil, "AccessDenied", "not authorized to perform sts:AssumeRole"
	}
	tags = map[string][]string{}
	for i := 1; f.Has(fmt.Sprintf("Tags.member.%d.Key", i)); i++ {
		key, value := f.Get(fmt.Sprintf("Tags.member.%d.Key", i)), f.Get(fmt.Sprintf("Tags.member.%d.Value", i))
		if len(key) > 128 || !tag.MatchString(key) || !tag.MatchString(value) || strings.HasPrefix(strings.ToLower(key), "aws:") || i > 50 {
			return "", nil, "ValidationError", "a tag"
		}
		tags[key] = []string{value}
	}
	if source = f.Get("SourceIdentity"); source != "" && !sessionName.MatchString(source) {
		return "", nil, "ValidationError", "SourceIdentity"
	}
	return source, tags, "", ""
}
