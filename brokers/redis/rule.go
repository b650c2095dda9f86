package redis

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Limits of a scope: a user's rules are checked at every command of theirs.
const (
	maxWords    = 200
	maxPatterns = 100
	maxPattern  = 256 // bytes
)

// word is one rule of commands: a sign, then @category, command or command|subcommand. All other rules (nopass, >password,
// #hash, on, allkeys, ~pattern) look different.
var word = regexp.MustCompile(`^([+-])(?:@([a-z]+)|([a-z][a-z0-9._-]{0,63})(?:\|([a-z0-9._:-]{1,64}))?)$`)

// powers are the commands that reach beyond keys and channels, each with its harmless subcommands: who may run them can
// make users, read every key or password, end or replace the server, send its data elsewhere, empty databases whose keys
// are somebody else's, or leave code behind that others run.
var powers = map[string][]string{
	"acl":     {"whoami", "cat", "genpass", "help"},
	"client":  {"id", "info", "setname", "getname", "setinfo", "reply", "no-touch", "caching", "help"},
	"cluster": {"slots", "shards", "nodes", "info", "myid", "keyslot", "help"},
	"command": {"info", "count", "docs", "list", "getkeys", "getkeysandflags", "help"},
	"config":  nil, "debug": nil, "module": nil, "shutdown": nil, "failover": nil, "replicaof": nil, "slaveof": nil,
	"sync": nil, "psync": nil, "replconf": nil, "monitor": nil, "slowlog": nil, "latency": nil,
	"save": nil, "bgsave": nil, "bgrewriteaof": nil, "pfdebug": nil, "pfselftest": nil,
	"script": nil, "function": nil,
	"migrate": nil, "restore": nil, "restore-asking": nil, "flushall": nil, "flushdb": nil, "swapdb": nil,
}

// protected are the categories that nothing brings along but its own name.
var protected = []string{"admin", "dangerous", "scripting"}

// flaw is what is wrong with one field of a scope.
type flaw struct{ field, text string }

// check reports what is wrong with a scope.
func (s Scope) check() []flaw {
	var out []flaw
	add := func(field, text string, args ...any) { out = append(out, flaw{field, fmt.Sprintf(text, args...)}) }
	for _, text := range s.checkCommands() {
		add("commands", "%s", text)
	}
	for _, list := range []struct {
		name     string
		patterns []string
	}{{"keys", s.Keys}, {"channels", s.Channels}} {
		if len(list.patterns) > maxPatterns {
			add(list.name, "%s lists more than %d patterns; each is compared with every key of every command", list.name, maxPatterns)
		}
		for _, p := range list.patterns {
			if !isPattern(p) {
				add(list.name, "pattern %q is not 1 to %d printable ASCII characters without spaces, quotes and parentheses, which would end it in an ACL", p, maxPattern)
			}
		}
	}
	return out
}

// isPattern reports whether a pattern is one word of a selector, which Redis splits at spaces outside quotes.
func isPattern(p string) bool {
	return p != "" && len(p) <= maxPattern && !strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`()"'`, r) })
}

func (s Scope) checkCommands() []string {
	var out []string
	if len(s.Commands) == 0 {
		out = append(out, "commands lists nothing, and the scope would grant nothing; write for instance [+@read]")
	}
	if len(s.Commands) > maxWords {
		out = append(out, fmt.Sprintf("more than %d words of commands", maxWords))
	}
	commands := false
	for _, w := range s.Commands {
		m := word.FindStringSubmatch(w)
		if m == nil {
			out = append(out, fmt.Sprintf("%q is no rule of a command; write +@category, -@category, +command, -command or +command|subcommand in small letters, and patterns under keys and channels", w))
			continue
		}
		grants, category, command, sub := m[1] == "+", m[2], m[3], m[4]
		if category != "" && commands {
			out = append(out, fmt.Sprintf("%s stands behind a command; the last word decides in Redis: write categories first", w))
		}
		commands = commands || command != ""
		if !grants || s.Dangerous {
			continue
		}
		harmless, power := powers[command]
		switch {
		case category == "all":
			out = append(out, "+@all also means commands of modules, which nobody has looked at; name the categories that are needed, or say dangerous: true")
		case slices.Contains(protected, category):
			out = append(out, fmt.Sprintf("%s reaches beyond keys and channels; name the commands that are needed, or say dangerous: true", w))
		case power && !slices.Contains(harmless, sub):
			out = append(out, fmt.Sprintf("%s reaches beyond keys and channels; leave it out, or say dangerous: true%s", w, instead(command, harmless)))
		}
	}
	return out
}

func instead(command string, harmless []string) string {
	if len(harmless) == 0 {
		return ""
	}
	return ". Harmless are " + command + "|" + strings.Join(harmless, ", "+command+"|")
}

// selector is the scope as one argument of ACL SETUSER. Each selector is judged by itself, so that a credential of two
// scopes has the keys of the one with the commands of the one, and never with those of the other.
func (s Scope) selector() string {
	var words []string
	for _, p := range s.Keys {
		words = append(words, "~"+p)
	}
	for _, p := range s.Channels {
		words = append(words, "&"+p)
	}
	categories := 0
	for _, w := range s.Commands {
		if strings.HasPrefix(w[1:], "@") {
			categories++
		}
	}
	words = append(words, s.Commands[:categories]...)
	if categories > 0 && !s.Dangerous {
		for _, p := range protected {
			words = append(words, "-@"+p)
		}
	}
	return "(" + strings.Join(append(words, s.Commands[categories:]...), " ") + ")"
}
