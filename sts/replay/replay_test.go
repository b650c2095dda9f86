package replay_test

import (
	"testing"

	"github.com/sallyport-sts/sallyport/sts/replay"
)

// The parts come from tokens: nobody may choose an id that runs over into the next part and marks another's token.
func TestNoTwoListsOfPartsShareAKey(t *testing.T) {
	t.Parallel()
	lists := [][]string{{"a", "b", "c"}, {"ab", "c"}, {"a", "bc"}, {"abc"}, {"a", "b", "", "c"}, {"a", "b", "c", ""}, {"", "a", "b", "c"}, {}, {""}}
	seen := map[replay.Key][]string{}
	for _, l := range lists {
		k := replay.KeyOf(l...)
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q share a key", l, other)
		}
		seen[k] = l
	}
	if again := replay.KeyOf(lists[0]...); seen[again] == nil {
		t.Error("one list has two keys")
	}
}
