package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The items that docs/standards.md answers. What is missing between them is about things that are not built.
var standardsItems = []struct{ part, first, last int }{{1, 1, 53}, {2, 1, 36}, {2, 44, 65}, {2, 70, 70}, {2, 80, 80}, {3, 17, 21}, {4, 1, 33}}

var (
	standardsRow = regexp.MustCompile(`(?m)^\| (\d+\.\d+) \|(.*)\|(.*)\|(.*)\|$`)
	citation     = regexp.MustCompile(`standards ((?:\d+\.\d+(?:-\d+\.\d+)?(?:, | and )?)+)`)
	itemNumber   = regexp.MustCompile(`\d+\.\d+`)
)

// Each item has one row, and each row a test or the word that there is none. What tests cite is there.
func TestEveryItemOfTheStandardsIsAnswered(t *testing.T) {
	t.Parallel()
	page := read(t, filepath.Join(root, "docs", "standards.md"))
	rows := map[string]string{}
	for _, m := range standardsRow.FindAllStringSubmatch(page, -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("item %s has two rows", m[1])
		}
		rows[m[1]] = strings.TrimSpace(m[4])
		for i, cell := range m[2:4] {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("item %s: cell %d is empty", m[1], i+2)
			}
		}
	}
	want := map[string]bool{}
	for _, r := range standardsItems {
		for n := r.first; n <= r.last; n++ {
			item := fmt.Sprintf("%d.%d", r.part, n)
			want[item] = true
			switch answer := rows[item]; {
			case answer == "":
				t.Errorf("item %s has no answer", item)
			case !testName.MatchString(answer) && !strings.HasPrefix(answer, "not yet"):
				t.Errorf("item %s: %q names no test and does not begin with the words not yet", item, answer)
			}
		}
	}
	for item := range rows {
		if !want[item] {
			t.Errorf("item %s is of no known range", item)
		}
	}
	if cited := citations(t); len(cited) < 50 {
		t.Errorf("%d items are cited in tests; the test looks at nothing", len(cited))
	} else {
		for item, file := range cited {
			if part, _, _ := strings.Cut(item, "."); (part == "1" || part == "2" || part == "3" || part == "4") && !want[item] {
				t.Errorf("%s cites standards %s, which docs/standards.md does not have", file, item)
			}
		}
	}
}

// citations returns the numbers that test files cite, each with one of the files.
func citations(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range citation.FindAllStringSubmatch(read(t, path), -1) {
			for _, item := range itemNumber.FindAllString(m[1], -1) {
				out[item] = path
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
