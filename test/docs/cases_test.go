package docs

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	"github.com/sallyport-sts/sallyport/issuers"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/rehearsal"
)

// The cases of the page about policy pass, against the rules that it shows.
func TestPolicyCasesInTheDocumentationPass(t *testing.T) {
	t.Parallel()
	files := configuration(t, filepath.Join(root, "README.md"))
	maps.Copy(files, configuration(t, filepath.Join(root, "docs", "policy.md")))
	dir := filepath.Join(t.TempDir(), "sallyport")
	if _, err := config.Init(dir); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"trust", "targets", "policy"} {
		if err := os.RemoveAll(filepath.Join(dir, folder)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if !strings.Contains(name, "/") {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is, err := issuers.NewSet(kubernetes.Kind())
	if err != nil {
		t.Fatal(err)
	}
	bs, err := brokers.NewSet(jwt.Kind())
	if err != nil {
		t.Fatal(err)
	}
	set, cases, err := config.LoadCases(dir, nil, config.Kinds{Issuers: is, Brokers: bs})
	if err != nil {
		t.Fatal(err)
	}
	results, err := rehearsal.Run(context.Background(), set, cases)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) < 3 {
		t.Errorf("the page shows %d cases; the test looks at nothing", len(results))
	}
	for _, r := range results {
		if !r.OK() {
			t.Errorf("%s: got %+v, want %+v", r.Case.Name, r.Got, r.Case.Expect)
		}
	}
}
