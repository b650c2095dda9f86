package cloud

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/sallyport-sts/sallyport/test/deployment"
	"github.com/sallyport-sts/sallyport/test/ports"
)

// deployed is a sample of deploy.
func deployed(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

const bucketFile = `
target: NAME
broker: aws
max_lifetime: 1h
scopes:
  read: {policy: {Version: '2012-10-17', Statement: [{Effect: Allow, Action: 's3:GetObject', Resource: 'arn:aws:s3:::orders/*'}]}}
aws: {role: ROLE, region: us-east-1, endpoint: ENDPOINT, compatible: true}
`

// The AWS SDK and the AWS CLI obtain sessions by credential_process and sign requests that a real S3 server accepts, as far as the scope
// goes; a session of another target is refused there, and another workload gets none.
func TestSDKAndCLIUseSessionsAtARealS3(t *testing.T) {
	address := ports.Address()
	targets := map[string]string{}
	for _, name := range []string{"orders-bucket", "billing-bucket"} {
		targets[name] = strings.NewReplacer("NAME", name, "ROLE", minioRole, "ENDPOINT", "http://"+address+"/").Replace(bucketFile)
	}
	d := deployment.New(t, targets, 20*time.Minute, "")
	d.Serve()
	server := startMinIO(t, address, d.URL+"/assertions")

	sample := deployed(t, "aws/aws-config")
	process := func(workload, target string) string { // as deploy has it, with what is here
		return strings.NewReplacer("[profile orders]", "[profile "+target+"]", "= sallyport ", "= "+d.Bin+" ", "https://sts.example", d.URL, "orders-bucket", target, "/var/run/secrets/tokens/sallyport", workload,
			"/run/sallyport", filepath.Join(d.Dir, "cache"), "eu-west-1", region).Replace(sample)
	}
	workload := d.Workload()
	file := d.Write("aws-config", process(workload, "orders-bucket")+process(workload, "billing-bucket"))
	stranger := d.Write("aws-config-stranger", process(d.WorkloadOf("stranger"), "orders-bucket"))

	get := func(file, profile, bucket string) (string, error) {
		c, err := config.LoadDefaultConfig(t.Context(), config.WithSharedConfigFiles([]string{file}), config.WithSharedConfigProfile(profile))
		if err != nil {
			t.Fatal(err)
		}
		out, err := s3At(server, c.Credentials).GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("greeting")})
		if err != nil {
			return "", err
		}
		defer out.Body.Close()
		text, err := io.ReadAll(out.Body)
		return string(text), err
	}
	denied := func(what string, err error) {
		t.Helper()
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != "AccessDenied" {
			t.Errorf("%s: %v, want AccessDenied", what, err)
		}
	}

	if text, err := get(file, "orders-bucket", "orders"); err != nil || text != "hello from orders" {
		t.Errorf("the SDK reads %q (%v)", text, err)
	}
	_, err := get(file, "orders-bucket", "others")
	denied("beyond the scope, within the role", err)
	_, err = get(file, "billing-bucket", "orders")
	denied("a session of another target", err)
	for _, audience := range []string{"sts.amazonaws.com", "api://AzureADTokenExchange"} { // what a cloud takes is no target
		if out, err := d.Try("exchange", "--server", d.URL, "--audience", audience, "--subject-token-file", workload); err == nil || !strings.Contains(out, "invalid_target") {
			t.Errorf("the audience %s: %s (%v)", audience, out, err)
		}
	}
	if _, err := get(stranger, "orders-bucket", "orders"); err == nil || !strings.Contains(err.Error(), "process provider error") {
		t.Errorf("a workload that may not: %v", err)
	}

	cli := func(args ...string) (string, error) {
		path, err := exec.LookPath("aws")
		if err != nil {
			t.Fatal("the AWS CLI is missing; run: apt-get install -y --no-install-recommends awscli")
		}
		cmd := exec.Command(path, append([]string{"--endpoint-url", server, "--profile", "orders-bucket"}, args...)...)
		cmd.Env = []string{"HOME=" + d.Dir, "PATH=" + os.Getenv("PATH"), "AWS_CONFIG_FILE=" + file, "AWS_SHARED_CREDENTIALS_FILE=" + filepath.Join(d.Dir, "none"), "AWS_EC2_METADATA_DISABLED=true"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := cli("s3", "cp", "s3://orders/greeting", "-"); err != nil || out != "hello from orders" {
		t.Errorf("the CLI reads %q (%v)", out, err)
	}
	if out, err := cli("s3", "cp", file, "s3://orders/greeting"); err == nil || !strings.Contains(out, "AccessDenied") {
		t.Errorf("the CLI writes where it may read: %q (%v)", out, err)
	}

	// The receipt promises nothing that the store does not.
	out := d.Run("revoke", "--admin", d.Admin(), "target=orders-bucket", "--reason", "a drill")
	if !strings.Contains(out, "dies") || !strings.Contains(out, "takes no session back") {
		t.Errorf("the receipt is %s", out)
	}
}
