package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/sallyport-sts/sallyport/federation"
)

// Limits of one condition (design section 6).
const (
	MaxCondition     = 4 << 10 // bytes of its text
	maxConditionCost = 10_000  // CEL's units: about one for each operation and for each ten characters compared
)

// condition is one compiled `when`. It is immutable and safe for concurrent use.
type condition struct {
	text    string
	program cel.Program

	// What it reads that can be absent. All of it must be there, wherever in the text it stands: CEL lets
	// `absent || true` be true, and nothing that is missing may help to open a door.
	attributes      []string // of the workload
	actorAttributes []string
	address         bool

	// For lint.
	loose    []string // comparisons inside a segment
	constant string   // "true" or "false" when it is nothing else
}

// view is what a condition sees of one request. It is the variables of CEL.
type view struct {
	workload federation.Workload
	actor    federation.Workload
	target   *Target
	scopes   []string // asked for, or what would be granted when none were
	time     time.Time
	address  netip.Addr
}

// ResolveName implements CEL's Activation.
func (v *view) ResolveName(name string) (any, bool) {
	switch name {
	case "workload":
		return &v.workload, true
	case "actor":
		return &v.actor, true
	case "target":
		return v.target, true
	case "request", "env":
		return v, true
	default:
		return nil, false
	}
}

// Parent implements CEL's Activation.
func (*view) Parent() cel.Activation { return nil }

// answer is what a condition says of a request. A missing attribute and an error are neither yes nor no: they
// keep an allow rule from matching, and a deny rule from not matching.
type answer struct {
	known bool
	yes   bool
	why   string // for the operator, unless yes
	cost  uint64 // in CEL's units
}

// ask evaluates the condition. It reads nothing but v.
func (c *condition) ask(v *view) answer {
	for _, name := range c.attributes {
		if _, ok := v.workload.Attribute(name); !ok {
			return answer{why: "workload.attr." + name + " is absent"}
		}
	}
	for _, name := range c.actorAttributes {
		if _, ok := v.actor.Attribute(name); !ok {
			return answer{why: "actor.attr." + name + " is absent"}
		}
	}
	if c.address && !v.address.IsValid() {
		return answer{why: "env.source_ip is absent"}
	}
	out, details, err := c.program.Eval(v)
	cost := uint64(maxConditionCost) // of what does not say, the most
	if n := details.ActualCost(); n != nil {
		cost = *n
	}
	if err != nil {
		return answer{why: "an error: " + printable(err.Error()), cost: cost}
	}
	yes, ok := out.(types.Bool)
	switch {
	case !ok:
		return answer{why: "no truth value", cost: cost}
	case !bool(yes):
		return answer{known: true, why: "false", cost: cost}
	default:
		return answer{known: true, yes: true, cost: cost}
	}
}

// when compiles the condition of rule i.
func (c *checker) when(i int) {
	r := &c.policy.rules[i]
	if r.When == "" {
		return
	}
	if len(r.When) > MaxCondition {
		c.rule(i, "when", "the condition has %d bytes; at most %d are read: split the rule, or name values with where", len(r.When), MaxCondition)
		return
	}
	compiled, err := c.languages.compile(c.dialect(r), r.When)
	if faults := (faults)(nil); errors.As(err, &faults) {
		for _, f := range faults {
			c.problems = append(c.problems, Problem{Part: "rule", Index: i, Path: "when", Message: f.message, Line: f.line, Column: f.column})
		}
		return
	}
	if err != nil {
		c.rule(i, "when", "the condition does not compile: %s", err)
		return
	}
	c.policy.conditions[i] = compiled
}

// fault is one place where a condition is wrong.
type fault struct {
	line, column int // from 1, inside the text
	message      string
}

type faults []fault

// Error implements error.
func (fs faults) Error() string {
	out := make([]string, len(fs))
	for i, f := range fs {
		out[i] = f.message
	}
	return strings.Join(out, "; ")
}

