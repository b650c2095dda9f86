package databases

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers/brokertest"
	"github.com/sallyport-sts/sallyport/sts/store/redis/redistest"
)

const redisTarget = `target: db
broker: redis
max_lifetime: 15m
scopes:
  read: {keys: ["session:*"], commands: ["+@read", "+@connection"]}
  write: {keys: ["session:*"], commands: ["+@read", "+@write", "+@connection"]}
redis: {urls: [{file: secrets/node}], endpoints: ["rediss://127.0.0.1:%s/0"], ca_file: %q}
`

// A login of Redis by -o env, over TLS that the client verifies, with the sample's rights for Sallyport.
func TestRedisLoginFromTokenToNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := brokertest.WriteCertificates(dir, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	ca := filepath.Join(dir, "ca.pem")
	node, err := redistest.StartNode("port 0", "tls-port "+port, "tls-auth-clients no",
		"tls-ca-cert-file "+ca, "tls-cert-file "+filepath.Join(dir, "server.pem"), "tls-key-file "+filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close() })
	sample, err := os.ReadFile(filepath.Join("..", "..", "deploy", "redis", "sallyport.acl"))
	if err != nil {
		t.Fatal(err)
	}
	admin := []any{"ACL", "SETUSER"}
	for _, word := range strings.Fields(strings.Replace(string(sample), "CHANGE-ME", adminPassword, 1))[1:] {
		admin = append(admin, word)
	}
	if err := node.Client.Do(t.Context(), admin...).Err(); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"session:1", "cart:1"} {
		if err := node.Client.Set(t.Context(), key, "of "+key, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	upstream{
		target: fmt.Sprintf(redisTarget, port, ca),
		files:  map[string]string{"secrets/node": "rediss://sallyport:" + adminPassword + "@127.0.0.1:" + port},
		form:   "env",
		client: func(file string) *exec.Cmd {
			return exec.Command("sh", "-c", `. "$0" && exec redis-cli -u "$REDIS_URL" --no-auth-warning --cacert "$1"`, file, ca)
		},
		parts: func(l login) *exec.Cmd {
			cmd := exec.Command("redis-cli", "-u", l.URLs[0], "--user", l.User, "--no-auth-warning", "--cacert", ca)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "REDISCLI_AUTH=" + l.Password}
			return cmd
		},
		query:  "GET session:1",
		answer: "of session:1",
		denied: map[string]string{
			"GET cart:1":          "NOPERM",
			"SET session:1 mine":  "NOPERM",
			"ACL LIST":            "NOPERM",
			"CONFIG GET dir":      "NOPERM",
			"FUNCTION STATS":      "NOPERM",
			"SUBSCRIBE session:1": "NOPERM",
		},
		locked: "WRONGPASS",
		left: func(t *testing.T) []string {
			var out []string
			users, err := node.Client.Do(t.Context(), "ACL", "LIST").StringSlice()
			if err != nil {
				t.Fatal(err)
			}
			clients, err := node.Client.Do(t.Context(), "CLIENT", "LIST").Text()
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range append(users, strings.Split(clients, "\n")...) {
				if strings.Contains(line, "sts_") {
					out = append(out, line)
				}
			}
			return out
		},
	}.tell(t)
}
