package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/sallyport-sts/sallyport/brokers/vault"
	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/sts"
	"github.com/sallyport-sts/sallyport/sts/audit"
	"github.com/sallyport-sts/sallyport/sts/config"
	"github.com/sallyport-sts/sallyport/sts/keys"
	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/metrics"
	"github.com/sallyport-sts/sallyport/sts/minted"
	"github.com/sallyport-sts/sallyport/sts/operator"
	"github.com/sallyport-sts/sallyport/sts/revocation"
	"github.com/sallyport-sts/sallyport/sts/statuslist"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

// service is the parts of a running server, wired.
type service struct {
	dir          string
	dataDir      string // --data-dir
	log          zerolog.Logger
	server       config.Server // fixed at start: listeners, keys and logs do not change on reload
	store        *embedded.DB
	redis        *redis.DB        // nil for one replica
	replica      *redis.Replica   // nil for one replica
	ownMarks     *embedded.Marks  // nil for several replicas
	ownLeases    *embedded.Leases // nil for several replicas
	sharedLeases *redis.Leases    // nil for one replica
	lists        *statuslist.Lists
	minted       *redis.Minted // nil for one replica
	untell       func()
	told         chan struct{}
	index        *minted.Index             // of what was minted here
	forgedAt     atomic.Pointer[time.Time] // when a token was seen that is signed with our key and was minted by nobody
	unsureAt     atomic.Pointer[time.Time] // when of one it could not be found out
	leases       *lease.Keeper
	stopLeases   func()
	brokers      map[string]built               // by target, of the configuration in force
	building     map[string]built               // of the one that was built last
	leaseLimits  atomic.Pointer[map[string]int] // by target; 0: that of the server
	unfollow     func()
	followed     chan struct{}
	audit        *audit.Log
	revocations  *revocation.Set
	keys         *keys.Keys
	kms          *vault.Transit // nil for none
	keyCache     *federation.KeyCache
	exchanger    *sts.Exchanger
	workload     http.Handler
	ops          http.Handler
	admin        http.Handler
	authority    atomic.Pointer[operator.Authority] // who may respond over the network
	checks       []sts.Check                        // of /readyz
	metrics      *metrics.Metrics
	limits       *sts.Limits
	drain        drain
	started      time.Time
	cert         atomic.Pointer[tls.Certificate]
	historyLost  bool
	reloading    sync.Mutex
	running      config.Running         // what of the configuration takes a restart, as it was at start
	files        atomic.Pointer[string] // hash of the files that were read last, whatever of them is in force
	restart      atomic.Pointer[string] // what takes a restart
	nextFails    atomic.Bool            // the next start would fail with the files as they are
	reloadErr    atomic.Pointer[string]
	certErr      atomic.Pointer[string]
	closing      sync.Once
	closeErr     error
}

