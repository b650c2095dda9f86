package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every old text stands exactly once where the table says: a table that has rotted proves nothing.
func TestEveryMutationStillFitsTheCode(t *testing.T) {
	mutations, err := parse(table)
	if err != nil {
		t.Fatal(err)
	}
	if len(mutations) < 20 {
		t.Errorf("the table has %d mutations", len(mutations))
	}
	seen := map[string]bool{}
	for _, m := range mutations {
		source, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Errorf("%s: %v", m.guard, err)
			continue
		}
		if _, err := m.mutant(string(source)); err != nil {
			t.Errorf("%s: %s: %v", m.guard, m.file, err)
		}
		if seen[m.guard] {
			t.Errorf("two mutations are called %q", m.guard)
		}
		seen[m.guard] = true
	}
}

func TestIncompleteMutationsAreRefused(t *testing.T) {
	const whole = "guard: a\nfile: b.go\ntests: ./c\n-x\n+y\n"
	if got, err := parse(whole); err != nil || len(got) != 1 {
		t.Fatalf("a whole mutation: %v, %v", got, err)
	}
	for _, line := range strings.Split(strings.TrimSpace(whole), "\n") {
		if line == "+y" {
			continue // taking a line out is a mutation
		}
		if _, err := parse(strings.Replace(whole, line+"\n", "", 1)); err == nil {
			t.Errorf("without %q: accepted", line)
		}
	}
}

// The text may stand in many functions when "in:" names one.
func TestMutationsLookIntoOneFunction(t *testing.T) {
	const source = "func a() {\n\tif x {\n\t}\n}\n\nfunc (s *S) b(y int) {\n\tif x {\n\t}\n}\n"
	m := mutation{function: "b", old: "if x", new: "if false"}
	got, err := m.mutant(source)
	if want := "func a() {\n\tif x {\n\t}\n}\n\nfunc (s *S) b(y int) {\n\tif false {\n\t}\n}\n"; err != nil || got != want {
		t.Errorf("in b: %q, %v; want %q", got, err, want)
	}
	m.function = ""
	if _, err := m.mutant(source); err == nil {
		t.Error("in the whole file the text stands twice: accepted")
	}
	m.function = "c"
	if _, err := m.mutant(source); err == nil {
		t.Error("a function that is not there: accepted")
	}
}
