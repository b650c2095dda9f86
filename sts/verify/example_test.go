package verify_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/verify"
)

// protect lets requests through whose token is for orders, is alive, and has the scope read.
func protect(issuer, bearerFile string, next http.Handler) (http.Handler, error) {
	v, err := verify.New(verify.Config{
		Issuer:     issuer,
		Audience:   "https://orders.prod.example/",
		Algorithms: []string{"ES256"},
		Introspect: verify.Introspect(func(context.Context) (secret.Value, error) { // leave it out to check offline
			b, err := os.ReadFile(bearerFile)
			return secret.New(string(b)), err
		}),
	})
	if err != nil {
		return nil, err
	}
	return v.Middleware(v.RequireScope("read")(next)), nil
}

// follow lets requests through by what the feed has told, and introspects while it is silent.
func follow(ctx context.Context, issuer string, bearer func(context.Context) (secret.Value, error)) (*verify.Verifier, error) {
	v, err := verify.New(verify.Config{
		Issuer:     issuer,
		Audience:   "https://orders.prod.example/",
		Algorithms: []string{"ES256"},
		Follow:     &verify.Following{Bearer: bearer},
		Introspect: verify.Introspect(bearer),
	})
	if err == nil {
		go v.Follow(ctx)
	}
	return v, err
}

// listOrders knows who asks.
func listOrders(w http.ResponseWriter, r *http.Request) {
	token, ok := verify.FromContext(r.Context())
	if !ok {
		http.Error(w, "not behind the middleware", http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "orders for", token.Subject())
}

// A resource server, and what it answers to a token with the scope, to one without, and to none.
func Example() {
	dir, err := os.MkdirTemp("", "verify-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	sallyport, err := start(dir, false) // a deployment that runs here
	if err != nil {
		panic(err)
	}
	defer sallyport.server.Close()
	own, err := sallyport.exchange("gateway", sts.IntrospectionTarget)
	if err != nil {
		panic(err)
	}
	bearerFile := filepath.Join(dir, "introspection.jwt")
	if err := os.WriteFile(bearerFile, []byte(own+"\n"), 0o600); err != nil {
		panic(err)
	}
	handler, err := protect(sallyport.issuer, bearerFile, http.HandlerFunc(listOrders))
	if err != nil {
		panic(err)
	}
	ask := func(token string) {
		r := httptest.NewRequest(http.MethodGet, "/orders", nil)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	token, err := sallyport.exchange("checkout", "orders", "scope", "read")
	if err != nil {
		panic(err)
	}
	writes, err := sallyport.exchange("checkout", "orders", "scope", "write")
	if err != nil {
		panic(err)
	}
	ask(token)
	ask(writes)
	ask("")
	// Output:
	// 200 orders for spiffe://prod.example/cluster/checkout
	// 403 The token does not have the scope.
	// 401 A bearer token is required.
}
