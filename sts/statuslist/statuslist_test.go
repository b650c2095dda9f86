package statuslist_test

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport-sts/sallyport/sts/statuslist"
)

// The example of the draft, section 4.1: sixteen tokens of one bit, B9 A3, and what ZLIB makes of it. // standards 3.18
func TestPublishedVector(t *testing.T) {
	t.Parallel()
	values := []uint8{1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1}
	packed, _ := hex.DecodeString("78dadbb918000217015d")
	published := statuslist.List{Bits: 1, Lst: base64.RawURLEncoding.EncodeToString(packed)}
	got, err := statuslist.Decode(published)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range values {
		if v, ok := got.At(int64(i)); !ok || v != want {
			t.Errorf("token %d has %d (%v), want %d", i, v, ok, want)
		}
	}
	for _, beyond := range []int64{16, -1, 1 << 40} {
		if _, ok := got.At(beyond); ok {
			t.Errorf("there is a token %d", beyond)
		}
	}
	own, err := statuslist.Encode(values, 1)
	if err != nil {
		t.Fatal(err)
	}
	if raw := inflated(t, own.Lst); !bytes.Equal(raw, []byte{0xb9, 0xa3}) {
		t.Errorf("the list is %x, want b9a3", raw)
	}
	if own.Lst[:2] != published.Lst[:2] { // the same header: ZLIB, best compression
		t.Errorf("the list begins %s, that of the draft %s", own.Lst[:4], published.Lst[:4])
	}
}

func inflated(t *testing.T, lst string) []byte {
	t.Helper()
	packed, err := base64.RawURLEncoding.DecodeString(lst)
	if err != nil {
		t.Fatal(err)
	}
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEncodedIsDecoded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		bits := rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(rt, "bits")
		values := rapid.SliceOfN(rapid.Uint8Range(0, uint8(1<<bits-1)), 0, 200).Draw(rt, "values")
		l, err := statuslist.Encode(values, bits)
		if err != nil {
			rt.Fatal(err)
		}
		s, err := statuslist.Decode(l)
		if err != nil {
			rt.Fatal(err)
		}
		for i, want := range values {
			if v, ok := s.At(int64(i)); !ok || v != want {
				rt.Fatalf("token %d has %d (%v), want %d", i, v, ok, want)
			}
		}
	})
}

// What is none is refused, and what would grow beyond bounds is not unpacked. // standards 3.21
func TestWhatIsNoListIsRefused(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	w := zlib.NewWriter(&bomb)
	for range 3 {
		_, _ = w.Write(make([]byte, statuslist.MaxSize/2))
	}
	_ = w.Close()
	good, _ := statuslist.Encode([]uint8{1}, 1)
	for name, l := range map[string]statuslist.List{
		"three bits": {Bits: 3, Lst: good.Lst}, "no bits": {Lst: good.Lst}, "no base64": {Bits: 1, Lst: "%"}, "no ZLIB": {Bits: 1, Lst: "AAAA"},
		"half": {Bits: 1, Lst: good.Lst[:len(good.Lst)-4]}, "a bomb": {Bits: 1, Lst: base64.RawURLEncoding.EncodeToString(bomb.Bytes())},
	} {
		if _, err := statuslist.Decode(l); !errors.Is(err, statuslist.ErrList) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := statuslist.Encode([]uint8{2}, 1); !errors.Is(err, statuslist.ErrList) {
		t.Errorf("a value that does not fit: %v", err)
	}
	if _, err := statuslist.Encode(nil, 5); !errors.Is(err, statuslist.ErrList) {
		t.Errorf("five bits: %v", err)
	}
}
