package kubernetes

import "fmt"

// LoopbackURL returns the https URL of a port on the loopback address, without a trailing slash.
func LoopbackURL(port int) string { return fmt.Sprintf("https://127.0.0.1:%d", port) }
