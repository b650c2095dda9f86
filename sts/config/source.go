package config

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of a configuration. They bound what a mistake (a log file in policy/, a generator gone wild) can
// cost a running server at reload; each is far above what people can review.
const (
	maxFileSize  = 1 << 20  // bytes, one file
	maxTotalSize = 16 << 20 // bytes, all files
	maxFiles     = 1000     // in one folder
	maxIssuers   = 1000     // in all trust files
	maxRules     = 10_000   // in all policy files
	maxDepth     = 32       // nested mappings and lists
	maxKeys      = 1000     // in one mapping
	maxItems     = 20_000   // in one list
)

// The places of a configuration directory.
const (
	serverName    = "sallyport.yaml"
	operatorsName = "operators.yaml" // may be missing
	trustFolder   = "trust"
	targetsFolder = "targets"
	policyFolder  = "policy"
	extension     = ".yaml"
)

func folders() []string { return []string{trustFolder, targetsFolder, policyFolder} }

// source is one configuration file as read.
type source struct {
	name string // relative, with slashes
	data []byte
}

// readStable reads until two readings in a row agree. A link that is swapped between two files of one reading would
// otherwise mix two sets, each of them reviewed, into a third that nobody wrote.
func readStable(read func() ([]source, Problems)) ([]source, Problems) {
	const tries = 10
	sources, problems := read()
	for range tries {
		before := fingerprint(sources, problems)
		if sources, problems = read(); fingerprint(sources, problems) == before {
			return sources, problems
		}
	}
	return nil, Problems{{File: serverName, Message: "the configuration directory changed all the time while it was read; load it again when nobody writes to it"}}
}

// fingerprint names what was read and what could not be read. Of a set that loads it is the hash.
func fingerprint(sources []source, problems Problems) string {
	if len(problems) == 0 {
		return hash(sources)
	}
	return hash(sources) + "\n" + problems.Error()
}

// readAll reads the server file and the three folders, in the order of names. Files that cannot be read
// are problems and are missing from the answer.
func readAll(dir string) ([]source, Problems) {
	var (
		problems Problems
		out      []source
		total    int
	)
	names := list(dir, &problems)
	for _, name := range names {
		data, err := readFile(filepath.Join(dir, filepath.FromSlash(name)), maxFileSize)
		if err != nil {
			problems.add(name, "%s", reason(err))
			continue
		}
		if total += len(data); total > maxTotalSize {
			problems.add(name, "all files together are larger than %d MiB; a configuration is what people review", maxTotalSize>>20)
			break
		}
		out = append(out, source{name, data})
	}
	return out, problems
}

// list returns the names of the files to read.
func list(dir string, problems *Problems) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		problems.add(serverName, "the configuration directory cannot be read: %s", reason(err))
		return nil
	}
	var names []string
	here := make([]string, 0, len(entries))
	for _, e := range entries {
		here = append(here, e.Name())
		switch name := e.Name(); {
		case ignored(name) || slices.Contains(folders(), name):
		case name == serverName, name == operatorsName:
			names = append(names, name)
		case strings.EqualFold(filepath.Ext(name), ".yaml") || strings.EqualFold(filepath.Ext(name), ".yml"):
			problems.add(name, "this file would not be read: only %s and %s are read here, all else in %s/, %s/ and %s/; move or rename it",
				serverName, operatorsName, trustFolder, targetsFolder, policyFolder)
		}
	}
	if !slices.Contains(here, serverName) {
		problems.add(serverName, "there is no such file; `sallyport init DIR` writes a commented one")
	}
	for _, folder := range folders() {
		if !slices.Contains(here, folder) {
			problems.add(folder, "there is no such folder; without it nobody could get anything%s", nearMiss(folder, here))
			continue
		}
		names = append(names, listFolder(dir, folder, problems)...)
	}
	return names
}

func nearMiss(want string, here []string) string {
	for _, h := range here {
		if d := edits(want, h); d <= 3 && d < len(want) {
			return "; is it " + show(h) + "?"
		}
	}
	return ""
}

func listFolder(dir, folder string, problems *Problems) []string {
	entries, err := os.ReadDir(filepath.Join(dir, folder))
	if err != nil {
		problems.add(folder, "%s", reason(err))
		return nil
	}
	var names []string
	for _, e := range entries {
		name := folder + "/" + e.Name()
		switch {
		case ignored(e.Name()):
		case folder == policyFolder && e.Name() == casesFolder && isDir(filepath.Join(dir, folder, e.Name())):
		case isDir(filepath.Join(dir, folder, e.Name())):
			problems.add(name, "folders inside %s/ are not read; move the files up", folder)
		case filepath.Ext(e.Name()) != extension:
			problems.add(name, "this file would not be read: the names of configuration files end in %s; rename it, or keep it outside %s/", extension, folder)
		case len(names) == maxFiles:
			problems.add(name, "more than %d files in %s/", maxFiles, folder)
			return names
		default:
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		problems.add(folder, "there is no *%s file in it; without one nobody could get anything", extension)
	}
	return names
}

// ignored reports whether a name is hidden (as Kubernetes' ..data is) or an editor's backup.
func ignored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".bak") ||
		strings.HasSuffix(name, ".swp") || strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")
}

func isDir(path string) bool {
	info, err := os.Stat(path) // follows links: a mounted folder is a link
	return err == nil && info.IsDir()
}

var (
	errNotRegular = errors.New("is not a regular file")
	errTooLarge   = errors.New("is too large")
)

// readFile reads a regular file of at most limit bytes. Its errors do not name the path: a path can be a
// secret that was put in the wrong place.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path) // before opening: opening a pipe would wait
	if err != nil {
		return nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, bare(err)
	}
	if int64(len(data)) > limit {
		return nil, errTooLarge
	}
	return data, nil
}

// bare takes the path out of a file error.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// reason words a file error for an operator.
func reason(err error) string {
	switch {
	case errors.Is(err, errTooLarge):
		return "the file is larger than 1 MiB"
	case errors.Is(err, errNotRegular):
		return "this is not a regular file"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such file"
	case errors.Is(err, fs.ErrPermission):
		return "the file cannot be read: permission denied; give it to the user that runs sallyport"
	default:
		return "the file cannot be read: " + bare(err).Error()
	}
}

// hash names a set of files: SHA-256 over their number and, in the order of names, the length and the
// bytes of each name and of each content. Files that the configuration refers to are not part of it.
func hash(sources []source) string {
	h := sha256.New()
	number := func(n int) { _ = binary.Write(h, binary.BigEndian, uint64(n)) } // a hash never fails
	number(len(sources))
	for _, s := range slices.SortedFunc(slices.Values(sources), func(a, b source) int { return strings.Compare(a.name, b.name) }) {
		number(len(s.name))
		h.Write([]byte(s.name))
		number(len(s.data))
		h.Write(s.data)
	}
	return hex.EncodeToString(h.Sum(nil))
}
