package awstest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Policies returns the inline policies of the role.
func (s *Server) Policies() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.policies)
}

// Put makes an inline policy of the role.
func (s *Server) Put(name, document string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies[name] = document
}

// Calls returns how often an action of IAM was called.
func (s *Server) Calls(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[action]
}

// Denied reports whether a policy of the role denies all to a session by its tags.
func (s *Server) Denied(sessionToken string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.sessions[sessionToken]
	for _, text := range s.policies {
		var p struct {
			Statement []struct {
				Effect, Action, Resource string
				Condition                map[string]map[string][]string
			}
		}
		if json.Unmarshal([]byte(text), &p) != nil {
			continue
		}
		for _, st := range p.Statement {
			if st.Effect != "Deny" || st.Action != "*" || st.Resource != "*" || len(st.Condition) != 1 || len(st.Condition["StringEquals"]) == 0 {
				continue
			}
			holds := true
			for key, values := range st.Condition["StringEquals"] {
				tag, ok := strings.CutPrefix(key, "aws:PrincipalTag/")
				holds = holds && ok && len(of.tags[tag]) == 1 && slices.Contains(values, of.tags[tag][0])
			}
			if holds {
				return true
			}
		}
	}
	return false
}

var (
	credentialOf = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=(ASIA[A-Z0-9]{16})/(\d{8})/([a-z0-9-]+)/(iam|sts)/aws4_request, SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$`)
	policyName   = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	blank        = regexp.MustCompile(`\s`)
)

// iam answers what is signed for IAM.
func (s *Server) iam(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	f, err2 := url.ParseQuery(string(body))
	if err != nil || err2 != nil || r.Method != http.MethodPost || f.Get("Version") != "2010-05-08" {
		refuse(w, 400, "ValidationError", "the action is a form")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	who, ok := s.sessions[r.Header.Get("X-Amz-Security-Token")]
	switch {
	case !ok:
		refuse(w, 403, "InvalidClientTokenId", "The security token included in the request is invalid.")
		return
	case !signed(r, body, who):
		refuse(w, 403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
		return
	case who.role != Revoker || !strings.Contains(who.policy, `"iam:`+f.Get("Action")+`"`) || !strings.Contains(who.policy, `"`+Role+`"`) || f.Get("RoleName") != "orders":
		refuse(w, 403, "AccessDenied", "not authorized")
		return
	}
	s.calls[f.Get("Action")]++
	name, document := f.Get("PolicyName"), f.Get("PolicyDocument")
	_, exists := s.policies[name]
	switch action := f.Get("Action"); {
	case action == "ListRolePolicies":
		var members strings.Builder
		for _, n := range slices.Sorted(maps.Keys(s.policies)) {
			members.WriteString("<member>" + n + "</member>")
		}
		answer(w, action, "<PolicyNames>"+members.String()+"</PolicyNames><IsTruncated>false</IsTruncated>")
	case !policyName.MatchString(name):
		refuse(w, 400, "ValidationError", "PolicyName")
	case action == "PutRolePolicy" && !json.Valid([]byte(document)):
		refuse(w, 400, "MalformedPolicyDocument", "Syntax errors in policy.")
	case action == "PutRolePolicy" && s.size(name)+len(blank.ReplaceAllString(document, "")) > 10240:
		refuse(w, 409, "LimitExceeded", "Maximum policy size of 10240 bytes exceeded for role orders")
	case action == "PutRolePolicy":
		s.policies[name] = document
		answer(w, action, "")
	case !exists:
		refuse(w, 404, "NoSuchEntity", "The role policy cannot be found.")
	case action == "GetRolePolicy":
		answer(w, action, "<RoleName>orders</RoleName><PolicyName>"+name+"</PolicyName><PolicyDocument>"+url.PathEscape(s.policies[name])+"</PolicyDocument>")
	case action == "DeleteRolePolicy":
		delete(s.policies, name)
		answer(w, action, "")
	default:
		refuse(w, 400, "InvalidAction", "no such action")
	}
}

func answer(w http.ResponseWriter, action, result string) {
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<%[1]sResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>0f</RequestId></ResponseMetadata></%[1]sResponse>`, action, result)
}

// size is what the role's inline policies have together, without one; blanks do not count.
func (s *Server) size(without string) int {
	n := 0
	for name, text := range s.policies {
		if name != without {
			n += len(blank.ReplaceAllString(text, ""))
		}
	}
	return n
}

// signed reports whether a request bears the signature that the session's secret makes of it.
func signed(r *http.Request, body []byte, who session) bool {
	m := credentialOf.FindStringSubmatch(r.Header.Get("Authorization"))
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if m == nil || err != nil || m[1] != who.key || time.Since(at).Abs() > 15*time.Minute {
		return false
	}
	again, err := http.NewRequest(r.Method, "http://"+r.Host+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return false
	}
	for _, h := range strings.Split(m[5], ";") {
		if h != "host" && h != "content-length" {
			again.Header.Set(h, r.Header.Get(h))
		}
	}
	sum := sha256.Sum256(body)
	err = v4.NewSigner().SignHTTP(r.Context(), aws.Credentials{AccessKeyID: who.key, SecretAccessKey: who.secret, SessionToken: r.Header.Get("X-Amz-Security-Token")}, again, hex.EncodeToString(sum[:]), m[4], m[3], at)
	return err == nil && again.Header.Get("Authorization") == r.Header.Get("Authorization")
}
