package config

import (
	"path/filepath"
	"strings"
)

// maxSocketPath is what the kernel takes as the address of a unix socket, in bytes, without the NUL.
const maxSocketPath = 107

// admin checks listen.admin: a unix socket, by an absolute path.
func (d *document) admin(address string) {
	const key = "listen.admin"
	if address == "" || !d.ok(key) {
		return
	}
	path, ok := strings.CutPrefix(address, "unix:")
	switch {
	case !ok:
		d.problem(key, "admin %s is not a unix socket; write for instance unix:/run/sallyport/admin.sock", show(address))
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		d.problem(key, "the path of admin %s is not absolute and plain; write for instance unix:/run/sallyport/admin.sock", show(address))
	case len(path) > maxSocketPath:
		d.problem(key, "the path of admin is longer than %d bytes, which is all that a unix socket can have; choose a shorter one", maxSocketPath)
	}
}
