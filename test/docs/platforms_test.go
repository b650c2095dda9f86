package docs

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
