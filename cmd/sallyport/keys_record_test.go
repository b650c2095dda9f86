package main

import (
	"fmt"
	"testing"

	"github.com/sallyport-sts/sallyport/sts/audit"
)

// Keys that were taken out while the server was stopped are on record when it has started, once, with who and why.
func TestKeysChangedWhileStoppedAreOnRecord(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.start().stop()
	if out, code := sallyport(t, "keys", "rotate", "--compromised", "--reason", "it was in a backup", d.dir); code != exitDone {
		t.Fatalf("rotating: %d, %s", code, out)
	}
	for range 3 {
		p := d.start()
		eventually(t, "the change on record", func() error {
			if n := len(d.records(audit.TypeKeys)); n < 2 {
				return fmt.Errorf("%d changes are on record", n)
			}
			return nil
		})
		p.stop()
	}
	got := d.records(audit.TypeKeys)
	if len(got) != 2 || !got[1].Keys.Compromised || got[1].Reason != "it was in a backup" || got[1].Keys.By == "plan" {
		t.Errorf("on record are %+v", got)
	}
}
