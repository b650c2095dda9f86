package lease_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport-sts/sallyport/federation/secret"
	"github.com/sallyport-sts/sallyport/sts/lease"
)

func TestASealTakesAWholeSecret(t *testing.T) {
	t.Parallel()
	if _, err := lease.NewSealer(make([]byte, 31)); err == nil {
		t.Error("31 bytes are enough")
	}
	if _, err := lease.NewKeeper(lease.Config{}); err == nil {
		t.Error("a keeper works with nothing")
	}
}

// What the ledger holds for a broker is of no use to who reads it, and opens only in its place.
func TestHandlesAreSealedForTheirLease(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil func(a, b *lease.Lease)
		want  string // the data that the broker is given to kill a
	}{
		"as it was":           {func(a, b *lease.Lease) {}, "data of "},
		"of another lease":    {func(a, b *lease.Lease) { a.Handle = b.Handle }, ""},
		"a bit changed":       {func(a, b *lease.Lease) { a.Handle[len(a.Handle)-1] ^= 1 }, ""},
		"its nonce changed":   {func(a, b *lease.Lease) { a.Handle[0] ^= 1 }, ""},
		"cut short":           {func(a, b *lease.Lease) { a.Handle = a.Handle[:4] }, ""},
		"not there":           {func(a, b *lease.Lease) { a.Handle = nil }, ""},
		"not ours":            {func(a, b *lease.Lease) { a.Handle = bytes.Repeat([]byte("x"), 64) }, ""},
		"of another at birth": {func(a, b *lease.Lease) { a.ID, b.ID = "a", "a" }, "data of "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				o := w.order("a")
				w.mustMint(o)
				w.mustMint(w.order("b"))
				a, b := copied(w.ledger.all["a"]), copied(w.ledger.all["b"])
				if strings.Contains(string(a.Handle), "data") {
					t.Errorf("the ledger holds %q", a.Handle)
				}
				test.spoil(&a, &b)
				w.ledger.all["a"] = a
				if r, err := w.keeper.Kill(t.Context(), "a", "incident"); err != nil || len(r) != 1 || r[0].State != "dead" {
					t.Errorf("the receipt is %+v (%v), want dead: by its name at least", r, err)
				}
				told := w.up().told[o.Name()]
				if len(told) != 1 || told[0].Name != o.Name() || told[0].Lease != "a" {
					t.Fatalf("the broker was told %+v", told)
				}
				got := secret.Value{}
				if got = told[0].Data; test.want == "" && !got.IsZero() || test.want != "" && got.Reveal() != test.want+o.Name() {
					t.Errorf("the broker was given other data than it should")
				}
			})
		})
	}
}

func TestAnotherDeploymentsHandlesDoNotOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		o := w.order("a")
		w.mustMint(o)
		w.root = []byte("fedcba9876543210fedcba9876543210")
		w.start()
		w.run(time.Until(o.Grant().Expires()) + time.Second)
		w.nothing("after its time")
		if told := w.up().told[o.Name()]; len(told) != 1 || !told[0].Data.IsZero() {
			t.Errorf("the broker was told %+v, want the name alone", told)
		}
	})
}
