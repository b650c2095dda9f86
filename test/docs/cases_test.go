package docs

import (
	"context"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/rehearsal"
)

// The cases of the page about policy pass, against the rules that it shows.
func TestPolicyCasesInTheDocumentationPass(t *testing.T) {
	t.Parallel()
	files := configuration(t, filepath.Join(root, "README.md"))
	maps.Copy(files, configuration(t, filepath.Join(root, "docs", "policy.md")))
	maps.DeleteFunc(files, func(name, _ string) bool { return !strings.Contains(name, "/") }) // the server file is the starter's
	dir, kinds := laid(t, files)
	set, cases, err := config.LoadCases(dir, nil, kinds)
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
