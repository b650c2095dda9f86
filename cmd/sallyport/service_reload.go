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

// loaded names the set that was read last, "" for one that was refused.
func (s *service) loaded() string {
	if files := s.files.Load(); files != nil && s.reloadErr.Load() == nil {
		return *files
	}
	return ""
}

// reload is atomic: the new set is in force as a whole, or the old one is and everybody is told. What sallyport.yaml says takes a
// restart: it stays as it was, and keeps nothing else from being in force. Whoever asked for it is told once more even when
// nothing changed.
func (s *service) reload(k config.Kinds, asked bool) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	set, err := config.Load(s.dir, k)
	if err == nil && set.Hash == s.loaded() && !asked {
		return // another reload was quicker
	}
	if err == nil {
		err = ownData(&set.Server, s.dataDir)
	}
	var files string
	var waits []string // settings that take a restart
	if err == nil {
		if files = set.Hash; !reflect.DeepEqual(set.Server, s.server) {
			set, waits, err = config.LoadWithServer(s.dir, k, s.serverFile)
		}
	}
	var state *sts.State
	var authority *operator.Authority
	var specs []federation.KeySpec
	if err == nil {
		if err = s.tryCertificate(); err == nil {
			state, authority, specs, err = s.build(set)
		}
	}
	if err != nil {
		reason := "the new configuration is refused, the old one is in force: " + strings.ReplaceAll(err.Error(), "\n", "; ")
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
	s.tellRestart(waits)
	s.log.Info().Str("config", set.Hash).Msg("configuration reloaded")
	if before != set.Hash || len(waits) > 0 {
		s.record(&audit.Record{Type: audit.TypeConfig, Config: set.Hash, Reload: &audit.Reload{Before: before, Waits: waits}}, "another configuration")
	}
}

// tellRestart tells of settings that are not in force before the next start.
func (s *service) tellRestart(settings []string) {
	if len(settings) == 0 {
		s.restart.Store(nil)
		return
	}
	reason := "trust/, targets/ and policy/ are in force as they stand; this takes a restart: " + strings.Join(settings, ", ")
	if old := s.restart.Swap(&reason); old == nil || *old != reason {
		s.log.Warn().Strs("settings", settings).Msg("sallyport.yaml was changed, which takes a restart; all else is in force")
	}
}

func (s *service) reloadHealth() error {
	for _, reason := range []*string{s.reloadErr.Load(), s.restart.Load(), s.certErr.Load()} {
		if reason != nil {
			return errors.New(*reason)
		}
	}
	return nil
}
