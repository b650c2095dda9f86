package config

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// starter is what Init writes, but for what must be different everywhere.
//
//go:embed starter
var starter embed.FS

const (
	kekSize      = 32 // bytes, AES-256
	localKeyBits = 2048
)

// Init writes a commented configuration to dir that loads as it is: loopback only, and one trust domain
// that believes a key made here, so that an exchange can be tried before any platform is connected. It
// returns the names of the files, relative to dir. It never writes over anything: dir must be missing or
// empty, hidden files aside.
func Init(dir string) ([]string, error) {
	if err := mustBeEmpty(dir); err != nil {
		return nil, err
	}
	files, err := starterFiles()
	if err != nil {
		return nil, err
	}
	var written []string
	for _, f := range files {
		if err := f.write(dir); err != nil {
			return written, fmt.Errorf("writing the starter configuration: %w", err)
		}
		written = append(written, f.name)
	}
	return written, nil
}

func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking into the directory: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") || e.Name() == ".gitignore" {
			return fmt.Errorf("%s is not empty (%s is in it) and nothing is ever written over; name a new directory, or check what is there with: sallyport check %s", dir, e.Name(), dir)
		}
	}
	return nil
}

// starterFile is one file to write.
type starterFile struct {
	name string // with slashes
	data []byte
	mode fs.FileMode
}

// starterFiles returns the embedded files and fresh keys.
func starterFiles() ([]starterFile, error) {
	var files []starterFile
	err := fs.WalkDir(starter, "starter", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := starter.ReadFile(path)
		name := strings.TrimPrefix(path, "starter/")
		if name == "gitignore" { // go:embed leaves out names that begin with a dot
			name = ".gitignore"
		}
		files = append(files, starterFile{name, data, 0o644})
		return err
	})
	if err != nil {
		return nil, err
	}
	keys, err := starterKeys()
	return append(files, keys...), err
}

func starterKeys() ([]starterFile, error) {
	kek := make([]byte, kekSize)
	_, _ = rand.Read(kek) // never fails: crypto/rand ends the program instead
	key, err := rsa.GenerateKey(rand.Reader, localKeyBits)
	if err != nil {
		return nil, fmt.Errorf("making the local issuer's key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("making the local issuer's key: %w", err)
	}
	public, err := json.MarshalIndent(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: key.Public(), KeyID: "local", Algorithm: string(jose.RS256), Use: "sig"},
	}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("making the local issuer's key: %w", err)
	}
	return []starterFile{
		{"local/jwks.json", append(public, '\n'), 0o644},
		{"secrets/kek", []byte(base64.StdEncoding.EncodeToString(kek) + "\n"), 0o600},
		{"secrets/local-issuer.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600},
	}, nil
}

// write makes the file and the folders above it. It fails when the file exists.
func (s starterFile) write(dir string) error {
	path := filepath.Join(dir, filepath.FromSlash(s.name))
	folder := fs.FileMode(0o755)
	if s.mode == 0o600 {
		folder = 0o700
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), folder); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, s.mode)
	if err != nil {
		return err
	}
	_, err = f.Write(s.data)
	return errors.Join(err, f.Close())
}
