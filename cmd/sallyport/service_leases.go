package main

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

// built is a broker and what it was built from.
type built struct {
	target config.Target
	broker brokers.Broker
}

// buildBrokers makes the brokers of a set. One whose target did not change is the one in force: it may hold connections.
func (s *service) buildBrokers(set *config.Set) (map[string]brokers.Broker, error) {
	deps := brokers.Deps{Issuer: s.server.Issuer, Signer: s.keys.Tokens(), Assertions: s.keys.Assertions(), Now: time.Now, Status: s.lists}
	if s.kms != nil {
		deps.KMS = s.kms
	}
	out, fresh := make(map[string]brokers.Broker, len(set.Targets)), map[string]built{}
	for _, t := range set.Targets {
		name := t.Policy.Name
		if old, ok := s.brokers[name]; ok && same(old.target, t) {
			out[name], fresh[name] = old.broker, old
			continue
		}
		b, err := t.Kind.Build(t.Broker, t.Settings, t.Scopes, deps)
		if err != nil {
			return nil, err
		}
		out[name], fresh[name] = b, built{t, b}
	}
	s.building = fresh
	return out, nil
}

// same reports whether two targets have one broker.
func same(a, b config.Target) bool {
	plain := func(t brokers.Target) brokers.Target { t.Secret, t.Path = nil, nil; return t } // functions do not compare
	return a.Kind.Name() == b.Kind.Name() && reflect.DeepEqual(a.Settings, b.Settings) && reflect.DeepEqual(a.Scopes, b.Scopes) &&
		reflect.DeepEqual(plain(a.Broker), plain(b.Broker))
}

// retired is how long a broker that went out of use is kept for the exchanges that had it already.
const retired = 2 * lease.MintTimeout

// retire puts the brokers of the set that was built last in force, and closes those that went out of use.
func (s *service) retire() {
	old := s.brokers
	s.brokers = s.building
	limits := make(map[string]int, len(s.brokers))
	for name, b := range s.brokers {
		limits[name] = b.target.Leases
	}
	s.leaseLimits.Store(&limits)
	for name, b := range old {
		if c, ok := b.broker.(io.Closer); ok && s.brokers[name].broker != b.broker {
			time.AfterFunc(retired, func() { _ = c.Close() })
		}
	}
}

// openLeases opens the ledger of what lives outside. It comes after the exchanger, which knows the brokers.
func (s *service) openLeases(ctx context.Context) error {
	store, err := s.leaseStore()
	if err != nil {
		return err
	}
	seal, err := lease.NewSealer(s.keys.MAC())
	if err != nil {
		return err
	}
	s.leases, err = lease.NewKeeper(lease.Config{
		Store: store, Seal: seal, Brokers: s.exchanger.Revoker,
		Dead: func(l lease.Lease) (string, bool) {
			e, dead := s.revocations.Dead(sts.FactsOf(s.revocations.Hasher(), l))
			return e.Decision, dead
		},
		Limits:      s.server.Leases,
		TargetLimit: func(target string) int { return (*s.leaseLimits.Load())[target] },
		Ended:       s.ended,
		Now:         time.Now,
		Log:         s.log,
	})
	if err != nil {
		return err
	}
	if s.ownLeases != nil {
		if err := s.leases.Adopt(ctx); err != nil {
			return fmt.Errorf("taking over leases: %w", err)
		}
	}
	s.exchanger.Keep(s.leases)
	return nil
}

// leaseStore opens the ledger: what replicas share, or our own.
func (s *service) leaseStore() (lease.Store, error) {
	var err error
	if s.redis != nil {
		s.sharedLeases, err = s.redis.Leases(s.keys.MAC(), s.log)
		return s.sharedLeases, err
	}
	s.ownLeases, err = s.store.Leases()
	return s.ownLeases, err
}

// reapLook is how often it is looked whether any target is to be reaped; each is once a minute.
const reapLook = 5 * time.Second

// keepLeases kills what is due until the service is closed.
func (s *service) keepLeases(ctx context.Context) {
	if s.leases == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	s.stopLeases = func() { cancel(); <-done }
	go func() {
		look := time.NewTicker(reapLook)
		defer look.Stop()
		for {
			s.leases.Reap(ctx, s.targets())
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
		}
	}()
	go func() {
		defer close(done)
		s.leases.Run(ctx)
	}()
}

// targets lists the targets in force.
func (s *service) targets() []string {
	var out []string
	for name := range *s.leaseLimits.Load() {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// ended puts on record what became of a credential that lived outside.
func (s *service) ended(l lease.Lease, r brokers.Receipt) {
	reason := l.Why
	if r.Reason != "" {
		reason += ": " + r.Reason
	}
	rec := audit.Record{
		Type:    audit.TypeReceipt,
		Receipt: &audit.Receipt{Lease: l.ID, Target: l.Target, State: r.State.String(), At: r.At, Reason: reason},
	}
	if l.ID == "" { // found by its name alone
		rec.Receipt.Lease = l.Name
	}
	if err := s.audit.Append(context.Background(), &rec); err != nil {
		s.log.Error().Err(err).Str("lease", rec.Receipt.Lease).Str("state", rec.Receipt.State).Msg("the end of a credential could not be put on record")
	}
}

// closeLeases ends the killing, then the ledger, then the brokers' connections.
func (s *service) closeLeases() {
	if s.stopLeases != nil {
		s.stopLeases()
	}
	if s.ownLeases != nil {
		s.ownLeases.Close()
	}
	if s.sharedLeases != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.sharedLeases.Close(ctx) // else the lead runs out by itself
	}
	for _, b := range s.brokers {
		if c, ok := b.broker.(io.Closer); ok {
			_ = c.Close()
		}
	}
}

// adminRoutes is what operators can ask.
func (s *service) adminRoutes() []sts.AdminRoute {
	routes := append(s.exchanger.RevocationRoutes(s.records), sts.StatusRoute(s.status), s.exchanger.ReachRoute())
	if s.leases != nil {
		routes = append(routes, sts.LeasesRoute(s.leases.Store.Each, s.revocations.Hasher()))
	}
	return routes
}

// records walks over this replica's own log.
func (s *service) records(from time.Time, do func(audit.Record) error) error {
	return audit.Scan(s.server.Audit.Dir, func(l audit.Line) error { return do(l.Record) }, audit.Filter{Types: []audit.Type{audit.TypeExchange}, From: from})
}
