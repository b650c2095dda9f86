package mysql

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// mysqlServer speaks the protocol of MySQL and takes the statements that the MySQL 8.4 manual allows and this broker
// needs, and no others. It stands in for a server that cannot be had: what it does is by the manual, not by a real one.
type mysqlServer struct {
	t       testing.TB
	address string // of the admin
	socket  string // of workloads: on a socket the client's plugin shows the password, as over TLS

	mu       sync.Mutex
	accounts map[string]*mysqlAccount // by 'name'@'host'
	threads  map[uint32]*mysqlThread
	last     uint32
	refused  []string // statements that MySQL does not have
	locks    int      // statements that lock
	stubborn int      // looks that a killed session is still seen for
	definers map[string]bool
}

type mysqlAccount struct {
	auth    string
	locked  bool
	granted map[string]bool
	byLogin []string
}

type mysqlThread struct {
	id     uint32
	user   string
	conn   net.Conn
	roles  []string
	killed bool
	linger int
}

// mysqlRoles exist; everything else is 3523.
var mysqlRoles = []string{"orders_ro", "orders_rw", "stock_ro"}

func newMySQLServer(t testing.TB) *mysqlServer {
	t.Helper()
	s := &mysqlServer{t: t, accounts: map[string]*mysqlAccount{}, threads: map[uint32]*mysqlThread{}, definers: map[string]bool{}}
	s.socket = filepath.Join(t.TempDir(), "s")
	for _, network := range []string{"tcp", "unix"} {
		at := s.socket
		if network == "tcp" {
			at = "127.0.0.1:0"
		}
		l, err := net.Listen(network, at)
		if err != nil {
			t.Fatal(err)
		}
		if network == "tcp" {
			s.address = l.Addr().String()
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go s.serve(c)
			}
		}()
	}
	return s
}

// packets of one connection (Client/Server Protocol, "MySQL Packets").
type packets struct {
	r   *bufio.Reader
	w   io.Writer
	seq byte
}

func (p *packets) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return nil, err
	}
	p.seq = head[3] + 1
	body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(p.r, body)
	return body, err
}

func (p *packets) write(bodies ...[]byte) error {
	var out []byte // one write, as servers do: the proxy counts messages
	for _, b := range bodies {
		out = append(out, byte(len(b)), byte(len(b)>>8), byte(len(b)>>16), p.seq)
		out = append(out, b...)
		p.seq++
	}
	_, err := p.w.Write(out)
	return err
}

func text0(s string) []byte { return append([]byte(s), 0) }

func okPacket() []byte { return []byte{0, 0, 0, 2, 0, 0, 0} }

func errPacket(number uint16, message string) []byte {
	return append(append([]byte{0xff, byte(number), byte(number >> 8)}, "#HY000"...), message...)
}

func lenenc(s string) []byte { return append([]byte{byte(len(s))}, s...) } // up to 250 bytes

// rows is a text result set (Protocol::ColumnDefinition41), with as many columns as the first row has.
func rows(columns int, values [][]string) [][]byte {
	eof := []byte{0xfe, 0, 0, 2, 0}
	out := [][]byte{{byte(columns)}}
	for range columns {
		def := slices.Concat(lenenc("def"), lenenc(""), lenenc(""), lenenc(""), lenenc("c"), lenenc(""), []byte{0x0c, 45, 0, 0, 1, 0, 0, 0xfd, 0, 0, 0, 0, 0})
		out = append(out, def)
	}
	out = append(out, eof)
	for _, row := range values {
		var b []byte
		for _, v := range row {
			b = append(b, lenenc(v)...)
		}
		out = append(out, b)
	}
	return append(out, eof)
}

