package docs

import (
	"bytes"
	"debug/elf"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/test/deployment"
	"github.com/sallyport-sts/sallyport/test/ports"
)

func deployed(t *testing.T, name ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(append([]string{root, "deploy"}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// line returns the only value of KEY=VALUE, or of an instruction and its words.
func line(t *testing.T, text, before string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(before)+`(.*)$`).FindAllStringSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("%q stands there %d times, want once", before, len(found))
	}
	return found[0][1]
}

// The image has the binary alone: the one that its build makes needs no library, no shell and no time zones of a system.
func TestImageIsTheBinaryAlone(t *testing.T) {
	t.Parallel()
	file := deployed(t, "Dockerfile")
	run := strings.Fields(line(t, file, "RUN "))
	at := slices.Index(run, "go")
	binary := filepath.Join(t.TempDir(), "sallyport")
	args := run[at+1:]
	args[slices.Index(args, "-o")+1] = binary
	build := exec.Command("go", args...)
	build.Dir, build.Env = sent(t), append(os.Environ(), run[:at]...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 || slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("it is linked to %v (%v), and an image from scratch has nothing", libraries, err)
	}
	raw, err := os.ReadFile(binary)
	if err != nil || !bytes.Contains(raw, []byte("Europe/Berlin")) {
		t.Errorf("it has no time zones of its own (%v)", err)
	}
	if bytes.Contains(raw, []byte(root)) && filepath.IsAbs(root) {
		t.Error("it names the directory that it was built in")
	}
	if cmd, entry := line(t, file, "CMD "), line(t, file, "ENTRYPOINT "); cmd != `["serve", "/etc/sallyport"]` || entry != `["/sallyport"]` {
		t.Errorf("the image runs %s %s", entry, cmd)
	}
}

// sent is a directory with what a build of the image is sent, by Dockerfile.dockerignore: what it names, without tests.
func sent(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	rules := strings.Split(strings.TrimSpace(deployed(t, "Dockerfile.dockerignore")), "\n")
	if !slices.Equal(slices.DeleteFunc(slices.Clone(rules), func(l string) bool { return strings.HasPrefix(l, "#") || strings.HasPrefix(l, "!") }), []string{"*", "**/testdata", "**/*_test.go"}) {
		t.Fatalf("the test does not know these rules: %q", rules)
	}
	for _, rule := range rules {
		name, ok := strings.CutPrefix(rule, "!")
		if !ok {
			continue
		}
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, d os.DirEntry, err error) error {
			rel, relErr := filepath.Rel(root, path)
			switch {
			case err != nil || relErr != nil:
				return errors.Join(err, relErr)
			case d.Name() == "testdata":
				return filepath.SkipDir
			case strings.HasSuffix(path, "_test.go"):
				return nil
			case d.IsDir():
				return os.MkdirAll(filepath.Join(dir, rel), 0o755)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, rel)), 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, rel), raw, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What the unit of systemd does is done: checked, started, reloaded, stopped.
func TestUnitChecksStartsReloadsAndStops(t *testing.T) {
	t.Parallel()
	unit := deployed(t, "systemd", "sallyport.service")
	dir := filepath.Join(t.TempDir(), "conf")
	if _, err := config.Init(dir); err != nil {
		t.Fatal(err)
	}
	workload, ops := ports.Address(), ports.Address()
	server := filepath.Join(dir, "sallyport.yaml")
	text, err := os.ReadFile(server)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(server, []byte(strings.NewReplacer("127.0.0.1:8443", workload, "127.0.0.1:9090", ops).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := deployment.Binary(t)
	command := func(key string, pid int) *exec.Cmd {
		words := strings.Fields(strings.NewReplacer("/usr/local/bin/sallyport", binary, "/etc/sallyport", dir, "$MAINPID", strconv.Itoa(pid)).Replace(line(t, unit, key+"=")))
		return exec.Command(words[0], words[1:]...)
	}
	if out, err := command("ExecStartPre", 0).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	serve := command("ExecStart", 0)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	serve.Stderr = log
	said := func() string {
		raw, _ := os.ReadFile(log.Name())
		return string(raw)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	t.Cleanup(func() { _ = serve.Process.Kill() })
	await := func(what string, is func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within 30 seconds:\n%s", what, said())
			}
		}
	}
	await("ready", func() bool {
		resp, err := http.Get("http://" + ops + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if out, err := command("ExecReload", serve.Process.Pid).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	await("reloaded", func() bool { return strings.Contains(said(), "configuration reloaded") })
	if err := serve.Process.Signal(syscall.SIGTERM); err != nil { // KillSignal is not set
		t.Fatal(err)
	}
	patience, err := time.ParseDuration(line(t, unit, "TimeoutStopSec="))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Errorf("it did not end within %s", patience)
	}
}

// pod is what of a Kubernetes manifest matters here.
type pod struct {
	Kind string
	Data map[string]string
	Spec struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Args  []string
					Ports []struct {
						Name          string
						ContainerPort int `yaml:"containerPort"`
					}
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
					LivenessProbe  probe `yaml:"livenessProbe"`
					ReadinessProbe probe `yaml:"readinessProbe"`
				}
				Volumes []struct {
					Name      string
					Projected struct {
						Sources []map[string]struct {
							Name  string
							Items []struct{ Key, Path string }
						}
					}
				}
			}
		}
	}
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// The configuration that the manifest mounts loads as it would be mounted, at the path that the pod serves.
func TestManifestOfADeploymentLoads(t *testing.T) {
	t.Parallel()
	var data map[string]string
	var set pod
	for _, doc := range strings.Split(deployed(t, "kubernetes", "sallyport.yaml"), "\n---\n") {
		var p pod
		if err := yaml.Unmarshal([]byte(doc), &p); err != nil {
			t.Fatal(err)
		}
		switch p.Kind {
		case "ConfigMap":
			data = p.Data
		case "StatefulSet":
			set = p
		}
	}
	spec := set.Spec.Template.Spec
	files, mounted := map[string]string{}, 0
	for _, s := range spec.Volumes[0].Projected.Sources {
		for kind, from := range s {
			for _, item := range from.Items {
				if kind != "configMap" || from.Name != "sallyport" {
					continue
				}
				mounted++
				files[item.Path] = data[item.Key]
			}
		}
	}
	if mounted != len(data) || mounted < 4 {
		t.Errorf("%d of %d files are mounted", mounted, len(data))
	}
	cert, key := certificate(t)
	files["tls/tls.crt"], files["tls/tls.key"], files["cluster/ca.crt"] = cert, key, cert
	dir, kinds := laid(t, files)
	loaded, err := config.Load(dir, kinds)
	if err != nil {
		t.Fatal(err)
	}
	c := spec.Containers[0]
	if want := []string{"serve", c.VolumeMounts[0].MountPath}; !slices.Equal(c.Args, want) || spec.Volumes[0].Name != c.VolumeMounts[0].Name {
		t.Errorf("the container runs %v, want %v", c.Args, want)
	}
	for _, p := range c.Ports {
		listen := map[string]string{"workload": loaded.Server.Listen.Workload, "ops": loaded.Server.Listen.Ops}[p.Name]
		if !strings.HasSuffix(listen, ":"+strconv.Itoa(p.ContainerPort)) {
			t.Errorf("port %s is %d, and the server listens at %s", p.Name, p.ContainerPort, listen)
		}
	}
	for path, probe := range map[string]string{"/livez": c.LivenessProbe.HTTPGet.Path + c.LivenessProbe.HTTPGet.Port, "/readyz": c.ReadinessProbe.HTTPGet.Path + c.ReadinessProbe.HTTPGet.Port} {
		if probe != path+"ops" {
			t.Errorf("a probe asks %s, want %s at ops", probe, path)
		}
	}
	if s := loaded.Server; !strings.HasPrefix(s.DataDir, c.VolumeMounts[1].MountPath+"/") || !strings.HasPrefix(s.Audit.Dir, c.VolumeMounts[1].MountPath+"/") || !strings.HasPrefix(s.Listen.Admin, c.VolumeMounts[1].MountPath+"/") {
		t.Errorf("state is at %s, %s and %s, and the volume at %s", s.DataDir, s.Audit.Dir, s.Listen.Admin, c.VolumeMounts[1].MountPath)
	}
}
