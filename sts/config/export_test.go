package config

// Fingerprint is what Watch compares with the Hash of the set that was loaded.
func Fingerprint(dir string) string { return fingerprint(readAll(dir)) }

// FingerprintStable is of what Load would take when every reading finds another directory.
func FingerprintStable(next func() string) string {
	return fingerprint(readStable(func() ([]source, Problems) { return readAll(next()) }))
}
