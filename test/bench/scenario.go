package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// scenario is the size of the deployment that rows C to F run: what a floor does not have at all.
type scenario struct {
	rules       int // allow rules of one issuer and one target; the caller's is the last
	conditions  int // how many of them carry a CEL condition, the caller's among them
	issuers     int // trusted issuers; the caller's is the last
	revocations int // live revocations
}

// files are the configuration of one server, by path in its folder. The caller's rule asks for the same two claims
// that the floors check.
func (sc scenario) files(keySet []byte, workload, ops, durability string) map[string][]byte {
	kek := make([]byte, 32)
	rand.Read(kek) // never fails (crypto/rand)
	server := fmt.Sprintf(`issuer: http://%[1]s
listen: {workload: %[1]s, ops: %[2]s}
tls: off
limits: off
data_dir: data
signing: {seal_with: {file: secrets/kek}}
audit: {dir: data/audit, durability: %[3]s}
`, workload, ops, durability)
	target := fmt.Sprintf(`target: %s
broker: jwt
max_lifetime: 15m
scopes: {%s: {}}
`, targetName, scopeName)
	return map[string][]byte{
		"sallyport.yaml":      []byte(server),
		"trust/prod.yaml":     sc.trust(),
		"targets/orders.yaml": []byte(target),
		"policy/orders.yaml":  sc.policy(),
		"keys/ci.json":        keySet,
		"secrets/kek":         []byte(base64.StdEncoding.EncodeToString(kek) + "\n"),
	}
}

// shareStore makes the server a replica over the Redis of the URL.
func shareStore(files map[string][]byte, url string) {
	files["secrets/redis"] = []byte(url + "\n")
	files["sallyport.yaml"] = append(files["sallyport.yaml"], "store: {redis: {url: {file: secrets/redis}}}\n"...)
}

func (sc scenario) trust() []byte {
	var b strings.Builder
	b.WriteString("trust_domain: prod.example\nissuers:\n")
	for i := range sc.issuers {
		name, url := fmt.Sprintf("ci-%d", i), fmt.Sprintf("%s/%d", subjectIssuer, i)
		if i == sc.issuers-1 {
			name, url = "ci", subjectIssuer
		}
		fmt.Fprintf(&b, `  - name: %s
    type: oidc
    issuer: %s
    audiences: [%s]
    algorithms: [RS256]
    keys: {jwks_file: keys/ci.json}
    max_lifetime: 24h
    oidc: {path: [repository_id], attributes: {repository_id: {claim: repository_id}, ref: {claim: ref}}}
`, name, url, subjectAudience)
	}
	return []byte(b.String())
}

// policy: every rule is about the caller's issuer and target. Every tenth of the others is about the caller's
// repository too, and another branch; the rest are about other repositories.
func (sc scenario) policy() []byte {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range sc.rules {
		name, repository, ref := fmt.Sprintf("ci-reads-orders-%d", i), fmt.Sprint(100_000+i), repositoryRef
		if i%10 == 0 {
			repository, ref = repositoryID, fmt.Sprintf("refs/heads/release-%d", i)
		}
		last := i == sc.rules-1
		if last {
			name, repository, ref = "ci-reads-orders", repositoryID, repositoryRef
		}
		fmt.Fprintf(&b, `  - name: %s
    workloads: {trust_domain: prod.example, issuer: ci, where: {repository_id: %q, ref: %s}}
    targets: [%s]
    scopes: [%s]
    lifetime: 10m
`, name, repository, ref, targetName, scopeName)
		if i < sc.conditions-1 || last && sc.conditions > 0 {
			b.WriteString("    when: workload.attr.ref.startsWith('refs/heads/') && env.time.getFullYear() >= 2020\n")
		}
	}
	return []byte(b.String())
}
