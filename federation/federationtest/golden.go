package federationtest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/sallyport-sts/sallyport/federation"
)

// Goldens runs every archive testdata/*.txtar of an adapter: it signs claims.json, verifies the token for real, names
// it as prod.example/<name> and compares what comes out with identity.json or error.txt. build makes the adapter
// from settings.yaml, "" when the archive has none; what it refuses is a golden, too. update rewrites the answers
// instead of comparing them: review the diff as code.
func Goldens(t *testing.T, update bool, name string, build func(settings string) (federation.Adapter, error)) {
	t.Helper()
	for _, path := range goldenFiles(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive, files := golden(t, path)
			file, got := goldenAnswer(t, name, files["settings.yaml"], files["claims.json"], build)
			if update {
				rewriteGolden(t, path, archive, file, got)
				return
			}
			if files[file] != got {
				t.Errorf("%s is\n%swant\n%s", file, got, files[file])
			}
		})
	}
}

// GoldenClaims returns the claims.json of every archive, as seeds of a fuzz target.
func GoldenClaims(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, path := range goldenFiles(t) {
		_, files := golden(t, path)
		out = append(out, []byte(files["claims.json"]))
	}
	return out
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	return paths
}

func golden(t testing.TB, path string) (*txtar.Archive, map[string]string) {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, f := range archive.Files {
		files[f.Name] = string(f.Data)
	}
	return archive, files
}

func goldenAnswer(t *testing.T, name, settings, claims string, build func(string) (federation.Adapter, error)) (file, content string) {
	t.Helper()
	adapter, err := build(settings)
	if err != nil {
		return "error.txt", err.Error() + "\n"
	}
	w, err := Identify(t, name, adapter, []byte(claims))
	if err != nil {
		return "error.txt", err.Error() + "\n"
	}
	attributes := make(map[string]any)
	for k, v := range w.Attributes() {
		attributes[k] = v.Any()
	}
	b, err := json.MarshalIndent(map[string]any{"id": w.ID(), "attributes": attributes}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return "identity.json", string(b) + "\n"
}

func rewriteGolden(t *testing.T, path string, archive *txtar.Archive, name, content string) {
	t.Helper()
	kept := archive.Files[:0]
	for _, f := range archive.Files {
		if f.Name != "identity.json" && f.Name != "error.txt" {
			kept = append(kept, f)
		}
	}
	archive.Files = append(kept, txtar.File{Name: name, Data: []byte(content)})
	if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
