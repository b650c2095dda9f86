package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/minted"
	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// rememberMinted lets the exchanger know what this service minted: its own log says what lives from before, and replicas tell
// each other. It comes before anything is served.
func (s *service) rememberMinted() {
	now := time.Now()
	since := now.Add(-minted.Longest)
	if s.historyLost {
		since = now
	}
	index := minted.NewIndex(since)
	err := s.records(now.Add(-minted.Longest), func(r audit.Record) error {
		if r.Outcome != audit.Issued || r.Lease == nil || !now.Before(r.Lease.Expires) {
			return nil
		}
		if t, ok := minted.Parse(r.Lease.Fingerprint); ok {
			index.Add(t, r.Time, r.Lease.Expires)
		}
		return nil
	})
	if err != nil { // the log says so by itself; what it does not show is not called forged
		s.log.Warn().Err(err).Msg("what was minted before cannot be read from the audit log")
		index = minted.NewIndex(now)
	}
	s.index = index
	if s.redis == nil {
		s.exchanger.Remember(sts.Alone{Index: index}, s.keyStolen, s.keyUnsure)
		return
	}
	var first time.Time
	for _, k := range s.keys.Timeline() {
		if first.IsZero() || k.Published.Before(first) {
			first = k.Published
		}
	}
	s.minted = s.redis.Minted(index, s.server.Revocation.MaxStaleness, first, time.Now)
	s.exchanger.Remember(s.minted, s.keyStolen, s.keyUnsure)
}

// newLists makes the status lists of this process.
func (s *service) newLists() *statuslist.Lists {
	c := statuslist.Config{Issuer: s.server.Issuer, Life: newID(), Signer: s.keys.Tokens(), Set: s.revocations, Now: time.Now}
	if s.redis != nil {
		c.Shared = s.redis.Lists()
	}
	return statuslist.New(c)
}

// tellMinted tells other replicas what this one mints, and leaves its status lists for them, until the service is closed.
func (s *service) tellMinted(ctx context.Context) {
	if s.minted == nil {
		return
	}
	ctx, s.untell = context.WithCancel(ctx)
	s.told = make(chan struct{})
	go func() {
		defer close(s.told)
		var all sync.WaitGroup
		all.Go(func() { s.minted.Follow(ctx) })
		all.Go(func() {
			for ctx.Err() == nil {
				_ = s.lists.Leave(ctx) // what was left ends, and nothing is served of it
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		})
		all.Wait()
	}()
}

// keyStolen raises the alarm: a token has a good signature of ours and was minted by nobody.
func (s *service) keyStolen(t federation.Token) {
	now := time.Now()
	s.forgedAt.Store(&now)
	s.metrics.Forged()
	s.log.Error().Str("kid", t.KeyID()).Str("fingerprint", t.Fingerprint().String()).Time("issued", t.IssuedAt()).
		Msg("ALARM: a token is signed with our key and nobody here minted it: the key is in other hands; run: sallyport keys rotate --compromised, then: sallyport trust withdraw")
}

// keyUnsure tells of a token that has a good signature of ours, and that nobody could say the maker of: in the log once a
// minute.
func (s *service) keyUnsure() {
	s.metrics.Unsure()
	now := time.Now()
	last := s.unsureAt.Swap(&now)
	if last == nil || now.Sub(*last) > time.Minute {
		s.log.Warn().Msg("a token is signed with our key, and it could not be found out whether a replica minted it; ask /readyz, and see sallyport_unsure_tokens_total")
	}
}

// mintedHealth warns while of tokens with a good signature of ours it cannot be said whether they are forged.
func (s *service) mintedHealth() error {
	now := time.Now()
	if since, ok := s.index.Forgot(now); ok && s.redis == nil { // else Redis knows
		return errors.New("more tokens live than are remembered: of those from before " + since.UTC().Format(time.RFC3339) + " it cannot be said whether they are forged; grant shorter lives, or run several replicas over Redis, which remembers all")
	}
	if at := s.unsureAt.Load(); at != nil && now.Sub(*at) < time.Hour {
		return errors.New("it could not be found out whether a token that was presented at " + at.UTC().Format(time.RFC3339) + " is forged: it claims to be older than what is remembered, as after a data_dir or a Redis was lost, or a replica does not tell what it mints. When neither was, take it for forged: see docs/incident.md. This is said for an hour")
	}
	return nil
}

// keyAlarm warns in /readyz for a day.
func (s *service) keyAlarm() error {
	if at := s.forgedAt.Load(); at != nil && time.Since(*at) < 24*time.Hour {
		return errors.New("a token signed with our key was presented at " + at.UTC().Format(time.RFC3339) + " that nobody here minted: the key is in other hands. Run: sallyport keys rotate --compromised, then: sallyport trust withdraw")
	}
	return nil
}