// compile checks text against a language and returns the condition, the same for the same text. Errors that
// have a place in the text are [faults], in the words of the dialect.
func (l languages) compile(d dialect, text string) (*condition, error) {
	c, err := l.compileAs(l.shared(d), text)
	if err != nil {
		return l.compileAs(d, text)
	}
	return c, nil
}

func (l languages) compileAs(d dialect, text string) (*condition, error) {
	lang, err := l.language(d)
	if err != nil {
		return nil, err
	}
	if done, ok := lang.compiled[text]; ok {
		return done, nil
	}
	checked, issues := lang.env.Compile(text)
	if issues.Err() != nil {
		return nil, lang.faults(issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, faults{{1, 1, fmt.Sprintf("the condition is of type %s, and must be true or false (bool)", t)}}
	}
	c := &condition{text: text}
	if wrong := c.look(checked.NativeRep(), d); len(wrong) > 0 {
		return nil, wrong
	}
	// Compiled a second time with operators that do not swallow errors; the first was for the messages.
	parsed, issues := lang.env.Parse(text)
	if issues.Err() != nil {
		return nil, lang.faults(issues)
	}
	strict(parsed.NativeRep())
	checked, issues = lang.env.Check(parsed)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	if c.program, err = lang.env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxConditionCost)); err != nil {
		return nil, err
	}
	lang.compiled[text] = c
	return c, nil
}

// strict turns `a || b` into `a ? true : b`, and `a && b` into `a ? b : false`. CEL's own operators forget an
// error on one side when the other decides, so that `broken || true` is true; these stop at the first side that
// decides, and an error that was met is the answer. The loops of all() and exists() are made of them as well.
func strict(a *ast.AST) {
	fac, next := ast.NewExprFactory(), ast.MaxID(a)
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		name, args := call.FunctionName(), call.Args()
		if name != operators.LogicalOr && name != operators.LogicalAnd || len(args) != 2 {
			return
		}
		next++
		left, right := args[0], args[1]
		if name == operators.LogicalOr {
			e.SetKindCase(fac.NewCall(e.ID(), operators.Conditional, left, fac.NewLiteral(next, types.True), right))
		} else {
			e.SetKindCase(fac.NewCall(e.ID(), operators.Conditional, left, right, fac.NewLiteral(next, types.False)))
		}
	}))
}

// look gathers what a checked expression reads that can be absent, and refuses what type-checking lets pass.
func (c *condition) look(a *ast.AST, d dialect) faults {
	var wrong faults
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			s := e.AsSelect()
			switch a.GetType(s.Operand().ID()).TypeName() {
			case d.workload.attributes("workload"):
				c.attributes = append(c.attributes, s.FieldName())
			case d.actor.attributes("actor"):
				c.actorAttributes = append(c.actorAttributes, s.FieldName())
			case envType:
				c.address = c.address || s.FieldName() == "source_ip"
			}
		case ast.CallKind:
			if what := loose(e.AsCall()); what != "" {
				c.loose = append(c.loose, what)
			}
			if message := timeZone(e.AsCall()); message != "" {
				at := a.SourceInfo().GetStartLocation(e.ID())
				wrong = append(wrong, fault{at.Line(), at.Column() + 1, message})
			}
		}
	}))
	if e := a.Expr(); e.Kind() == ast.LiteralKind {
		c.constant = fmt.Sprint(e.AsLiteral().Value())
	}
	slices.Sort(c.attributes)
	slices.Sort(c.actorAttributes)
	c.attributes, c.actorAttributes = slices.Compact(c.attributes), slices.Compact(c.actorAttributes)
	return wrong
}

