package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/rehearsal"
)

func newPolicy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Test and lint a policy before it is merged",
		Args:  noSuchCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newPolicyTest(), newPolicyLint())
	return c
}

func newPolicyTest() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:     "test DIR [FILE...]",
		Short:   "Answer the policy's cases: token claims in, decision out",
		Example: "sallyport policy test /etc/sallyport",
		Long: `Answer cases that stand beside the policy, in DIR/policy/tests/*.yaml or in the files named: whose token with which
claims asks for what, when and from where, and what the answer is. Claims are named by the issuer's own adapter
and decided by the policy as it would be served; nothing is minted, recorded or fetched.

Exit codes: 0 every case passes, 1 a case fails or nothing loads, 2 wrong usage.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s needs the configuration directory; for example: %s", c.CommandPath(), c.Example)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			k, err := kinds()
			if err != nil {
				return err
			}
			set, cases, err := config.LoadCases(args[0], args[1:], k)
			if err != nil {
				return printProblems(c.OutOrStdout(), output, args[0], err)
			}
			results, err := rehearsal.Run(c.Context(), set, cases)
			if err != nil {
				return err
			}
			failed := 0
			for _, r := range results {
				if !r.OK() {
					failed++
				}
			}
			if output == "json" {
				err = writeIndented(c.OutOrStdout(), resultsForMachines(results, failed))
			} else {
				err = printResults(c.OutOrStdout(), results)
			}
			if err == nil && failed > 0 {
				err = fmt.Errorf("%d of %s failed", failed, count(len(results), "case"))
			}
			return err
		},
	}
	outputFlag(c, &output)
	return c
}

// printProblems prints why a configuration does not load, as check does.
func printProblems(w io.Writer, output, dir string, err error) error {
	problems := (config.Problems)(nil)
	if !errors.As(err, &problems) {
		return err
	}
	if output == "json" {
		if err := writeIndented(w, map[string]any{"ok": false, "problems": problemsForMachines(problems)}); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(w, problems.Error()); err != nil {
		return err
	}
	return fmt.Errorf("%s in %s", count(len(problems), "problem"), dir)
}

// printResults prints failing cases with what was expected and what came, then a count for each file.
func printResults(w io.Writer, results []rehearsal.Result) error {
	passed := 0
	for _, r := range results {
		if r.OK() {
			passed++
			continue
		}
		rows := [][]string{{"  expected", expected(r.Case.Expect)}, {"  got", got(r.Got)}}
		if r.Got.Why != "" {
			rows = append(rows, []string{"  because", r.Got.Why})
		}
		if n := r.Got.Near; n != nil {
			rows = append(rows, []string{"  nearest", near(n)})
		}
		if _, err := fmt.Fprintf(w, "%s  %s  %s\n", paint(w, red, "FAIL"), visible(r.Case.Source), visible(r.Case.Name)); err != nil {
			return err
		}
		if err := table(w, rows, nil); err != nil {
			return err
		}
	}
	verdict, colour := "ok", green
	if passed < len(results) {
		verdict, colour = "FAIL", red
	}
	_, err := fmt.Fprintf(w, "%s  %d of %s passed\n", paint(w, colour, verdict), passed, count(len(results), "case"))
	return err
}

func expected(e config.Expectation) string {
	if e.Refuse != "" {
		return e.Refuse
	}
	out := "rule " + e.Allow
	if e.Scopes != nil {
		out += ", scopes " + list(e.Scopes)
	}
	if e.Lifetime != 0 {
		out += ", lifetime " + e.Lifetime.String()
	}
	return out
}

func got(o rehearsal.Outcome) string {
	if o.Refused != "" {
		return o.Refused
	}
	return "rule " + o.Rule + ", scopes " + list(o.Scopes) + ", lifetime " + o.Lifetime.String()
}

func list(words []string) string { return "[" + strings.Join(words, " ") + "]" }

func near(n *policy.Near) string {
	return fmt.Sprintf("rule %s: %s expected %s, found %s", n.Rule, n.Claim, n.Expected, n.Found)
}

// caseResult is a rehearsal.Result as -o json shows it.
type caseResult struct {
	Name     string      `json:"name"`
	Source   string      `json:"source"`
	OK       bool        `json:"ok"`
	Differs  []string    `json:"differs,omitempty"`
	Expected caseOutcome `json:"expected"`
	Got      caseOutcome `json:"got"`
	Why      string      `json:"why,omitempty"`
	Near     string      `json:"near,omitempty"`
}

type caseOutcome struct {
	Allow    string   `json:"allow,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	Lifetime string   `json:"lifetime,omitempty"`
	Refuse   string   `json:"refuse,omitempty"`
}

