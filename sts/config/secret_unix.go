//go:build unix

package config

import (
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// inGroup reports whether this process belongs to the group of a file.
func inGroup(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	group := int(stat.Gid)
	if group == os.Getegid() {
		return true
	}
	groups, err := os.Getgroups()
	return err == nil && slices.Contains(groups, group)
}