// newService opens state in the order in which parts need each other. Nothing listens yet.
func newService(ctx context.Context, dir string, set *config.Set, log zerolog.Logger) (_ *service, err error) {
	s := &service{dir: dir, log: log, server: set.Server, running: config.Running{Server: set.Server, ServerFile: set.ServerFile, Operators: set.OperatorFile}, started: time.Now()}
	s.files.Store(&set.Hash)
	defer func() {
		if err != nil {
			_ = s.close()
		}
	}()
	data := set.Server.DataDir
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	kek, err := keyEncryptionKey(ctx, dir, set.Server) // before anything is made that a wrong one could not open again
	if err != nil {
		return nil, err
	}
	_, noHead := os.Stat(filepath.Join(data, auditHeadFile)) // made last, so whoever has one has run
	if noHead == nil && !embedded.Exists(data) {
		return nil, errStoreLost
	}
	if s.store, err = embedded.Open(data); err != nil {
		return nil, err
	}
	if noHead == nil && !s.store.Used() {
		return nil, errStoreLost
	}
	if s.store.Used() && noHead != nil {
		s.historyLost = true
		log.Error().Msg("the audit log begins anew although this deployment has run before: it was removed, with its head")
	}
	if s.redis, err = openRedis(dir, set.Server); err != nil {
		return nil, err
	}
	if s.kms, err = openTransit(set.Server.Signing.Vault); err != nil {
		return nil, err
	}
	if s.keys, err = openKeys(ctx, set.Server, kek, s.kms, s.redis, s.store.Used()); err != nil {
		return nil, err
	}
	journal, err := s.store.Revocations(s.keys.MAC())
	if err != nil {
		return nil, err
	}
	if s.revocations, err = revocation.New(ctx, journal, s.keys.MAC()); err != nil {
		return nil, err
	}
	if err = s.revocations.Prune(ctx, time.Now()); err != nil { // a lock whose time was over while nobody ran
		return nil, err
	}
	if err = s.shareRevocations(); err != nil {
		return nil, err
	}
	if s.audit, err = audit.Open(auditConfig(set.Server, s.keys.Audit())); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if err := s.audit.Health(); errors.Is(err, audit.ErrContradiction) {
		log.Error().Err(err).Msg("what was recorded earlier is contradicted; see: sallyport audit verify")
	}
	s.keyCache = federation.NewKeyCache(time.Now, log)
	if err := s.loadCertificate(); err != nil {
		return nil, err
	}
	s.lists = s.newLists()
	state, authority, _, err := s.build(set)
	if err != nil {
		return nil, err
	}
	s.authority.Store(authority)
	s.retire()
	marks, err := s.marks()
	if err != nil {
		return nil, err
	}
	s.metrics = s.newMetrics()
	s.metrics.Configure(namesIn(set))
	if s.exchanger, err = sts.NewExchanger(state, s.metrics.Audit(s.audit), s.revocations, marks, time.Now, newID); err != nil {
		return nil, err
	}
	if err := s.openLeases(ctx); err != nil {
		return nil, err
	}
	s.rememberMinted()
	s.exchanger.List(s.lists)
	s.limits = sts.NewLimits(set.Server.Limits.Address, set.Server.Limits.Workload)
	s.exchanger.Limit(s.limits)
	s.workload, err = s.exchanger.Handler(sts.Published{
		Issuer: set.Server.Issuer, Tokens: s.keys.Tokens(), Assertions: s.keys.Assertions(),
	}, log)
	if err != nil {
		return nil, err
	}
	s.checks = []sts.Check{
		{Name: "audit", Err: s.auditHealth},
		{Name: "audit history", Err: s.auditHistory, Warn: true},
		{Name: "keys", Err: s.keys.Fresh},
		{Name: "key management", Err: s.keys.KMS},
		{Name: "key store", Err: s.keys.Problem, Warn: true},
		{Name: "configuration", Err: s.reloadHealth, Warn: true},
		{Name: "certificate", Err: s.certificateHealth, Warn: true},
		s.storeCheck(),
		{Name: "store durability", Err: s.storeDurable, Warn: true},
		{Name: "locks", Err: s.locksEnding, Warn: true},
		{Name: "signing key", Err: s.keyAlarm, Warn: true},
		{Name: "minted tokens", Err: s.mintedHealth, Warn: true},
		{Name: "shutdown", Err: s.drain.check},
	}
	s.ops = sts.OpsHandler(s.metrics.Handler(), s.checks...)
	if err := s.exchanger.ProposeWith(s.keys.MAC()); err != nil {
		return nil, err
	}
	s.admin = s.exchanger.AdminHandler(s.adminRoutes()...)
	return s, nil
}

// errStoreLost: starting all the same would bring back to life what was revoked.
var errStoreLost = errors.New("the revocation store is missing although this deployment has run: restore state.db in data_dir from its backup; without it, what was revoked lives again. To start over, with new keys, empty data_dir")

