package cloud

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-sts/sallyport/test/deployment"
)

const image = `{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`

// Docker itself asks the helper for a registry, and for no other. The registry is a fake that takes our tokens as passwords.
func TestDockerAsksTheHelper(t *testing.T) {
	t.Parallel()
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal("Docker's command line is missing; run: apt-get install -y --no-install-recommends docker.io")
	}
	var keys trust
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		user, password, _ := r.BasicAuth()
		jws, err := jose.ParseSignedCompact(password, []jose.SignatureAlgorithm{jose.ES256})
		if err == nil {
			_, err = keys.verifyBy("/jwks", jws)
		}
		switch {
		case user != "ci" || err != nil:
			w.Header().Set("WWW-Authenticate", `Basic realm="shop"`)
			w.WriteHeader(http.StatusUnauthorized)
		case strings.HasSuffix(r.URL.Path, "/manifests/latest"):
			w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v2+json")
			_, _ = w.Write([]byte(image))
		default:
			_, _ = w.Write([]byte("{}"))
		}
	}))
	t.Cleanup(registry.Close)
	d := deployment.New(t, map[string]string{"registry": "target: registry\nbroker: jwt\nmax_lifetime: 15m\nscopes: {read: {}}\n"}, 10*time.Minute, "")
	d.Serve()
	keys.d = d

	host := strings.TrimPrefix(registry.URL, "http://")
	configuration, err := json.Marshal(map[string]any{"credHelpers": map[string]string{host: "sallyport"}})
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(d.Dir, "bin")
	d.Write("docker/config.json", string(configuration))
	d.Write("bin/.keep", "")
	if err := os.Symlink(d.Bin, filepath.Join(bin, "docker-credential-sallyport")); err != nil {
		t.Fatal(err)
	}
	workload := d.Workload()
	inspect := func(registries string) (string, error) {
		cmd := exec.Command(docker, "manifest", "inspect", "--insecure", host+"/shop/app:latest")
		cmd.Env = []string{
			"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "DOCKER_CONFIG=" + filepath.Join(d.Dir, "docker"), "DOCKER_CLI_EXPERIMENTAL=enabled",
			"SALLYPORT_SERVER=" + d.URL, "SALLYPORT_AUDIENCE=registry", "SALLYPORT_SUBJECT_TOKEN_FILE=" + workload, "SALLYPORT_REGISTRY=" + registries, "SALLYPORT_REGISTRY_USERNAME=ci",
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return string(out), err
	}
	if out, err := inspect(host); err != nil || !strings.Contains(out, "distribution.manifest.v2+json") {
		t.Errorf("docker sees %s (%v)", out, err)
	}
	if out, err := inspect("registry.example"); err == nil {
		t.Errorf("the credential of another registry was given: %s", out)
	}
}
