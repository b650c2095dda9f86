package docs

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
	azurebroker "github.com/sallyport-sts/sallyport/brokers/azure"
	gcpbroker "github.com/sallyport-sts/sallyport/brokers/gcp"
	"github.com/sallyport-sts/sallyport/brokers/upstream"
)

// The samples for platforms load as they stand, and the job asks for the audience that the trust file accepts.
func TestSamplesOfPlatformsLoad(t *testing.T) {
	t.Parallel()
	for name, job := range map[string]string{"github": "workflow.yaml", "gitlab": "gitlab-ci.yaml"} {
		dir, files := filepath.Join(root, "deploy", name), sample(t, name)
		set, err := load(t, files)
		if err != nil {
			t.Errorf("deploy/%s: %v", name, err)
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, job))
		if err != nil {
			t.Fatal(err)
		}
		if audience := set.Issuers[0].Audiences[0]; !strings.Contains(string(raw), "SALLYPORT: "+audience+"\n") {
			t.Errorf("deploy/%s/%s does not ask for the audience %s", name, job, audience)
		}
	}
}

// The samples of targets load beside the trust file of the README.
func TestSamplesOfTargetsLoad(t *testing.T) {
	t.Parallel()
	readme := configuration(t, filepath.Join(root, "README.md"))
	for _, name := range []string{"mysql", "postgres", "redis", "vault"} {
		files := maps.Clone(readme) // a sample that is a target alone has no policy of its own
		maps.Copy(files, sample(t, name))
		set, err := load(t, files)
		if err != nil {
			t.Errorf("deploy/%s: %v", name, err)
			continue
		}
		if len(set.Targets) < 2 { // one is built in
			t.Errorf("deploy/%s has no target", name)
		}
	}
}

// The samples of clouds load, and what stands there for the other side is what sallyport trust prints for them.
func TestSamplesOfCloudsLoadAndAreTrusted(t *testing.T) {
	t.Parallel()
	readme := configuration(t, filepath.Join(root, "README.md"))
	readme["sallyport.yaml"] = "issuer: https://sts.example\nlisten: {workload: 127.0.0.1:8443}\ntls: off\nsigning: {algorithms: [ES256, RS256], seal_with: {file: secrets/kek}}\n"
	for _, name := range []string{"aws", "azure", "gcp"} {
		files := maps.Clone(readme)
		maps.Copy(files, sample(t, name))
		set, err := load(t, files)
		if err != nil {
			t.Errorf("deploy/%s: %v", name, err)
			continue
		}
		printed := ""
		for _, target := range set.Targets {
			var trust upstream.Trust
			switch s := target.Settings.(type) {
			case *awsbroker.Settings:
				trust, err = awsbroker.TrustOf(target.Broker, *s, set.Server.Issuer, int64(target.Policy.MaxLifetime/time.Second))
			case *azurebroker.Settings:
				trust, err = azurebroker.TrustOf(target.Broker, *s, set.Server.Issuer)
			case *gcpbroker.Settings:
				if s.HandOver { // the same provider
					continue
				}
				trust, err = gcpbroker.TrustOf(target.Broker, *s, set.Server.Issuer)
			default:
				continue
			}
			if err != nil {
				t.Error(err)
			}
			printed += trust.Terraform
		}
		path := filepath.Join(root, "deploy", name, "trust.tf")
		if *update {
			if err := os.WriteFile(path, []byte(printed), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if raw, err := os.ReadFile(path); err != nil || printed == "" || string(raw) != printed {
			t.Errorf("deploy/%s/trust.tf is not what sallyport trust %s -o terraform prints (%v); go test ./test/docs -run Clouds -update", name, name, err)
		}
	}
}

var update = flag.Bool("update", false, "write the trust files of deploy")

// sample reads the configuration files below a folder of deploy.
func sample(t *testing.T, name string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, folder := range []string{"trust", "targets", "policy"} {
		found, err := filepath.Glob(filepath.Join(root, "deploy", name, folder, "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files[folder+"/"+filepath.Base(path)] = string(raw)
		}
	}
	return files
}