func (s *mysqlServer) serve(c net.Conn) {
	defer c.Close()
	p := &packets{r: bufio.NewReader(c), w: c}
	th := s.thread(c)
	defer s.forget(th)
	const capabilities = uint32(1 | 8 | 0x200 | 0x2000 | 0x8000 | 0x80000)
	hello := append([]byte{10}, text0("8.4.3")...)
	hello = binary.LittleEndian.AppendUint32(hello, th.id)
	hello = append(hello, "abcdefgh\x00"...)
	hello = binary.LittleEndian.AppendUint16(hello, uint16(capabilities&0xffff))
	hello = append(hello, 255, 2, 0)
	hello = binary.LittleEndian.AppendUint16(hello, uint16(capabilities>>16))
	hello = append(append(hello, 21), make([]byte, 10)...)
	hello = append(append(hello, "ijklmnopqrst\x00"...), text0("caching_sha2_password")...)
	if p.write(hello) != nil {
		return
	}
	answer, err := p.read()
	if err != nil || len(answer) < 33 {
		return
	}
	user, _, _ := bytes.Cut(answer[32:], []byte{0})
	if !s.login(p, th, string(user)) {
		return
	}
	for {
		q, err := p.read()
		if err != nil || len(q) == 0 || q[0] == 1 { // COM_QUIT
			return
		}
		var out [][]byte
		switch q[0] {
		case 3: // COM_QUERY
			out = s.query(th, string(q[1:]))
		default: // COM_PING, COM_RESET_CONNECTION
			out = [][]byte{okPacket()}
		}
		if p.write(out...) != nil {
			return
		}
	}
}

func (s *mysqlServer) thread(c net.Conn) *mysqlThread {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	th := &mysqlThread{id: s.last, user: "unauthenticated user", conn: c}
	s.threads[th.id] = th
	return th
}

func (s *mysqlServer) forget(th *mysqlThread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !th.killed {
		delete(s.threads, th.id)
	}
}

// login is caching_sha2_password: the admin is in the server's cache, anybody else shows the password.
func (s *mysqlServer) login(p *packets, th *mysqlThread, user string) bool {
	if user == "sallyport" {
		s.mu.Lock()
		th.user = user
		s.mu.Unlock()
		return p.write([]byte{1, 3}, okPacket()) == nil
	}
	if p.write([]byte{1, 4}) != nil {
		return false
	}
	shown, err := p.read()
	if err != nil {
		return false
	}
	password, _, _ := bytes.Cut(shown, []byte{0})
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, a := range s.accounts {
		if !strings.HasPrefix(key, "'"+user+"'@") || len(a.auth) != 70 || a.auth != cachingString(string(password), a.auth[7:27]) {
			continue
		}
		if a.locked {
			_ = p.write(errPacket(3118, "Access denied. Account is locked."))
			return false
		}
		th.user, th.roles = user, a.byLogin
		return p.write(okPacket()) == nil
	}
	_ = p.write(errPacket(1045, "Access denied"))
	return false
}

const (
	userPattern = `'(sts_[a-z0-9]+_[a-z2-7]+)'@'([^'\\]*)'`
	rolePattern = "`([A-Za-z0-9_]+)`"
)

// grammar is the statements of the manual that the broker may send.
var grammar = struct {
	greeting, modes, create, grant, defaults, lock, drop, kill, accounts, sessions, all, work *regexp.Regexp
}{
	greeting: regexp.MustCompile(`^SELECT VERSION\(\), @@version_comment, \(SELECT COUNT\(\*\) FROM information_schema\.innodb_trx\)$`),
	modes:    regexp.MustCompile(`^SET SESSION sql_mode = 'STRICT_ALL_TABLES', lock_wait_timeout = [0-9]+$`),
	create:   regexp.MustCompile(`^CREATE USER (` + userPattern + `) IDENTIFIED WITH caching_sha2_password AS 0x([0-9a-f]+) REQUIRE (?:SSL|NONE) WITH MAX_USER_CONNECTIONS [0-9]+$`),
	grant:    regexp.MustCompile(`^GRANT (` + rolePattern + `(?:, ` + rolePattern + `)*) TO (` + userPattern + `)$`),
	defaults: regexp.MustCompile(`^SET DEFAULT ROLE (` + rolePattern + `(?:, ` + rolePattern + `)*) TO (` + userPattern + `)$`),
	lock:     regexp.MustCompile(`^ALTER USER IF EXISTS (` + userPattern + `(?:, ` + userPattern + `)*) ACCOUNT LOCK$`),
	drop:     regexp.MustCompile(`^DROP USER IF EXISTS (` + userPattern + `(?:, ` + userPattern + `)*)$`),
	kill:     regexp.MustCompile(`^KILL ([0-9]+)$`),
	accounts: regexp.MustCompile(`^SELECT User, Host, 'N' FROM mysql\.user WHERE User IN \(([^)]*)\)$`),
	sessions: regexp.MustCompile(`^SELECT ID, USER, COALESCE\(INFO, ''\) FROM information_schema\.processlist WHERE USER IN \(([^)]*)\) OR ID <> CONNECTION_ID\(\) AND \(INFO LIKE .*\)$`),
	all:      regexp.MustCompile(`^SELECT (?:User FROM mysql\.user|USER FROM information_schema\.processlist) WHERE U(?:ser|SER) LIKE 'sts\|_%' ESCAPE '\|'$`),
	work:     regexp.MustCompile(`^SELECT COUNT\(\*\) FROM orders\.list$`),
}

