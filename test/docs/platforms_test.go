package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The samples for platforms load as they stand, and the job asks for the audience that the trust file accepts.
func TestSamplesOfPlatformsLoad(t *testing.T) {
	t.Parallel()
	for name, job := range map[string]string{"github": "workflow.yaml", "gitlab": "gitlab-ci.yaml"} {
		dir := filepath.Join(root, "deploy", name)
		files := map[string]string{}
		for _, folder := range []string{"trust", "targets", "policy"} {
			entries, err := os.ReadDir(filepath.Join(dir, folder))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				raw, err := os.ReadFile(filepath.Join(dir, folder, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				files[folder+"/"+e.Name()] = string(raw)
			}
		}
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
