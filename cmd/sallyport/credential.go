package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
)

// login is what credentials of several parts have in common, as far as clients need it.
type login struct {
	Type     string   `json:"type"`
	Host     string   `json:"host"`
	Port     int      `json:"port"`
	URLs     []string `json:"urls"` // of every node, without user and password
	Database string   `json:"database"`
	User     string   `json:"user"`
	Password string   `json:"password"`
	SSLMode  string   `json:"sslmode"`
	SSLRoot  string   `json:"sslrootcert"`
	MySQLSSL string   `json:"ssl_mode"`
	MySQLCA  string   `json:"ssl_ca"`

	AccessKey    string    `json:"AccessKeyId"`
	SecretKey    string    `json:"SecretAccessKey"`
	SessionToken string    `json:"SessionToken"`
	Expiration   time.Time `json:"Expiration"`
	Region       string    `json:"Region"`
}

// breaksLines reports whether a part of l would be more than a word in a file of lines.
func (l login) breaksLines() bool {
	return slices.ContainsFunc([]string{l.Host, l.Database, l.User, l.Password, l.SSLMode, l.SSLRoot, l.MySQLSSL, l.MySQLCA}, func(s string) bool {
		return strings.ContainsFunc(s, unicode.IsControl)
	})
}

// forms is what -o takes: how each is written, and of which kinds of credential. No kinds: any. lines: a file of lines, in which no part
// may be more than a word.
var forms = []struct {
	name  string
	kinds []string
	lines bool
	write func(w io.Writer, out credential, l login) error
}{
	{"token", nil, false, writeToken},
	{"json", nil, false, func(w io.Writer, out credential, _ login) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(out.TokenExchangeResponse)
	}},
	{"env", nil, false, writeEnv},
	{"pgpass", []string{"postgresql"}, true, writePgpass},
	{"pgservice", []string{"postgresql"}, true, writePgservice},
	{"mysql", []string{"mysql"}, true, writeMySQL},
	{"kubectl", []string{"kubernetes-token", string(oidc.AccessTokenType), string(oidc.JWTTokenType)}, false, writeExec},
	{"aws", []string{"aws-session"}, false, writeProcess},
	{"gcp", []string{string(oidc.AccessTokenType), string(oidc.JWTTokenType), string(oidc.IDTokenType)}, false, writeExecutable},
}

func formNames() []string {
	var out []string
	for _, f := range forms {
		out = append(out, f.name)
	}
	return out
}

// unfit is when a credential cannot be written in a form.
type unfit struct{ form, kinds, got string }

func (e *unfit) Error() string {
	return fmt.Sprintf("-o %s is for a credential of kind %s, and the target gave one of kind %s; try -o json", e.form, e.kinds, visible(e.got))
}

// printCredential writes a credential in the form of -o.
func printCredential(w io.Writer, form string, out credential) error {
	var l login
	kind := strings.TrimPrefix(string(out.IssuedTokenType), brokers.TypePrefix)
	if out.TokenType == brokers.NotApplicable && kind != string(out.IssuedTokenType) { // several parts
		if err := json.Unmarshal([]byte(out.AccessToken), &l); err != nil {
			return fmt.Errorf("the credential is not the JSON that its type %s promises", visible(kind))
		}
	}
	for _, f := range forms {
		if f.name != form {
			continue
		}
		if f.kinds != nil && !slices.Contains(f.kinds, kind) {
			return &unfit{form, strings.Join(f.kinds, " or "), kind}
		}
		if f.lines && l.breaksLines() {
			return fmt.Errorf("the credential has a control character in it, which -o %s cannot hold; try -o json", form)
		}
		return f.write(w, out, l)
	}
	return usagef("-o %s is not a form; choose one of %s", form, strings.Join(formNames(), ", "))
}

// writeToken writes what access_token says. A newline is for eyes only: in a file it would become part of what curl
// sends as the token.
func writeToken(w io.Writer, out credential, _ login) error {
	end := ""
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		end = "\n"
	}
	_, err := fmt.Fprint(w, out.AccessToken, end)
	return err
}

// writeEnv writes what a shell can eval, under the names that the vendors' own clients read.
func writeEnv(w io.Writer, out credential, l login) error {
	var set [][2]string
	switch strings.TrimPrefix(string(out.IssuedTokenType), brokers.TypePrefix) {
	case "postgresql":
		set = [][2]string{{"PGHOST", l.Host}, {"PGPORT", strconv.Itoa(l.Port)}, {"PGDATABASE", l.Database}, {"PGUSER", l.User}, {"PGPASSWORD", l.Password}, {"PGSSLMODE", l.SSLMode}, {"PGSSLROOTCERT", l.SSLRoot}}
	case "mysql":
		return fmt.Errorf("no variables hold a whole MySQL login; use -o mysql, and --defaults-extra-file")
	case "redis":
		if len(l.URLs) == 0 {
			return fmt.Errorf("the credential names no node; try -o json")
		}
		u, err := url.Parse(l.URLs[0])
		if err != nil {
			return fmt.Errorf("the credential names a node by no URL; try -o json")
		}
		u.User = url.UserPassword(l.User, l.Password)
		set = [][2]string{{"REDIS_URL", u.String()}, {"REDISCLI_AUTH", l.Password}}
	case "aws-session":
		set = [][2]string{{"AWS_ACCESS_KEY_ID", l.AccessKey}, {"AWS_SECRET_ACCESS_KEY", l.SecretKey}, {"AWS_SESSION_TOKEN", l.SessionToken}, {"AWS_REGION", l.Region}}
	case "gcp-access-token":
		set = [][2]string{{"CLOUDSDK_AUTH_ACCESS_TOKEN", out.AccessToken}, {"GOOGLE_OAUTH_ACCESS_TOKEN", out.AccessToken}}
	case "vault-token", "vault-wrapping-token":
		set = [][2]string{{"VAULT_TOKEN", out.AccessToken}}
	case "github-installation-token":
		set = [][2]string{{"GH_TOKEN", out.AccessToken}, {"GITHUB_TOKEN", out.AccessToken}}
	default:
		set = [][2]string{{"SALLYPORT_TOKEN", out.AccessToken}}
	}
	for _, kv := range set {
		if kv[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "export %s='%s'\n", kv[0], strings.ReplaceAll(kv[1], "'", `'\''`)); err != nil {
			return err
		}
	}
	return nil
}

