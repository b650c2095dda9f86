package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sallyport-sts/sallyport/brokers"
)

type config = mysql.Config

// Times of one connection. Statements end by themselves on the server as well, see [dialect.modes].
const (
	dialTimeout = 3 * time.Second
	ioTimeout   = 12 * time.Second // longer than the server's own limit on a statement
)

// Errors of the DSN. None of them repeats it: it holds the password.
var (
	errDSN       = errors.New("the DSN (not repeated here) is neither USER:PASSWORD@tcp(HOST:PORT)/?tls=true nor USER:PASSWORD@unix(/PATH)/")
	errParameter = errors.New("the DSN (not repeated here) has a parameter other than tls and allowCleartextPasswords; leave it out, it would change what statements mean")
	errVerify    = errors.New("the DSN (not repeated here) has tls other than true or false: such a connection believes any server; write tls=true, and ca_file for a certificate authority of your own")
	errPlain     = errors.New("the DSN (not repeated here) has no tls=true and names another host: whoever reads the network can take over the account; add ?tls=true, or say allow_plaintext: true for a network that encrypts")
	errClear     = errors.New("the DSN (not repeated here) allows a password in the clear on a connection without TLS; add tls=true")
)

// caError is what is wrong with ca_file.
type caError struct{ error }

func isCA(err error) bool { return errors.As(err, new(caError)) }

// configError is what keeps us from connecting at all.
type configError struct{ error }

// open reads and checks the DSN. It connects to nothing.
func open(t brokers.Target, s Settings) (*config, error) {
	dsn, err := t.Secret(s.DSN)
	if err != nil {
		return nil, err
	}
	c, err := mysql.ParseDSN(dsn.Reveal())
	if err != nil {
		return nil, refuseDSN(dsn.Reveal())
	}
	if err := parameters(dsn.Reveal()); err != nil {
		return nil, err
	}
	plain := c.TLSConfig == "" || c.TLSConfig == "false"
	switch c.Net {
	case "unix":
	case "tcp":
		host, _, err := net.SplitHostPort(c.Addr)
		if err != nil || c.User == "" {
			return nil, errDSN
		}
		if plain && !s.AllowPlaintext && !local(host) {
			return nil, errPlain
		}
		if plain && c.AllowCleartextPasswords {
			return nil, errClear
		}
		if !plain {
			if c.TLS, err = verified(t, s, host); err != nil {
				return nil, err
			}
		}
	default:
		return nil, errDSN
	}
	c.Timeout, c.ReadTimeout, c.WriteTimeout = dialTimeout, ioTimeout, ioTimeout
	c.Logger = &mysql.NopLogger{}
	return c, nil
}

// refuseDSN says why a DSN does not parse. The driver knows no tls by a name of its own.
func refuseDSN(dsn string) error {
	if err := parameters(dsn); err != nil {
		return err
	}
	return errDSN
}

// parameters checks what stands behind the last '?': the driver would set variables of the session by it, run several
// statements as one, or believe any server.
func parameters(dsn string) error {
	_, query, ok := strings.Cut(dsn[strings.LastIndexByte(dsn, '/')+1:], "?")
	if !ok {
		return nil
	}
	for p := range strings.SplitSeq(query, "&") {
		switch name, value, _ := strings.Cut(p, "="); name {
		case "tls":
			if value != "true" && value != "false" {
				return errVerify
			}
		case "allowCleartextPasswords":
		default:
			return errParameter
		}
	}
	return nil
}

// verified is TLS with a certificate for host.
func verified(t brokers.Target, s Settings, host string) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if s.CAFile == "" {
		return out, nil
	}
	pem, err := os.ReadFile(t.Path(s.CAFile))
	if err != nil {
		return nil, caError{fmt.Errorf("ca_file cannot be read: %w", bare(err))}
	}
	out.RootCAs = x509.NewCertPool()
	if !out.RootCAs.AppendCertsFromPEM(pem) {
		return nil, caError{errors.New("ca_file holds no PEM certificate")}
	}
	return out, nil
}

// bare drops the path from a file's error; whoever reads the problem knows where it is.
func bare(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// connector makes connections that are ready for our statements.
type connector struct {
	open   func() (*config, error)
	spoken *atomic.Pointer[dialect]
}

// Driver implements [driver.Connector].
func (*connector) Driver() driver.Driver { return mysql.MySQLDriver{} }

// Connect implements [driver.Connector].
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	cfg, err := c.open()
	if err != nil {
		return nil, configError{err}
	}
	made, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, configError{errDSN}
	}
	conn, err := made.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.prepare(ctx, conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// greeting asks who is there. The third column takes the right to see the sessions of others, without which we would
// believe that there are none: the server refuses the statement then.
const greeting = "SELECT VERSION(), @@version_comment, (SELECT COUNT(*) FROM information_schema.innodb_trx)"

// prepare finds out the dialect, and makes statements mean what we mean by them whatever the server is set to.
func (c *connector) prepare(ctx context.Context, conn driver.Conn) error {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, greeting, nil)
	if err != nil {
		return err
	}
	row := make([]driver.Value, 3)
	if err = rows.Next(row); err == io.EOF {
		err = errors.New("the server does not say what it is")
	}
	if err = errors.Join(err, rows.Close()); err != nil {
		return err
	}
	d := dialectOf(text(row[0]), text(row[1]))
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, d.modes(), nil); err != nil {
		return err
	}
	c.spoken.Store(&d)
	return nil
}

func text(v driver.Value) string {
	b, _ := v.([]byte)
	return string(b)
}