func resultsForMachines(results []rehearsal.Result, failed int) any {
	out := make([]caseResult, len(results))
	for i, r := range results {
		out[i] = caseResult{
			Name: r.Case.Name, Source: r.Case.Source, OK: r.OK(), Differs: r.Differs, Why: r.Got.Why,
			Expected: caseOutcome{r.Case.Expect.Allow, r.Case.Expect.Scopes, span(r.Case.Expect.Lifetime), r.Case.Expect.Refuse},
			Got:      caseOutcome{r.Got.Rule, r.Got.Scopes, span(r.Got.Lifetime), r.Got.Refused},
		}
		if r.Got.Near != nil {
			out[i].Near = near(r.Got.Near)
		}
	}
	return map[string]any{"ok": failed == 0, "cases": len(results), "failed": failed, "results": out}
}

func span(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

func newPolicyLint() *cobra.Command {
	var output string
	var strict bool
	c := &cobra.Command{
		Use:     "lint DIR",
		Short:   "Find what loads and is probably not meant: dead rules, openings, names that can change hands",
		Example: "sallyport policy lint /etc/sallyport",
		Long: `Find what loads and is probably not meant: rules that can never decide, deny rules that match everything, openings,
issuers and targets that no rule uses, names that can be given to somebody else, comparisons inside a segment.

Exit codes: 0 nothing that is an error, 1 an error (with --strict a warning, too) or nothing loads, 2 wrong usage.`,
		Args: exactArgs(1, "the configuration directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			k, err := kinds()
			if err != nil {
				return err
			}
			findings, err := config.Lint(args[0], k)
			if err != nil {
				return printProblems(c.OutOrStdout(), output, args[0], err)
			}
			bad := 0
			for _, f := range findings {
				if f.Severity == policy.Error || strict && f.Severity == policy.Warning {
					bad++
				}
			}
			if output == "json" {
				err = writeIndented(c.OutOrStdout(), findingsForMachines(findings, bad == 0))
			} else {
				err = printFindings(c.OutOrStdout(), findings)
			}
			if err == nil && bad > 0 {
				err = fmt.Errorf("%s that must be repaired", count(bad, "finding"))
			}
			return err
		},
	}
	outputFlag(c, &output)
	c.Flags().BoolVar(&strict, "strict", false, "exit 1 for warnings as well")
	return c
}

func printFindings(w io.Writer, findings []config.Finding) error {
	colours := map[policy.Severity]string{policy.Error: red, policy.Warning: yellow, policy.Note: dim}
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%s:%s: %s: %s\n", visible(f.File), strconv.Itoa(f.Line), paint(w, colours[f.Severity], f.Severity.String()), visible(f.Message)); err != nil {
			return err
		}
	}
	if len(findings) == 0 {
		_, err := fmt.Fprintf(w, "%s  nothing found\n", paint(w, green, "ok"))
		return err
	}
	return nil
}

// finding is a config.Finding as -o json shows it.
type finding struct {
	Severity string `json:"severity"`
	problem
}

func findingsForMachines(findings []config.Finding, ok bool) any {
	out := make([]finding, len(findings))
	for i, f := range findings {
		out[i] = finding{f.Severity.String(), problem(f.Problem)}
	}
	return map[string]any{"ok": ok, "findings": out}
}