// writePgpass writes a line of the file that PGPASSFILE names: libpq wants it at mode 0600.
func writePgpass(w io.Writer, _ credential, l login) error {
	field := strings.NewReplacer(`\`, `\\`, `:`, `\:`)
	parts := []string{l.Host, strconv.Itoa(l.Port), l.Database, l.User, l.Password}
	for i, p := range parts {
		parts[i] = field.Replace(p)
	}
	_, err := fmt.Fprintln(w, strings.Join(parts, ":"))
	return err
}

// writePgservice writes the service sallyport of the file that PGSERVICEFILE names. Nothing can be quoted there.
func writePgservice(w io.Writer, _ credential, l login) error {
	text := "[sallyport]\n"
	for _, kv := range [][2]string{
		{"host", l.Host}, {"port", strconv.Itoa(l.Port)}, {"dbname", l.Database}, {"user", l.User}, {"password", l.Password}, {"sslmode", l.SSLMode}, {"sslrootcert", l.SSLRoot},
	} {
		if strings.TrimSpace(kv[1]) != kv[1] {
			return fmt.Errorf("a service file cannot hold this %s; use -o pgpass", kv[0])
		}
		if kv[1] != "" {
			text += kv[0] + "=" + kv[1] + "\n"
		}
	}
	_, err := io.WriteString(w, text)
	return err
}

// writeProcess writes what the AWS SDKs and CLI read from a credential_process. Without Expiration they would never ask again.
func writeProcess(w io.Writer, _ credential, l login) error {
	return writeJSON(w, struct {
		Version      int
		AccessKeyID  string `json:"AccessKeyId"`
		SecretKey    string `json:"SecretAccessKey"`
		SessionToken string
		Expiration   time.Time
	}{1, l.AccessKey, l.SecretKey, l.SessionToken, l.Expiration}, "")
}

// executable is what Google's libraries read from an executable (credential_source.executable of external_account).
type executable struct {
	Version int    `json:"version"`
	Success bool   `json:"success"`
	Type    string `json:"token_type,omitempty"`
	Token   string `json:"id_token,omitempty"`
	Expires int64  `json:"expiration_time,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

func writeExecutable(w io.Writer, out credential, _ login) error {
	return writeJSON(w, executable{Version: 1, Success: true, Type: string(oidc.JWTTokenType), Token: out.AccessToken, Expires: out.expires.Unix()}, "")
}

// failed says in the words of a form, if it has any, why there is no credential.
func failed(w io.Writer, form string, err error) error {
	if form == "gcp" {
		_ = writeJSON(w, executable{Version: 1, Code: "refused", Message: err.Error()}, "")
	}
	return err
}

// writeMySQL writes the file that --defaults-extra-file names.
func writeMySQL(w io.Writer, _ credential, l login) error {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	text := "[client]\n"
	for _, kv := range [][2]string{{"host", l.Host}, {"port", strconv.Itoa(l.Port)}, {"user", l.User}, {"password", l.Password}} {
		text += fmt.Sprintf("%s=\"%s\"\n", kv[0], quote.Replace(kv[1]))
	}
	if l.Host != "" && net.ParseIP(l.Host).IsLoopback() {
		text += "protocol=\"tcp\"\n"
	}
	// Clients take TLS where they can, and believe any server. MariaDB's verify by an option in a group of their own;
	// MySQL's by another one, and only with an authority. MariaDB's warn of that, and go on.
	if l.MySQLCA != "" {
		text += fmt.Sprintf("ssl-ca=\"%s\"\n", quote.Replace(l.MySQLCA))
	}
	if l.MySQLSSL == "VERIFY_IDENTITY" {
		if l.MySQLCA != "" {
			text += "loose-ssl-mode=\"VERIFY_IDENTITY\"\n"
		}
		text += "\n[client-mariadb]\nssl-verify-server-cert\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// writeExec writes an ExecCredential (client.authentication.k8s.io/v1), as kubectl reads it from its exec plugin.
func writeExec(w io.Writer, out credential, _ login) error {
	type status struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expirationTimestamp"`
	}
	return writeJSON(w, struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Status     status `json:"status"`
	}{"client.authentication.k8s.io/v1", "ExecCredential", status{out.AccessToken, out.expires.UTC().Truncate(time.Second)}}, "")
}

// writeFile puts what write writes in the place of a file, at once and for its owner alone.
func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".sallyport-*") // mode 0600
	if err != nil {
		return usagef("--to: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
