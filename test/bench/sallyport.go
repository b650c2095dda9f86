package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// sallyportFiles are the configuration that rows C and D run, by path in the configuration folder. The
// rule asks for the same two claims the floors check.
func sallyportFiles(keySet []byte, workload, ops, durability string) map[string][]byte {
	kek := make([]byte, 32)
	rand.Read(kek) // never fails (crypto/rand)
	server := fmt.Sprintf(`issuer: http://%[1]s
listen: {workload: %[1]s, ops: %[2]s}
tls: off
data_dir: data
signing: {seal_with: {file: secrets/kek}}
audit: {dir: data/audit, durability: %[3]s}
`, workload, ops, durability)
	trust := fmt.Sprintf(`trust_domain: prod.example
issuers:
  - name: ci
    type: oidc
    issuer: %s
    audiences: [%s]
    algorithms: [RS256]
    keys: {jwks_file: keys/ci.json}
    max_lifetime: 24h
    oidc: {path: [repository_id], attributes: {repository_id: {claim: repository_id}, ref: {claim: ref}}}
`, subjectIssuer, subjectAudience)
	target := fmt.Sprintf(`target: %s
broker: jwt
max_lifetime: 15m
scopes: {%s: {}}
`, targetName, scopeName)
	policy := fmt.Sprintf(`rules:
  - name: ci-reads-orders
    workloads: {trust_domain: prod.example, issuer: ci, where: {repository_id: %q, ref: %s}}
    targets: [%s]
    scopes: [%s]
    lifetime: 10m
`, repositoryID, repositoryRef, targetName, scopeName)
	return map[string][]byte{
		"sallyport.yaml":      []byte(server),
		"trust/prod.yaml":     []byte(trust),
		"targets/orders.yaml": []byte(target),
		"policy/orders.yaml":  []byte(policy),
		"keys/ci.json":        keySet,
		"secrets/kek":         []byte(base64.StdEncoding.EncodeToString(kek) + "\n"),
	}
}
