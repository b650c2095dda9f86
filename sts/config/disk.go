package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
)

// maxPEMSize is the largest certificate file in bytes: a full bundle of public authorities has 250 KiB.
const maxPEMSize = 1 << 20

// secret checks that what is referred to exists and that nobody else can read it.
func (l *loader) secret(d *document, path string, s Secret) {
	_, err := s.Resolve(l.dir)
	if err == nil {
		return
	}
	if s.Env != "" {
		d.problem(join(path, "env"), "%s: %s", path, err)
		return
	}
	d.problem(join(path, "file"), "the file that %s names: %s", path, fileReason(err))
}

func fileReason(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "there is no such file; relative paths start at the configuration directory"
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errTooLarge) || errors.Is(err, errNotRegular) {
		return reason(err)
	}
	return err.Error()
}

// certificate checks that the listener's certificate and key exist, that nobody else can read the key, and
// that they belong together.
func (l *loader) certificate(d *document, t TLS) {
	chain, err := readFile(t.CertFile, maxPEMSize)
	if err != nil {
		d.problem("tls.cert_file", "tls.cert_file: %s", fileReason(err))
	}
	if modeErr := checkMode(t.KeyFile); modeErr != nil {
		d.problem("tls.key_file", "tls.key_file: %s", fileReason(modeErr))
		return
	}
	key, keyErr := readFile(t.KeyFile, maxSecretSize)
	if keyErr != nil {
		d.problem("tls.key_file", "tls.key_file: %s", fileReason(keyErr))
		return
	}
	if err != nil {
		return
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		d.problem("tls", "tls: cert_file and key_file are not a PEM certificate and its private key")
	}
}

// certificates checks a file of certificate authorities.
func (l *loader) certificates(d *document, path, file string) {
	pem, err := readFile(file, maxPEMSize)
	switch {
	case err != nil:
		d.problem(path, "%s: %s", last(path), fileReason(err))
	case !x509.NewCertPool().AppendCertsFromPEM(pem):
		d.problem(path, "%s has no PEM certificate in it", last(path))
	}
}

// directory checks a directory that the service writes to, if it is there already. It is not created here.
func (l *loader) directory(d *document, path, dir string) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.problem(path, "%s: %s", path, bare(err))
	case !info.IsDir():
		d.problem(path, "%s is a file; name a directory", path)
	case info.Mode()&0o022 != 0:
		d.problem(path, "%s can be written by others (mode %04o), who could replace keys and records; chmod go-w, or name a directory inside it, which is created with mode 0700", path, info.Mode().Perm())
	}
}
