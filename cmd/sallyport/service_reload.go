package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/operator"
)

// reloadOnChange reloads on SIGHUP and on file changes until the returned function is called.
func (s *service) reloadOnChange(ctx context.Context, k config.Kinds) func() {
	ctx, cancel := context.WithCancel(ctx)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		if err := config.Watch(ctx, s.dir, s.loaded, func() { s.reload(k, false) }); err != nil {
			s.log.Error().Err(err).Msg("file changes are no longer watched; SIGHUP still reloads")
		}
	}()
	go func() {
		certificate := time.NewTicker(certificateEvery)
		defer certificate.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				s.reload(k, true)
			case <-certificate.C:
				s.renewCertificate()
			}
		}
	}()
	return func() { signal.Stop(hup); cancel() }
}

// loaded names the files that were read last, "" to have them looked at again: they were refused, or the next start would fail.
func (s *service) loaded() string {
	if s.nextFails.Load() {
		return ""
	}
	return s.inForce()
}

// inForce names the files of the configuration in force, "" when newer ones were refused.
func (s *service) inForce() string {
	if files := s.files.Load(); files != nil && s.reloadErr.Load() == nil {
		return *files
	}
	return ""
}

// reload is atomic: the new set is in force as a whole, or the old one is and everybody is told. What sallyport.yaml says takes a
// restart: it stays as it was, and keeps nothing else from being in force, and neither does a certificate that is no good.
// Whoever asked for it is told once more even when nothing changed.
func (s *service) reload(k config.Kinds, asked bool) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	_ = s.tryCertificate() // told
	set, files, waits, err := s.load(k)
	if err == nil && files == s.inForce() && !asked { // another reload was quicker, or a certificate is good again
		s.tellRestart(waits)
		return
	}
	var state *sts.State
	var authority *operator.Authority
	var specs []federation.KeySpec
	if err == nil {
		state, authority, specs, err = s.build(set)
	}
	if err != nil {
		reason := "the new configuration is refused, the old one is in force: " + oneLine(err)
		if old := s.reloadErr.Swap(&reason); asked || old == nil || *old != reason { // not each time it is tried again
			s.metrics.ReloadRefused()
			s.log.Error().Err(err).Msg("reload refused; the old configuration is in force")
		}
		return
	}
	before := s.exchanger.ConfigHash()
	s.metrics.Configure(namesIn(set))
	s.exchanger.Swap(state)
	s.authority.Store(authority)
	s.retire()
	s.keyCache.Retain(specs) // after the swap: until then callers verify with the old ones
	s.reloadErr.Store(nil)
	s.files.Store(&files)
	s.running.Operators = set.OperatorFile // of which the newest in force stays, should it be taken out
	s.tellRestart(waits)
	s.log.Info().Str("config", set.Hash).Msg("configuration reloaded")
	if list := waits.list(); before != set.Hash || len(list) > 0 {
		_ = s.record(&audit.Record{Type: audit.TypeConfig, Config: set.Hash, Reload: &audit.Reload{Before: before, Waits: list}}, "another configuration")
	}
}

// load reads the set that can be in force now, and says which files it is of and what of them waits for the next start, or
// why that would fail.
func (s *service) load(k config.Kinds) (set *config.Set, files string, waits pending, err error) {
	set, err = config.Load(s.dir, k)
	if err == nil {
		files, err = set.Hash, ownData(&set.Server, s.dataDir)
	}
	if err == nil && reflect.DeepEqual(set.Server, s.server) {
		return set, files, pending{}, nil
	}
	r, without := config.Reload(s.dir, k, s.running)
	switch {
	case without == nil && err == nil:
		return r.Set, r.Files, pending{settings: r.Waits}, nil
	case without == nil:
		return r.Set, r.Files, pending{fails: oneLine(err)}, nil
	case err == nil:
		err = without
	}
	return nil, "", pending{}, err // that of the first look has all of it
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// pending is what is not in force before the next start.
type pending struct {
	settings []string // that differ
	fails    string   // why the next start would fail
}

func (p pending) list() []string {
	if p.fails != "" {
		return []string{p.fails}
	}
	return p.settings
}

// tellRestart tells of what waits for the next start.
func (s *service) tellRestart(waits pending) {
	s.nextFails.Store(waits.fails != "")
	var reason, message string
	switch {
	case waits.fails != "":
		reason, message = "all else is in force as it stands, and the next start would fail: "+waits.fails, "the next start would fail; all else is in force"
	case len(waits.settings) > 0:
		reason, message = "trust/, targets/ and policy/ are in force as they stand; this takes a restart: "+strings.Join(waits.settings, ", "), "sallyport.yaml was changed, which takes a restart; all else is in force"
	default:
		s.restart.Store(nil)
		return
	}
	if old := s.restart.Swap(&reason); old == nil || *old != reason {
		s.log.Warn().Strs("settings", waits.list()).Msg(message)
	}
}

func (s *service) reloadHealth() error {
	var all []string
	for _, reason := range []*string{s.reloadErr.Load(), s.restart.Load(), s.certErr.Load()} {
		if reason != nil {
			all = append(all, *reason)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}