func (s *mysqlServer) query(th *mysqlThread, q string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := grammar
	ok, m := [][]byte{okPacket()}, []string(nil)
	match := func(re *regexp.Regexp) bool { m = re.FindStringSubmatch(q); return m != nil }
	switch {
	case match(g.greeting):
		return rows(3, [][]string{{"8.4.3", "MySQL Community Server - GPL", "0"}})
	case match(g.modes):
		return ok
	case match(g.create):
		auth, _ := hex.DecodeString(m[4])
		if s.accounts[m[1]] != nil {
			return [][]byte{errPacket(1396, "Operation CREATE USER failed")}
		}
		s.accounts[m[1]] = &mysqlAccount{auth: string(auth), granted: map[string]bool{}}
	case match(g.grant):
		a := s.accounts[accountIn(m[0])]
		for _, r := range rolesIn(m[1]) {
			if a == nil || !slices.Contains(mysqlRoles, r) {
				return [][]byte{errPacket(3523, "Unknown authorization ID")}
			}
			a.granted[r] = true
		}
	case match(g.defaults):
		a := s.accounts[accountIn(m[0])]
		for _, r := range rolesIn(m[1]) {
			if a == nil || !a.granted[r] {
				return [][]byte{errPacket(3530, "is not granted to")}
			}
			a.byLogin = append(a.byLogin, r)
		}
	case match(g.lock):
		s.locks++
		for _, key := range accountsIn(m[1]) {
			if a := s.accounts[key]; a != nil {
				a.locked = true
			}
		}
	case match(g.drop):
		for _, key := range accountsIn(m[1]) { // atomic: all or none
			if s.definers[key] {
				return [][]byte{errPacket(4006, "is referenced as a definer account")}
			}
		}
		for _, key := range accountsIn(m[1]) {
			delete(s.accounts, key)
		}
	case match(g.kill):
		var id uint32
		_, _ = fmt.Sscan(m[1], &id)
		victim := s.threads[id]
		if victim == nil {
			return [][]byte{errPacket(1094, "Unknown thread id")}
		}
		if !victim.killed {
			victim.killed, victim.linger = true, s.stubborn
			_ = victim.conn.Close()
		}
	case match(g.accounts):
		var out [][]string
		for key := range s.accounts {
			user := regexp.MustCompile(userPattern).FindStringSubmatch(key)
			if strings.Contains(m[1], "'"+user[1]+"'") {
				out = append(out, []string{user[1], user[2], "N"})
			}
		}
		return rows(3, out)
	case match(g.sessions):
		var out [][]string
		for _, other := range s.threads {
			if !strings.Contains(m[1], "'"+other.user+"'") {
				continue
			}
			if other.killed && other.linger <= 0 {
				delete(s.threads, other.id)
				continue
			}
			other.linger--
			out = append(out, []string{fmt.Sprint(other.id), other.user, ""})
		}
		return rows(3, out)
	case match(g.all):
		var out [][]string
		for key := range s.accounts {
			out = append(out, []string{regexp.MustCompile(userPattern).FindStringSubmatch(key)[1]})
		}
		return rows(1, append(out, []string{"sts_not_ours"}))
	case match(g.work):
		if !slices.Contains(th.roles, "orders_ro") {
			return [][]byte{errPacket(1142, "SELECT command denied")}
		}
		return rows(1, [][]string{{"3"}})
	default:
		s.refused = append(s.refused, q)
		return [][]byte{errPacket(1064, "You have an error in your SQL syntax")}
	}
	return ok
}

func accountsIn(s string) []string { return regexp.MustCompile(userPattern).FindAllString(s, -1) }

func accountIn(s string) string { return accountsIn(s)[0] }

func rolesIn(s string) []string {
	var out []string
	for _, m := range regexp.MustCompile(rolePattern).FindAllStringSubmatch(s, -1) {
		out = append(out, m[1])
	}
	return out
}
