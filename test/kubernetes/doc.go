// Package kubernetes runs a real Kubernetes API server for tests. Kubernetes meets Sallyport from two sides:
// as an issuer, whose service-account tokens are subject tokens, and as a relying party, which accepts the
// JWTs that Sallyport mints. Both sides are exercised against the unmodified kube-apiserver, not against a
// fake that would share our reading of its documentation.
//
// The flow: [Binary] builds kube-apiserver once into the user's cache directory, [Start] runs it with etcd on
// loopback ports in a temporary directory, and [Client] speaks plain REST to it. There are no controllers, so
// nothing creates service accounts or tokens by itself: a test creates what it needs.
//
// The folder is a module of its own, and so is server below it. Kubernetes brings some 130 modules: none of them
// belongs in the dependency graph of the product, and no dependency of the product in the server that is built. The
// tests import the product for the suite that all brokers pass, and nothing else but the standard library.
//
// Run it with
//
//	go -C test/kubernetes run ./build && go -C test/kubernetes test -count=1 -timeout 15m ./...
//
// A server that is missing is an error and never a skip.
package kubernetes
