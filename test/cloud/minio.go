package cloud

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// Region of everything here.
const region = "us-east-1"

// minioRole is what MinIO calls the role of an OpenID provider with the client id sts.amazonaws.com: it follows from that.
const minioRole = "arn:minio:iam:::role/oxnUw3DAuQF1uggjXGxI2AmW8IA"

// minioPolicy is of whomever the provider vouches for: it says who of them may do what.
const minioPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],
  "Resource":["arn:aws:s3:::orders/*","arn:aws:s3:::others/*"],"Condition":{"StringEquals":{"jwt:sub":"sallyport:orders-bucket"}}}]}`

// startMinIO runs the server at an address until the test ends. It trusts an issuer, which serves its discovery document already.
func startMinIO(t *testing.T, address, issuer string) string {
	t.Helper()
	path, err := Binary(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(path, "server", "--address", address, "--console-address", ports.Address(), "--certs-dir", filepath.Join(dir, "certs"), filepath.Join(dir, "data"))
	cmd.Env = []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "MINIO_ROOT_USER=root-of-tests", "MINIO_ROOT_PASSWORD=root-of-tests", "MINIO_BROWSER=off", "MINIO_UPDATE=off",
		"MINIO_IDENTITY_OPENID_CONFIG_URL=" + issuer + "/.well-known/openid-configuration", "MINIO_IDENTITY_OPENID_CLIENT_ID=sts.amazonaws.com", "MINIO_IDENTITY_OPENID_ROLE_POLICY=targets",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout // it tells of roles there
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			_, _ = t.Output().Write(append(lines.Bytes(), '\n'))
			if _, role, ok := strings.Cut(lines.Text(), "IAM Roles: "); ok {
				said <- role
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		_ = cmd.Wait()
	})
	select {
	case role := <-said:
		if strings.TrimSpace(role) != minioRole {
			t.Fatalf("MinIO calls the role %s", role)
		}
	case <-time.After(time.Minute):
		t.Fatal("MinIO did not get ready in a minute; did it read the discovery document?")
	}
	root := credentials.NewStaticCredentialsProvider("root-of-tests", "root-of-tests", "")
	prepare(t, "http://"+address, root)
	return "http://" + address
}

// prepare makes the policy, and the buckets orders and others with an object in each.
func prepare(t *testing.T, url string, root aws.CredentialsProvider) {
	t.Helper()
	c := s3At(url, root)
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if _, err := c.ListBuckets(t.Context(), nil); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	addPolicy(t, url, root)
	for _, bucket := range []string{"orders", "others"} {
		if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("greeting"), Body: strings.NewReader("hello from " + bucket)}); err != nil {
			t.Fatal(err)
		}
	}
}

// addPolicy calls MinIO's own API, which is signed as S3's is.
func addPolicy(t *testing.T, at string, root aws.CredentialsProvider) {
	t.Helper()
	who, err := root.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, at+"/minio/admin/v3/add-canned-policy?"+url.Values{"name": {"targets"}}.Encode(), strings.NewReader(minioPolicy))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(minioPolicy))
	digest := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", digest)
	if err := v4.NewSigner().SignHTTP(context.Background(), who, req, digest, "s3", region, time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("MinIO takes no policy: %s", resp.Status)
	}
}

// s3At is the vendor's client, for a server of its own address.
func s3At(url string, who aws.CredentialsProvider) *s3.Client {
	return s3.New(s3.Options{Region: region, BaseEndpoint: &url, UsePathStyle: true, Credentials: who, RetryMaxAttempts: 1})
}
