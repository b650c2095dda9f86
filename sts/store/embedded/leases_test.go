package embedded_test

import (
	"testing"

	"github.com/sallyport-sts/sallyport/sts/lease"
	"github.com/sallyport-sts/sallyport/sts/store/embedded"
	"github.com/sallyport-sts/sallyport/sts/store/storetest"
)

func TestLeases(t *testing.T) {
	t.Parallel()
	dirs := map[*testing.T]string{}
	storetest.RunLeases(t, func(t *testing.T) (lease.Store, func()) {
		if dirs[t] == "" {
			dirs[t] = t.TempDir()
		}
		db, err := embedded.Open(dirs[t])
		if err != nil {
			t.Fatal(err)
		}
		s, err := db.Leases()
		if err != nil {
			t.Fatal(err)
		}
		return s, func() {
			s.Close()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
