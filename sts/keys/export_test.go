package keys

import (
	"testing"
	"time"
)

// Unsealed returns the document that is in an envelope, as it is written.
func Unsealed(t *testing.T, s Sealer, sealed []byte) []byte {
	t.Helper()
	plain, _, _, err := s.open(kindDocument, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// Loaded returns when the document was read last.
func Loaded(k *Keys) time.Time { return *k.loaded.Load() }
