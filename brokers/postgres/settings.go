package postgres

import (
	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Settings is the `postgres:` block of a target file.
type Settings struct {
	DSN             secret.Ref `yaml:"dsn" json:"dsn" jsonschema_description:"Reference to the connection string with which roles are made and dropped, a URL or keywords: host, port, user, password, dbname, sslmode, sslrootcert, sslcert and sslkey, no other; several hosts are tried in order until one is the primary. sslmode must be verify-full, or disable on a loopback host or Unix socket. Required. It is read again for each connection, so that the password can be changed at any time."`
	AllowPlaintext  bool       `yaml:"allow_plaintext,omitempty" json:"allow_plaintext,omitempty" jsonschema_description:"Whether the dsn may say sslmode=disable for a host in a network. Default: false. With true, whoever stands between can read every statement and put in their own."`
	Host            string     `yaml:"host,omitempty" json:"host,omitempty" jsonschema:"minLength=1,maxLength=255" jsonschema_description:"Host that workloads are told to connect to, or the directory of a Unix socket. Default: the host of the dsn; required when that names several."`
	Port            int        `yaml:"port,omitempty" json:"port,omitempty" jsonschema:"minimum=1,maximum=65535" jsonschema_description:"Port that workloads are told. Default: the port of the dsn; required when that names several hosts."`
	Database        string     `yaml:"database,omitempty" json:"database,omitempty" jsonschema:"minLength=1,maxLength=63" jsonschema_description:"Database that workloads are told. Default: the database of the dsn. A role can connect to every database of the server that lets PUBLIC connect."`
	SSLMode         string     `yaml:"sslmode,omitempty" json:"sslmode,omitempty" jsonschema:"enum=verify-full,enum=disable" jsonschema_description:"sslmode that workloads are told. Default: verify-full. disable is accepted only when workloads are told a loopback host or a Unix socket."`
	SSLRootCert     string     `yaml:"sslrootcert,omitempty" json:"sslrootcert,omitempty" jsonschema:"minLength=1,maxLength=4096" jsonschema_description:"sslrootcert that workloads are told: a path on their machine, or system. Default: none, and their client looks where it always does."`
	Owner           string     `yaml:"owner,omitempty" json:"owner,omitempty" jsonschema:"minLength=1,maxLength=63" jsonschema_description:"Role that what workloads create belongs to, when they are granted several: their sessions begin as it. It must be among the roles of some scope; who is not granted it does not become it. Default: none; who is granted one role begins as that, who is granted several begins as itself."`
	ConnectionLimit int        `yaml:"connection_limit,omitempty" json:"connection_limit,omitempty" jsonschema:"minimum=1,maximum=1000" jsonschema_description:"Sessions that one credential can have open at once. Default: 10. The pool of a workload must not be larger."`
	MaxConnections  int        `yaml:"max_connections,omitempty" json:"max_connections,omitempty" jsonschema:"minimum=1,maximum=32" jsonschema_description:"Connections that are open to make and drop roles, at most. Default: 4. With fewer, exchanges wait for each other."`
}

// Scope is what a scope of the target means.
type Scope struct {
	Roles []string `yaml:"roles" json:"roles" jsonschema:"minItems=1" jsonschema_description:"Roles of the server that a credential with this scope is a member of. Required. None of them may be a superuser or create roles, nor be a member of one that may: such a credential could not be taken back."`
}

// Defaults of settings.
const (
	defaultConnectionLimit = 10
	defaultMaxConnections  = 4
	maxConnectionLimit     = 1000
	maxMaxConnections      = 32
)

// Kind returns the kind for a binary's list.
func Kind() brokers.Kind {
	return brokers.NewKind("postgres", brokers.Capabilities{Credentials: map[string]any{Type: login{}}}, check, build)
}
