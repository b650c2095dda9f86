package redis

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"

	"github.com/sallyport-sts/sallyport/brokers"
)

// endpoints are URLs without anything but where to connect.
var endpoints = regexp.MustCompile(`^(?:rediss?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[0-9]{1,5})?|unix:///[A-Za-z0-9._/-]+)$`)

func check(t brokers.Target, s Settings, scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	add := func(path, message string, args ...any) {
		out = append(out, brokers.Problem{Path: path, Message: fmt.Sprintf(message, args...)})
	}
	seen := map[string]bool{}
	for i, ref := range s.URLs {
		path := fmt.Sprintf("urls[%d]", i)
		o, err := options(t, s, ref)
		switch {
		case errors.As(err, new(caError)):
			path = "ca_file"
		case err == nil && seen[o.Network+" "+o.Addr]:
			err = errTwice
		}
		if err != nil {
			add(path, "%s", err)
			continue
		}
		seen[o.Network+" "+o.Addr] = true
	}
	if len(s.URLs) == 0 {
		add("urls", "urls lists no node; write a reference to the URL of each")
	}
	if len(s.Endpoints) == 0 {
		add("endpoints", "endpoints lists nothing; write the URLs that workloads connect to")
	}
	for i, e := range s.Endpoints {
		path := fmt.Sprintf("endpoints[%d]", i)
		if !endpoints.MatchString(e) {
			add(path, "endpoint %d (not repeated here: it may hold a password) is not rediss://HOST:PORT/DB, redis://HOST:PORT/DB or unix:///PATH, without user and parameters", i+1)
			continue
		}
		if u, err := url.Parse(e); err != nil || u.Scheme == "redis" && !s.AllowPlaintext && !local(u.Hostname()) {
			add(path, "endpoint %s would have workloads send their password over the network in the clear; use rediss://, or say allow_plaintext: true for a network that encrypts", e)
		}
	}
	return append(out, checkScopes(scopes)...)
}

func checkScopes(scopes map[string]Scope) []brokers.Problem {
	var out []brokers.Problem
	if len(scopes) == 0 {
		out = append(out, brokers.Problem{Path: "scopes.", Message: "the target has no scopes, and a user without rules can do nothing; write scopes: {read: {keys: [...], commands: [...]}}"})
	}
	for _, name := range slices.Sorted(maps.Keys(scopes)) {
		for _, f := range scopes[name].check() {
			out = append(out, brokers.Problem{Path: "scopes." + name + "." + f.field, Message: f.text})
		}
	}
	return out
}
