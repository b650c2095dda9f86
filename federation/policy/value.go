package policy

import (
	"strconv"
	"strings"

	"github.com/sallyport-sts/sallyport/federation"
)

// equal compares type and value; lists are never equal to anything here, [Matcher.Contains] reads them.
func equal(a, b federation.Value) bool {
	switch x := a.Any().(type) {
	case string:
		y, ok := b.Any().(string)
		return ok && x == y
	case bool:
		y, ok := b.Any().(bool)
		return ok && x == y
	case int64:
		y, ok := b.Any().(int64)
		return ok && x == y
	default:
		return false
	}
}

// render prints a value for an operator.
func render(v federation.Value) string {
	switch x := v.Any().(type) {
	case string:
		return x
	case []string:
		return "[" + strings.Join(x, " ") + "]"
	case bool:
		return strconv.FormatBool(x)
	case int64:
		return strconv.FormatInt(x, 10)
	default:
		return "(absent)"
	}
}
