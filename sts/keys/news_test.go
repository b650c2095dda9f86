package keys_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sallyport-sts/sallyport/sts/keys"
)

// news returns what is to be told, without waiting for more.
func news(k *keys.Keys) []keys.Change {
	var out []keys.Change
	for {
		select {
		case c := <-k.News():
			out = append(out, c)
		default:
			return out
		}
	}
}

func kids(list []keys.Status) []string {
	var out []string
	for _, s := range list {
		out = append(out, s.Set+"/"+s.ID)
	}
	slices.Sort(out)
	return out
}

// Every change of the keys is told once, whoever made it, with who and why; also those that were made while nobody ran.
func TestEveryChangeOfTheKeysIsTold(t *testing.T) {
	t.Parallel()
	dir, secret := t.TempDir(), kek(t)
	k := open(t, dir, secret, false)
	first := kids(k.Timeline())
	if got := news(k); len(got) != 1 || !slices.Equal(got[0].Published, first) || len(got[0].Removed) != 0 || got[0].Order != nil {
		t.Errorf("of the first keys: %+v", got)
	}
	if err := k.Rotate(t.Context(), keys.Rotation{By: "uid=7", Reason: "planned"}); err != nil {
		t.Fatal(err)
	}
	if got := news(k); len(got) != 1 || len(got[0].Published) != len(first) || got[0].Order == nil || *got[0].Order != (keys.Order{By: "uid=7", Reason: "planned"}) {
		t.Errorf("of a rotation: %+v", got)
	}
	if err := k.Rotate(t.Context(), keys.Rotation{By: "uid=7"}); err != nil {
		t.Fatal(err)
	}
	if got := news(k); len(got) != 0 {
		t.Errorf("of one that changed nothing: %+v", got)
	}

	// Another process, as the command is, and twice before this one looks.
	other := open(t, dir, secret, true)
	before := kids(k.Timeline())
	for _, r := range []keys.Rotation{{Now: true, By: "uid=8", Reason: "to be sure"}, {Compromised: true, By: "uid=8", Reason: "stolen"}} {
		if err := other.Rotate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := news(k)
	if len(got) != 2 || got[0].Order == nil || got[0].Order.Reason != "to be sure" || got[0].Order.Compromised {
		t.Fatalf("of what another process did: %+v", got)
	}
	if o := got[1].Order; !slices.Equal(got[1].Removed, before) || !slices.Equal(got[1].Published, kids(k.Timeline())) || o == nil || !o.Compromised || o.Reason != "stolen" {
		t.Errorf("of keys that were taken out: %+v", got[1])
	}
	if err := k.Refresh(t.Context()); err != nil || len(news(k)) != 0 {
		t.Errorf("it is told twice (%v)", err)
	}
}

// Attack: the keys are rotated, or taken out, by a command while the one replica is stopped. The command sees the change as its own;
// the server puts it on record all the same when it starts, and everything up to it once.
func TestChangesOfTheKeysWhileNobodyRanAreTold(t *testing.T) {
	t.Parallel()
	dir, secret := t.TempDir(), kek(t)
	server := open(t, dir, secret, false)
	for _, c := range news(server) {
		if err := server.Recorded(c); err != nil {
			t.Fatal(err)
		}
	}
	command := open(t, dir, secret, true) // the server is stopped
	if got := news(command); len(got) != 0 {
		t.Errorf("opened as it was left: %+v", got)
	}
	if err := command.Rotate(t.Context(), keys.Rotation{Compromised: true, By: "uid=8", Reason: "stolen"}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 { // it ends before it is on record, and then not
		server = open(t, dir, secret, true)
		got := news(server)
		if len(got) != 1 || got[0].Order == nil || got[0].Order.By != "uid=8" || !got[0].Order.Compromised {
			t.Fatalf("start %d: %+v", i, got)
		}
		if i == 1 {
			if err := server.Recorded(got[0]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := news(open(t, dir, secret, true)); len(got) != 0 {
		t.Errorf("what is on record is told again: %+v", got)
	}

	// What says that it is on record is believed only when it was written here.
	path := filepath.Join(dir, "keys.recorded")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := command.Rotate(t.Context(), keys.Rotation{Compromised: true, By: "uid=8"}); err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(data, []byte(`"serial":2`), []byte(`"serial":3`), 1)
	if bytes.Equal(forged, data) {
		t.Fatalf("the test does not change %s", data)
	}
	if err := os.WriteFile(path, forged, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := news(open(t, dir, secret, true)); len(got) != 3 {
		t.Errorf("with a file that was changed: %+v", got)
	}
}

// A replica that did not run is told what the others did.
func TestChangesOfTheKeysAreToldToWhoDidNotRun(t *testing.T) {
	t.Parallel()
	secret, store := kek(t), keys.NewFile(t.TempDir())
	replica := func(dir string, initialised bool) *keys.Keys {
		c := config(t, dir, secret)
		c.Store, c.Initialised, c.Logged = store, initialised, initialised
		return opened(t, c)
	}
	away, there := t.TempDir(), t.TempDir()
	a := replica(away, false)
	for _, c := range news(a) {
		if err := a.Recorded(c); err != nil {
			t.Fatal(err)
		}
	}
	b := replica(there, false)
	for range 40 { // more than are kept
		if err := b.Rotate(t.Context(), keys.Rotation{Compromised: true, By: "uid=9", Reason: "stolen"}); err != nil {
			t.Fatal(err)
		}
	}
	got := news(replica(away, true))
	if len(got) != 32 || got[31].Order == nil || got[31].Order.By != "uid=9" || !slices.Equal(got[31].Published, kids(b.Timeline())) {
		t.Errorf("%d changes are told, the last is %+v", len(got), got[len(got)-1])
	}
	if got[0].Missed != 8 || got[1].Missed != 0 {
		t.Errorf("%d changes before the first are missed, and %d before the second; want 8 and 0", got[0].Missed, got[1].Missed)
	}
}
