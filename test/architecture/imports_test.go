package architecture

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sallyport-sts/sallyport"

// layers says, for each part of the tree, which parts of ours it may depend on, directly or not. The arrows
// are those of the design: federation <- issuers, federation <- policy <- brokers <- sts <- cmd, and sts knows no
// issuer and no broker by name.
var layers = []struct {
	part string
	may  []string
}{
	{"federation/secret", nil},
	{"federation/fetch", nil},
	{"federation", []string{"federation/secret", "federation/fetch"}},
	{"federation/federationtest", []string{"federation", "federation/secret", "federation/fetch"}},
	{"federation/policy", []string{"federation", "federation/secret", "federation/fetch"}},
	{"issuers", []string{"federation", "federation/secret", "federation/fetch"}},
	{"issuers/*", []string{"issuers", "federation", "federation/secret", "federation/fetch"}},
	{"brokers", []string{"federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"brokers/brokertest", []string{"*"}},
	{"brokers/azure/azuretest", []string{"*"}},
	{"brokers/gcp/gcptest", []string{"*"}},
	{"brokers/mysql/mariadbtest", []string{"*"}},
	{"brokers/postgres/postgrestest", []string{"test/ports"}},
	{"brokers/*", []string{"brokers", "brokers/upstream", "federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"sts/audit", nil},
	{"sts/limit", nil},
	{"sts/revocation", nil},
	{"sts/statuslist", []string{"sts/revocation"}},
	{"sts/minted", []string{"federation", "federation/secret", "federation/fetch"}},
	{"sts/replay", nil},
	{"sts/metrics", []string{"federation", "federation/secret", "federation/fetch", "sts/audit", "sts/revocation"}},
	{"sts/keys", []string{"federation/secret"}},
	{"sts/lease", []string{"brokers", "federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"sts/store/storetest", []string{"sts/minted", "sts/revocation", "sts/replay", "sts/keys", "sts/lease", "brokers", "federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"sts/store/redis/redistest", []string{"test/ports"}},
	{"sts/store/*", []string{"sts/minted", "sts/revocation", "sts/replay", "sts/keys", "sts/lease", "brokers", "federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"sts/rehearsal", []string{"sts/statuslist", "sts/minted", "sts/operator", "sts/config", "sts/limit", "sts/audit", "sts/store/redis", "sts/revocation", "sts/replay", "sts/keys", "sts/lease", "brokers", "federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"sts/verify", []string{"sts/statuslist", "sts/revocation", "federation", "federation/secret", "federation/fetch"}}, // for resource servers: of the server, how it decides what is dead
	{"sts/operator", []string{"sts/revocation", "federation/policy", "federation", "federation/secret", "federation/fetch"}},
	{"sts/config", []string{"sts/minted", "sts/operator", "sts/limit", "brokers", "federation/policy", "federation", "federation/secret", "federation/fetch", "sts/audit", "sts/store/redis", "sts/revocation", "sts/replay", "sts/keys", "sts/lease"}},
	{"sts", []string{"sts/statuslist", "sts/minted", "sts/operator", "sts/limit", "brokers", "federation/policy", "federation", "federation/secret", "federation/fetch", "sts/audit", "sts/revocation", "sts/replay", "sts/lease", "sts/keys", "sts/store"}},
	{"cmd/*", []string{"*"}},
	{"test/*", []string{"*"}},
}

func TestImportsFollowTheArrows(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Deps " "}}`, module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := ours(fields[0])
		may, ok := allowed(pkg)
		if !ok {
			t.Errorf("package %s has no place in the layout; say in layers where it belongs", pkg)
			continue
		}
		for _, dep := range fields[1:] {
			if d := ours(dep); d != "" {
				seen++
				if !slices.Contains(may, "*") && !slices.Contains(may, d) {
					t.Errorf("%s depends on %s, against the arrows", pkg, d)
				}
			}
		}
	}
	if seen < 20 {
		t.Fatalf("only %d imports of our own packages were seen; the test looks at nothing", seen)
	}
}

func ours(path string) string {
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	return rest
}

// allowed finds the layer of a package: by its path, or by its parent's with /*.
func allowed(pkg string) ([]string, bool) {
	for _, l := range layers {
		parent, wild := strings.CutSuffix(l.part, "/*")
		if pkg == l.part || wild && strings.HasPrefix(pkg, parent+"/") {
			return l.may, true
		}
	}
	return nil, false
}
