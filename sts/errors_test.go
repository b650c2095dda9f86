package sts

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/replay"
	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// Every exported error of the packages that an exchange passes through has a row: an error that nobody thought of
// would be a 500, or worse, the row of an error it wraps.
func TestEveryExportedErrorHasARow(t *testing.T) {
	t.Parallel()
	rows := rowNames(t)
	seen := 0
	for dir, prefix := range map[string]string{"../federation": "federation.", "../brokers": "brokers.", "revocation": "revocation.", "replay": "replay.", "audit": "audit.", ".": ""} {
		for _, name := range exportedErrors(t, dir) {
			seen++
			if !slices.Contains(rows, prefix+name) {
				t.Errorf("%s%s is in no row of answers", prefix, name)
			}
		}
	}
	if seen < 30 {
		t.Fatalf("only %d exported errors were seen; the test looks at nothing", seen)
	}
	if len(rows) != len(answers) {
		t.Errorf("%d rows in the source, %d in the table", len(rows), len(answers))
	}
}

// goFiles parses the non-test files of one directory.
func goFiles(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no Go files in %s: %v", dir, err)
	}
	var out []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// exportedErrors lists the package variables named Err...
func exportedErrors(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for _, f := range goFiles(t, dir) {
		for _, decl := range f.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						out = append(out, name.Name)
					}
				}
			}
		}
	}
	return out
}

// rowNames reads the first element of each row of answers, as it stands in errors.go.
func rowNames(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || v.Names[0].Name != "answers" {
			return true
		}
		for _, row := range v.Values[0].(*ast.CompositeLit).Elts {
			switch e := row.(*ast.CompositeLit).Elts[0].(type) {
			case *ast.Ident:
				out = append(out, e.Name)
			case *ast.SelectorExpr:
				out = append(out, e.X.(*ast.Ident).Name+"."+e.Sel.Name)
			}
		}
		return false
	})
	return out
}

// The rows are those of the documented table, wrapped or not; what is in no row is a fault of ours.
func TestErrorsGetTheDocumentedAnswer(t *testing.T) {
	t.Parallel()
	type want struct {
		status int
		code   string
	}
	invalidRequest, invalidTarget, unavailable, fault := want{400, "invalid_request"}, want{400, "invalid_target"}, want{503, "temporarily_unavailable"}, want{500, "server_error"}
	expected := map[error]want{
		ErrRateLimited: {429, "temporarily_unavailable"}, ErrForm: invalidRequest, ErrTooLarge: {413, "invalid_request"}, ErrMethod: {405, "invalid_request"},
		ErrGrantType: {400, "unsupported_grant_type"}, ErrClient: {401, "invalid_client"}, ErrCallerUnknown: {401, "invalid_token"}, ErrCallerAnonymous: {401, "invalid_client"}, ErrDelegation: invalidRequest, brokers.ErrUncertain: unavailable,
		ErrScopeSyntax: {400, "invalid_scope"}, ErrScopeDenied: {400, "invalid_scope"}, ErrResourceSyntax: invalidTarget, ErrTargetDenied: invalidTarget, ErrLocked: invalidTarget, revocation.ErrSelector: invalidRequest,
		ErrForged: invalidRequest, ErrRevoked: invalidRequest, ErrWithdrawn: invalidRequest, ErrForeignToken: {400, "unsupported_token_type"}, ErrAmplified: fault, ErrTargetUnservable: fault,
		federation.ErrKeysUnavailable: unavailable, brokers.ErrUnavailable: unavailable, keys.ErrStale: unavailable, keys.ErrInactive: unavailable, keys.ErrKMS: unavailable, revocation.ErrUnavailable: unavailable, revocation.ErrUnshared: unavailable, revocation.ErrStale: unavailable, audit.ErrUnavailable: unavailable,
		lease.ErrLimit: {429, "temporarily_unavailable"}, lease.ErrDying: invalidRequest, lease.ErrUnrevocable: {400, "unsupported_token_type"}, lease.ErrPending: unavailable,
		lease.ErrUnavailable: unavailable, lease.ErrBusy: unavailable, lease.ErrPaused: unavailable, lease.ErrUnknown: fault,
		brokers.ErrMisconfigured: fault, brokers.ErrTooShort: invalidRequest, brokers.ErrScopes: {400, "invalid_scope"}, brokers.ErrInput: invalidRequest,
		replay.ErrUsed: invalidRequest, replay.ErrUnavailable: unavailable,
		brokers.ErrZeroOrder: fault, audit.ErrLocked: fault, audit.ErrContradiction: fault,
	}
	for _, err := range []error{
		federation.ErrMalformed, federation.ErrTokenType, federation.ErrUntrustedIssuer, federation.ErrAlgorithm, federation.ErrSignature, federation.ErrAudience,
		federation.ErrExpired, federation.ErrNotYetValid, federation.ErrLifetime, federation.ErrClaims, federation.ErrNaming, federation.ErrID,
	} {
		expected[err] = invalidRequest
	}
	for _, row := range answers {
		w, ok := expected[row.err]
		if !ok {
			t.Errorf("%v is in no row of this test: say here what it is answered with", row.err)
			continue
		}
		for _, err := range []error{row.err, fmt.Errorf("doing something: %w", row.err)} {
			if a := answerTo(err); a.status != w.status || a.code != w.code {
				t.Errorf("%v is answered with %d %s, want %d %s", err, a.status, a.code, w.status, w.code)
			}
		}
	}
	for _, err := range []error{errors.New("password authentication failed"), os.ErrNotExist, http.ErrAbortHandler} {
		if a := answerTo(err); a.status != 500 || a.code != "server_error" {
			t.Errorf("%v is answered with %d %s, want 500", err, a.status, a.code)
		}
	}
	// A caller whose own token is bad is not authenticated, whatever is wrong with it.
	for _, row := range answers {
		if a := answerTo(fmt.Errorf("%w: %w", ErrCallerUnknown, row.err)); a.status != 401 {
			t.Errorf("a caller refused for %v is answered with %d, want 401", row.err, a.status)
		}
	}
}

// Public texts are RFC 6749 section 5.2 characters, constant for each status and code, and name nothing.
func TestPublicTextsAreHarmless(t *testing.T) {
	t.Parallel()
	byCode := map[string]string{}
	for _, row := range answers {
		a := row.answer
		for _, s := range []string{a.code, a.text} {
			for _, c := range s {
				if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
					t.Errorf("%q has %q", s, c)
				}
			}
		}
		key := fmt.Sprint(a.status, a.code)
		if text, ok := byCode[key]; ok && text != a.text {
			t.Errorf("%s has two texts: %q and %q", key, text, a.text)
		}
		byCode[key] = a.text
		if a.text == "" || a.code == "" || strings.ContainsAny(a.text, "%:") {
			t.Errorf("%s: text %q", key, a.text)
		}
		for _, word := range []string{"issuer", "key", "rule", "domain", "policy", "signature", "expired", "broker"} {
			if strings.Contains(strings.ToLower(a.text), word) {
				t.Errorf("%q tells of a %s", a.text, word)
			}
		}
		if (a.status == 401) != (a.challenge != "") || (a.status == 503 || a.status == 429) != (a.retryAfter != "") {
			t.Errorf("%s: challenge %q, Retry-After %q", key, a.challenge, a.retryAfter)
		}
	}
}
