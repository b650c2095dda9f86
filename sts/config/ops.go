package config

import (
	"path/filepath"
	"strings"
)

// maxSocketPath is what the kernel takes as the address of a unix socket, in bytes, without the NUL.
const maxSocketPath = 107

// socketPath is where the admin socket is; "" for none.
func socketPath(dir, address string) string {
	path := strings.TrimPrefix(address, "unix:")
	if path == "" {
		return ""
	}
	return under(dir, path)
}

// admin checks listen.admin: a unix socket, by a plain path.
func (d *document) admin(dir, address string) {
	const key = "listen.admin"
	if address == "" || !d.ok(key) {
		return
	}
	path, ok := strings.CutPrefix(address, "unix:")
	switch {
	case !ok:
		d.problem(key, "admin %s is not a unix socket; write for instance unix:/run/sallyport/admin.sock", show(address))
	case path == "" || filepath.Clean(path) != path:
		d.problem(key, "the path of admin %s is not plain; write for instance unix:/run/sallyport/admin.sock", show(address))
	case max(len(under(dir, path)), len(filepath.Dir(under(dir, path)))+len("/.s0123456789/s")) > maxSocketPath: // it is made beside its place
		d.problem(key, "the path of admin is longer than %d bytes, which is all that a unix socket can have; choose a shorter one, such as unix:/run/sallyport/admin.sock", maxSocketPath)
	}
}