// loose words a comparison of a string with a part of it that does not end where a segment does.
func loose(call ast.CallExpr) string {
	if !call.IsMemberFunction() || len(call.Args()) != 1 || call.Args()[0].Kind() != ast.LiteralKind {
		return ""
	}
	part, ok := call.Args()[0].AsLiteral().Value().(string)
	if !ok {
		return ""
	}
	const separators = "/:@."
	switch name := call.FunctionName(); {
	case part == "",
		name == "startsWith" && strings.ContainsRune(separators, rune(part[len(part)-1])),
		name == "endsWith" && strings.ContainsRune(separators, rune(part[0])),
		name != "startsWith" && name != "endsWith" && name != "contains":
		return ""
	default:
		return name + "('" + printable(part) + "')"
	}
}

// timeZone refuses a named time zone: it would be read from the host's files at every decision, where two
// replicas may differ.
func timeZone(call ast.CallExpr) string {
	if !call.IsMemberFunction() || len(call.Args()) != 1 || !strings.HasPrefix(call.FunctionName(), "get") {
		return ""
	}
	zone := call.Args()[0]
	if zone.Kind() != ast.LiteralKind {
		return call.FunctionName() + " needs its time zone written out: 'UTC', or an offset such as '+01:00'"
	}
	name, _ := zone.AsLiteral().Value().(string)
	if name == "UTC" {
		return ""
	}
	if len(name) == len("+01:00") && (name[0] == '+' || name[0] == '-') {
		if _, err := time.Parse("15:04", name[1:]); err == nil {
			return ""
		}
	}
	return "time zone " + printable(name) + " is neither 'UTC' nor an offset such as '+01:00'; named zones depend on files of the host, and replicas could decide differently"
}

// faults words what CEL says for people who do not know CEL: the nearest name, and why something is left out.
func (l *language) faults(issues *cel.Issues) faults {
	out := make(faults, 0, len(issues.Errors()))
	for _, e := range issues.Errors() {
		message := strings.NewReplacer("'@in'", "'in'", "'_==_'", "'=='", "'_!=_'", "'!='", "'_>_'", "'>'", "'_<_'", "'<'").Replace(e.Message)
		out = append(out, fault{max(e.Location.Line(), 1), max(e.Location.Column()+1, 1), message + l.hint(e.Message)})
	}
	return out
}

func (l *language) hint(message string) string {
	for _, h := range hints {
		if strings.Contains(message, h.says) {
			return "; " + h.hint
		}
	}
	_, rest, quoted := strings.Cut(message, "'")
	name, _, _ := strings.Cut(rest, "'")
	switch {
	case !quoted:
		return ""
	case strings.HasPrefix(message, "undefined field") && slices.Contains(l.names, name):
		return "; attributes stand under attr: workload.attr." + name
	case strings.HasPrefix(message, "undefined field"):
		return didYouMean(name, l.names)
	case strings.HasPrefix(message, "undeclared reference"):
		return didYouMean(name, []string{"workload", "target", "request", "env"})
	default:
		return ""
	}
}

// hints are read-only.
var hints = []struct{ says, hint string }{
	{"reference to 'has'", "has() is left out: an attribute that is absent never matches in an allow rule and always does in a deny rule"},
	{"reference to 'dyn'", "dyn() is left out: a misspelt name would hide behind it"},
	{"reference to 'type'", "type() is left out: every name has one known type"},
	{"reference to 'matches'", "there are no regular expressions: 'main|develop' would match main-attacker too; compare with == or in, or with startsWith and a whole segment"},
	{"reference to 'actor'", "actor is known in an allow rule with an actors block"},
	{"mismatched input 'and'", "and is written &&"},
	{"mismatched input 'or'", "or is written ||"},
	{"(string, int)", `a string never equals a number; put the number in quotes`},
	{"(net.IP, string)", "write ip('10.0.0.1') for an address, or cidr('10.0.0.0/8').containsIP(env.source_ip)"},
	{"invalid timestamp argument", "write for instance timestamp('2026-01-31T08:00:00Z') (RFC 3339)"},
	{"invalid duration argument", "write for instance duration('5m') or duration('1h30m')"},
	{"undefined field 'attr'", "a rule over every issuer of a trust domain knows id, trust_domain and issuer; name an issuer to read attributes"},
}
