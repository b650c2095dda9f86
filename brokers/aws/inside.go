package aws

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
)

// Words of the setting login.
const (
	loginAssertion = "assertion"
	loginInside    = "inside"
)

var externalID = regexp.MustCompile(`^[\w+=,.@:/-]{2,}$`)

// insideAWS returns the credentials that AWS gives this process where it runs: those of the task or pod, where the platform names an
// endpoint, and else those of the instance (IMDSv2). Static keys are not looked for. They are cached until shortly before they end.
func insideAWS() aws.CredentialsProvider {
	at := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	if path := os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"); path != "" {
		at = "http://169.254.170.2" + path
	}
	switch {
	case at == "":
		return aws.NewCredentialsCache(ec2rolecreds.New())
	case !isEndpoint(at):
		return refused{}
	}
	return aws.NewCredentialsCache(endpointcreds.New(at, func(o *endpointcreds.Options) {
		o.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(endpointToken)
	}))
}

// isEndpoint reports whether a URL can be that of a task or pod: https, or http to this host or to the addresses that ECS and EKS have.
func isEndpoint(at string) bool {
	u, err := url.Parse(at)
	if err != nil || u.Hostname() == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && (ip.IsLoopback() || slices.Contains([]string{"169.254.170.2", "169.254.170.23", "fd00:ec2::23"}, ip.String()))
	return u.Scheme == "https" || u.Scheme == "http" && local
}

// refused gives no credentials.
type refused struct{}

func (refused) Retrieve(context.Context) (aws.Credentials, error) {
	return aws.Credentials{}, errors.New("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor an address of ECS or EKS")
}

// endpointToken is what the endpoint of a task or pod wants to see; the file is read anew each time.
func endpointToken() (string, error) {
	path := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
	if path == "" {
		return os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN"), nil
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.ContainsAny(string(text), "\r\n") {
		return "", errors.New("the file of the container's authorization token cannot be read, or has a line break")
	}
	return string(text), nil
}
