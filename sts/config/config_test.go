package config_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"golang.org/x/tools/txtar"

	"github.com/sallyport-sts/sallyport/brokers"
	awsbroker "github.com/sallyport-sts/sallyport/brokers/aws"
	azurebroker "github.com/sallyport-sts/sallyport/brokers/azure"
	gcpbroker "github.com/sallyport-sts/sallyport/brokers/gcp"
	githubbroker "github.com/sallyport-sts/sallyport/brokers/github"
	"github.com/sallyport-sts/sallyport/brokers/jwt"
	kubernetesbroker "github.com/sallyport-sts/sallyport/brokers/kubernetes"
	"github.com/sallyport-sts/sallyport/brokers/mysql"
	"github.com/sallyport-sts/sallyport/brokers/postgres"
	"github.com/sallyport-sts/sallyport/brokers/redis"
	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/issuers"
	"github.com/sallyport-sts/sallyport/issuers/github"
	"github.com/sallyport-sts/sallyport/issuers/gitlab"
	"github.com/sallyport-sts/sallyport/issuers/kubernetes"
	"github.com/sallyport-sts/sallyport/issuers/oidc"
	"github.com/sallyport-sts/sallyport/sts/config"
)

var update = flag.Bool("update", false, "rewrite golden files and schemas")

// kek is a key-encryption key as `sallyport init` makes one.
const kek = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

// productKinds is what the binary knows.
func productKinds(t testing.TB) config.Kinds {
	t.Helper()
	return kindsOf(t, kubernetes.Kind(), github.Kind(), gitlab.Kind(), oidc.Kind())
}

// testKinds is platforms with a fixed schema and settings of every shape, so that goldens change only when
// this package does.
func testKinds(t testing.TB) config.Kinds {
	t.Helper()
	return kindsOf(t,
		issuers.NewKind("cluster", func(struct{}) (federation.Adapter, error) { return platform{}, nil }),
		issuers.NewKind("forge", buildForge).Sharing(func(issuer string) bool { return issuer == "https://forge.example" }),
	)
}

func kindsOf(t testing.TB, kinds ...issuers.Kind) config.Kinds {
	t.Helper()
	is, err := issuers.NewSet(kinds...)
	if err != nil {
		t.Fatal(err)
	}
	bs, err := brokers.NewSet(awsbroker.Kind(), azurebroker.Kind(), gcpbroker.Kind(), githubbroker.Kind(), jwt.Kind(), kubernetesbroker.Kind(), mysql.Kind(), postgres.Kind(), redis.Kind(), vault.Kind())
	if err != nil {
		t.Fatal(err)
	}
	return config.Kinds{Issuers: is, Brokers: bs}
}

// platform has an attribute of each type.
type platform struct{}

func (platform) Schema() federation.Schema {
	return federation.Schema{
		{Name: "namespace", Type: federation.TypeString, Doc: "namespace"},
		{Name: "service_account", Type: federation.TypeString, Doc: "name"},
		{Name: "ref", Type: federation.TypeString, Doc: "ref"},
		{Name: "repository_id", Type: federation.TypeString, Anchor: true, Doc: "id"},
		{Name: "run", Type: federation.TypeInt, Doc: "number"},
		{Name: "protected", Type: federation.TypeBool, Doc: "flag"},
		{Name: "groups", Type: federation.TypeStrings, Doc: "groups"},
	}
}

func (platform) Name(federation.Claims) (federation.Naming, error) {
	return federation.Naming{}, errors.New("not used")
}

// forgeSettings has a field of each shape.
type forgeSettings struct {
	OwnerIDs    []string          `yaml:"owner_ids" json:"owner_ids" jsonschema:"description=owners"`
	Strict      bool              `yaml:"strict" json:"strict,omitempty" jsonschema:"description=strict"`
	Depth       int               `yaml:"depth" json:"depth,omitempty" jsonschema:"description=depth"`
	Wait        time.Duration     `yaml:"wait" json:"wait,omitempty" jsonschema:"description=wait"`
	Labels      map[string]string `yaml:"labels" json:"labels,omitempty" jsonschema:"description=labels"`
	Level       level             `yaml:"level" json:"level,omitempty" jsonschema:"description=level"`
	Proxy       *forgeProxy       `yaml:"proxy" json:"proxy,omitempty" jsonschema:"description=proxy"`
	forgeCommon `yaml:",inline"`
}

// level decodes itself.
type level string

// UnmarshalYAML takes two words.
func (l *level) UnmarshalYAML(n *yaml.Node) error {
	if n.Value != "low" && n.Value != "high" {
		return errors.New("level is low or high")
	}
	*l = level(n.Value)
	return nil
}

type forgeCommon struct {
	Edition string `yaml:"edition" json:"edition,omitempty" jsonschema:"description=edition"`
}

type forgeProxy struct {
	Host string `yaml:"host" json:"host" jsonschema:"description=host"`
}

func buildForge(s forgeSettings) (federation.Adapter, error) {
	if len(s.OwnerIDs) == 0 {
		return nil, errors.New("owner_ids: a multi-tenant issuer needs a tenant pin; list the ids of your organisations")
	}
	return platform{}, nil
}

// write makes a configuration directory out of archives; later files replace earlier ones, and a file with
// the content "(absent)" removes one.
func write(t testing.TB, archives ...*txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	content := map[string]string{"secrets/kek": kek}
	for _, a := range archives {
		for _, f := range a.Files {
			content[f.Name] = string(f.Data)
		}
	}
	for name, data := range content {
		if data != "(absent)\n" {
			put(t, dir, name, data)
		}
	}
	return dir
}

func put(t testing.TB, dir, name, data string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func archive(t testing.TB, name string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustLoad(t testing.TB, dir string, kinds config.Kinds) *config.Set {
	t.Helper()
	set, err := config.Load(dir, kinds)
	if err != nil {
		t.Fatalf("loading %s: got\n%v\nwant no problem", dir, err)
	}
	return set
}

// problems loads dir and returns what is wrong with it.
func problems(t testing.TB, dir string, kinds config.Kinds) config.Problems {
	t.Helper()
	set, err := config.Load(dir, kinds)
	if err == nil {
		return nil
	}
	var all config.Problems
	if !errors.As(err, &all) {
		t.Fatalf("loading %s: got an error of type %T (%v), want config.Problems", dir, err, err)
	}
	if set != nil {
		t.Errorf("loading %s: got a set beside %d problems", dir, len(all))
	}
	return all
}

func text(all config.Problems) string {
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintln(all.Error())
}
