package config

import (
	"cmp"
	"errors"
	"regexp"
	"time"

	"github.com/sallyport-sts/sallyport/sts/store/redis"
)

// Bounds of revocation.max_staleness.
const (
	defaultStaleness = 5 * time.Second
	minStaleness     = time.Second
	maxStaleness     = time.Minute
)

// Store says what replicas share. The zero Store is the embedded one, of one replica.
type Store struct {
	Redis Redis
}

// Redis says which Redis replicas share. The zero Redis is none.
type Redis struct {
	URL        Secret
	CAFile     string
	AllowPlain bool
	Prefix     string
}

// Revocation says how old what a replica knows may be.
type Revocation struct {
	MaxStaleness time.Duration
}

type storeBlock struct {
	Redis redisBlock `yaml:"redis" jsonschema_description:"A Redis 7 that all replicas share. Required: leave store out for the embedded store of one replica."`
}

type redisBlock struct {
	URL            Secret `yaml:"url" jsonschema_description:"Reference to the URL of the Redis, with user and password: rediss://HOST:PORT/DB, redis:// on a loopback address, or unix:///PATH?db=DB; of a Sentinel with ?master_name=NAME&addr=HOST:PORT&username=USER&password=PASSWORD; of a cluster with ?cluster=true&addr=HOST:PORT. Required. While it cannot be reached for longer than revocation.max_staleness, nothing is issued."`
	CAFile         string `yaml:"ca_file,omitempty" jsonschema:"minLength=1" jsonschema_description:"Path of PEM certificates that sign the certificate of the Redis; relative paths start at the configuration directory. Default: those of the system."`
	AllowPlaintext bool   `yaml:"allow_plaintext,omitempty" jsonschema_description:"Accept redis:// to another host, for a network that encrypts by itself. Default: false. With it, whoever reads the network learns the password."`
	Prefix         string `yaml:"prefix,omitempty" jsonschema:"pattern=^[a-z][a-z0-9-]{0\\,31}$" jsonschema_description:"Prefix of every key in the Redis: 1 to 32 of a-z, 0-9 and -, a letter first. Default: sallyport. Deployments that share a Redis need different ones; changing it leaves marks behind, and used tokens are good once more."`
}

type revocationBlock struct {
	MaxStaleness duration `yaml:"max_staleness" jsonschema_description:"How long a replica serves without hearing from the store that replicas share, 1s to 1m. Default: 5s. After it, exchange and introspection answer 503. Longer means that a revoked token may be taken for alive for longer. Needs store."`
}

var prefixes = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// store checks the blocks store and revocation. It connects to nothing.
func (l *loader) store(d *document, f serverFile, s *Server) {
	if child(d.root, "store") != nil || child(d.root, "revocation") != nil {
		s.Revocation.MaxStaleness = cmp.Or(f.Revocation.MaxStaleness.value(), defaultStaleness)
	}
	if child(d.root, "revocation") != nil && child(d.root, "store") == nil {
		d.problem("revocation", "revocation.max_staleness is about a store that replicas share, and there is none; add store, or leave revocation out")
	}
	if d.ok("revocation.max_staleness") && s.Revocation.MaxStaleness != 0 && (s.Revocation.MaxStaleness < minStaleness || s.Revocation.MaxStaleness > maxStaleness) {
		d.problem("revocation.max_staleness", "max_staleness is outside 1s to 1m; for as long a replica may take a revoked token for alive")
	}
	if child(d.root, "store") == nil || !d.ok("store.redis") {
		return
	}
	r := Redis{URL: f.Store.Redis.URL, AllowPlain: f.Store.Redis.AllowPlaintext, Prefix: cmp.Or(f.Store.Redis.Prefix, redis.DefaultPrefix)}
	if r.URL.File != "" {
		r.URL.File = under(l.dir, r.URL.File)
	}
	if f.Store.Redis.CAFile != "" {
		r.CAFile = under(l.dir, f.Store.Redis.CAFile)
	}
	s.Store.Redis = r
	if !prefixes.MatchString(r.Prefix) {
		d.problem("store.redis.prefix", "prefix %s is not 1 to 32 of a-z, 0-9 and -, a letter first", show(r.Prefix))
	}
	if !d.ok("store.redis.url") || r.URL.IsZero() {
		return
	}
	url, err := r.URL.Resolve(l.dir)
	if err != nil {
		l.secret(d, "store.redis.url", r.URL)
		return
	}
	err = redis.Check(redis.Config{URL: url, CAFile: r.CAFile, AllowPlain: r.AllowPlain})
	switch {
	case err == nil:
	case errors.Is(err, redis.ErrURL), errors.Is(err, redis.ErrPlain):
		d.problem("store.redis.url", "%s", err)
	default:
		d.problem("store.redis.ca_file", "store.redis.ca_file: %s", fileReason(err))
	}
}
