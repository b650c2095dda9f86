// Package statuslist is the OAuth Token Status List (draft-ietf-oauth-status-list-20): a bit for each of many tokens that says
// whether it was revoked, in a signed list that anybody may read and keep for a while. It encodes, decodes and keeps lists.
package statuslist

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// Wire values (section 5.1 and 8).
const (
	Type        = "statuslist+jwt"             // typ of the list's JWT
	ContentType = "application/statuslist+jwt" // of its answer
)

// MaxSize is the size of a list that is decoded, in bytes: longer ones are refused before they are whole.
const MaxSize = 1 << 20

// ErrList means that what should be a list is none.
var ErrList = errors.New("no status list")

// List is the value of status_list in a list's JWT (section 4.2).
type List struct {
	Bits int    `json:"bits"` // of each token: 1, 2, 4 or 8
	Lst  string `json:"lst"`  // DEFLATE with ZLIB, base64url
}

// Encode packs values, each of so many bits, the least significant bits of a byte first (section 4.1).
func Encode(values []uint8, bits int) (List, error) {
	if bits != 1 && bits != 2 && bits != 4 && bits != 8 {
		return List{}, fmt.Errorf("%w: %d bits for a token", ErrList, bits)
	}
	per := 8 / bits
	raw := make([]byte, (len(values)+per-1)/per)
	for i, v := range values {
		if int(v) >= 1<<bits {
			return List{}, fmt.Errorf("%w: %d does not fit into %d bits", ErrList, v, bits)
		}
		raw[i/per] |= v << (i % per * bits)
	}
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, zlib.BestCompression)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err == nil {
		err = w.Close()
	}
	return List{bits, base64.RawURLEncoding.EncodeToString(b.Bytes())}, err
}

// Statuses are the values of a list that was decoded.
type Statuses struct {
	raw  []byte
	bits int
}

// Decode unpacks a list (section 8.3). One that would be larger than MaxSize is refused.
func Decode(l List) (Statuses, error) {
	if l.Bits != 1 && l.Bits != 2 && l.Bits != 4 && l.Bits != 8 {
		return Statuses{}, fmt.Errorf("%w: %d bits for a token", ErrList, l.Bits)
	}
	packed, err := base64.RawURLEncoding.DecodeString(l.Lst)
	if err != nil {
		return Statuses{}, fmt.Errorf("%w: lst is not base64url", ErrList)
	}
	r, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return Statuses{}, fmt.Errorf("%w: lst is not compressed with ZLIB", ErrList)
	}
	raw, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	switch {
	case err != nil:
		return Statuses{}, fmt.Errorf("%w: lst is broken", ErrList)
	case len(raw) > MaxSize:
		return Statuses{}, fmt.Errorf("%w: lst is larger than %d bytes", ErrList, MaxSize)
	}
	return Statuses{raw, l.Bits}, nil
}

// At returns the value at an index; false when the list has none there, and then the token is not to be accepted (section 8.3).
func (s Statuses) At(index int64) (uint8, bool) {
	if s.bits == 0 || index < 0 || index >= int64(len(s.raw)*8/s.bits) {
		return 0, false
	}
	per := int64(8 / s.bits)
	return s.raw[index/per] >> (index % per * int64(s.bits)) & (1<<s.bits - 1), true
}