// auditHeadFile stands in the data directory, away from the log it vouches for.
const auditHeadFile = "audit.head"

func auditConfig(server config.Server, signer ed25519.PrivateKey) audit.Config {
	return audit.Config{
		Dir:        server.Audit.Dir,
		HeadFile:   filepath.Join(server.DataDir, auditHeadFile),
		Durability: server.Audit.Durability,
		Keep:       server.Audit.Keep,
		Reserve:    server.Audit.Reserve,
		Signer:     signer,
	}
}

// build compiles what a reload may change. Once the state is in force, the caller lets go of the key sources that
// are not in specs.
func (s *service) build(set *config.Set) (_ *sts.State, _ *operator.Authority, specs []federation.KeySpec, err error) {
	list := make([]federation.Issuer, len(set.Issuers))
	specs = make([]federation.KeySpec, len(set.Issuers))
	for i, is := range set.Issuers {
		source, err := s.keyCache.Source(is.Keys)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("keys of issuer %s/%s: %w", is.TrustDomain, is.Name, err)
		}
		list[i], specs[i] = is.Issuer, is.Keys
		list[i].Keys = source
	}
	trust, err := federation.NewTrust(list, &federation.Own{URL: s.server.Issuer, Keys: s.keys.Tokens(), Algorithms: keys.Supported()})
	if err != nil {
		return nil, nil, nil, err
	}
	byTarget, err := s.buildBrokers(set)
	if err != nil {
		return nil, nil, nil, err
	}
	authority, more, err := s.buildAuthority(set)
	if err != nil {
		return nil, nil, nil, err
	}
	state := &sts.State{Trust: trust.Caching(), Policy: set.Policy, Brokers: byTarget, Hash: set.Hash, Operators: authority, Reuse: map[string]bool{}}
	for _, t := range set.Targets {
		state.Reuse[t.Policy.Name] = t.Reuse
	}
	return state, authority, append(specs, more...), nil
}

// auditHealth is why nothing can be recorded now, and so nothing be issued.
func (s *service) auditHealth() error {
	if err := s.audit.Health(); !errors.Is(err, audit.ErrContradiction) {
		return err
	}
	return nil
}

// auditHistory is a contradiction found in what was written before: an alarm, but no reason to stop
// recording, or whoever tampers with the past could stop the present.
func (s *service) auditHistory() error {
	if s.historyLost {
		return errors.New("the log begins anew although this deployment has run before: it was removed, with its head")
	}
	if err := s.audit.Health(); errors.Is(err, audit.ErrContradiction) {
		return fmt.Errorf("%w; see: sallyport audit verify, then: sallyport audit accept", err)
	}
	return nil
}

// prune forgets revocations that no living token can match, once a minute.
func (s *service) prune(ctx context.Context, collect *collector) {
	started := time.Now()
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// By the monotonic clock: a wall clock that is set ahead must not make us forget what is dead.
			if err := s.revocations.Prune(ctx, started.Add(time.Since(started))); err != nil {
				s.log.Error().Err(err).Msg("pruning revocations")
			}
			if err := s.pruneMarks(ctx); err != nil {
				s.log.Error().Err(err).Msg("pruning single-use marks")
			}
			collect.adjust()
		}
	}
}

// close ends in reverse order; the audit log's last word is signed and synced.
func (s *service) close() error {
	s.closing.Do(func() {
		if s.keyCache != nil {
			s.keyCache.Close()
		}
		s.closeLeases()
		if s.audit != nil {
			s.closeErr = s.audit.Close()
		}
		s.closeErr = errors.Join(s.closeErr, s.leave())
		if s.kms != nil {
			_ = s.kms.Close() // its login ends by itself too
		}
		if s.store != nil {
			s.closeErr = errors.Join(s.closeErr, s.store.Close())
		}
	})
	return s.closeErr
}

// newID returns 128 random bits, 26 characters of lower-case base32: one double click selects it.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand since Go 1.24)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
