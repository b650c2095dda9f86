package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

const token = "eyJhbGciOiJub25lIn0"

type holder struct {
	Public  secret.Value
	private secret.Value
	pointer *secret.Value
	list    []secret.Value
	mapped  map[string]secret.Value
	any     any
}

// Nothing that prints, marshals or logs shows a value, however deep it lies.
func TestValueShowsItselfToNobody(t *testing.T) {
	v := secret.New(token)
	h := holder{v, v, &v, []secret.Value{v}, map[string]secret.Value{"k": v}, v}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%w", "%10s", "%t"} {
		for _, x := range []any{v, &v, h, &h, []any{v}, struct{ v any }{v}} {
			fmt.Fprintf(&out, verb+"\n", x)
		}
	}
	fmt.Fprintln(&out, v, h, errors.Join(fmt.Errorf("%v", v)))
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
		for _, x := range []any{v, &v, h, map[string]any{"v": v}} {
			b, err := marshal(x)
			if err != nil {
				t.Errorf("marshalling %T: %v", x, err)
			}
			out.Write(b)
		}
	}
	var log bytes.Buffer
	zl := zerolog.New(&log)
	zl.Info().Interface("v", v).Interface("h", h).Str("s", v.String()).Any("a", &v).Msg(v.String())
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v, "h", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "h", h)
	out.Write(log.Bytes())
	hex := fmt.Sprintf("%x", token)
	for _, s := range []string{token, hex, strings.ToUpper(hex), fmt.Sprint([]byte(token))} {
		if strings.Contains(out.String(), s) {
			t.Errorf("a value was printed:\n%s", out.String())
		}
	}
	if !strings.Contains(out.String(), secret.Redacted) {
		t.Error("nothing says that there was a value")
	}
}

func TestValue(t *testing.T) {
	v, zero := secret.New("abc"), secret.Value{}
	if v.Reveal() != "abc" || v.Len() != 3 || v.IsZero() || !zero.IsZero() || zero.Reveal() != "" {
		t.Error("a value is not what it was made of")
	}
	for _, tc := range []struct {
		a, b secret.Value
		want bool
	}{{v, secret.New("abc"), true}, {v, secret.New("abd"), false}, {v, secret.New("ab"), false}, {v, zero, false}, {zero, secret.New(""), true}} {
		if tc.a.Equal(tc.b) != tc.want {
			t.Errorf("Equal of %d and %d bytes is %v", tc.a.Len(), tc.b.Len(), !tc.want)
		}
	}
}
