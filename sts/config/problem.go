package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Problem is one reason why a configuration does not load.
type Problem struct {
	File    string `json:"file"`    // relative to the configuration directory, with slashes
	Line    int    `json:"line"`    // from 1; 0 when the problem is the file itself
	Column  int    `json:"column"`  // from 1
	Path    string `json:"path"`    // "issuers[0].keys.jwks_url"; "" for the whole file
	Message string `json:"message"` // the value, the rule it breaks, the fix
}

// String returns "file:line:col: message".
func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.Message
	}
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column) + ": " + p.Message
}

// Problems is every reason why a configuration does not load, in the order of files and lines. It is the
// error of [Load].
type Problems []Problem

// Error returns one problem per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps *Problems) add(file, format string, args ...any) {
	*ps = append(*ps, Problem{File: file, Message: printable(fmt.Sprintf(format, args...))})
}

// sorted returns the problems by place, each once.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}

// show quotes a value from a file for an operator, cut short.
func show(s string) string {
	const most = 80 // characters
	if r := []rune(s); len(r) > most {
		return `"` + string(r[:most]) + `..."`
	}
	return `"` + s + `"`
}

// printable leaves nothing in a message that a terminal would obey; a message is one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// showURL is show for a URL; what stands before an @ may be a password.
func showURL(s string) string { return show(userInformation.ReplaceAllString(s, "//...@")) }

var userInformation = regexp.MustCompile(`//[^/]*@`)

// didYouMean names the nearest of have, as the end of a message; "" when none is near.
func didYouMean(got string, have []string) string {
	const near = 3 // edits that still look like a slip
	best, distance := "", near+1
	for _, h := range have {
		if d := edits(got, h); d < distance && d < max(len(h), len(got)) {
			best, distance = h, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// suggest names the nearest of have, or lists them, as the end of a message.
func suggest(got string, have []string) string {
	const most = 12 // names worth listing
	hint := didYouMean(got, have)
	switch {
	case hint != "":
		return hint
	case len(have) == 0:
		return ""
	case len(have) > most:
		return "; there are " + strings.Join(have[:most], ", ") + ", ..."
	default:
		return "; there are " + strings.Join(have, ", ")
	}
}

// edits is the Levenshtein distance, capped for long input: hints only.
func edits(a, b string) int {
	const most = 64
	if len(a) > most || len(b) > most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1], diagonal = min(row[j+1]+1, row[j]+1, diagonal+cost), row[j+1]
		}
	}
	return row[len(b)]
}
