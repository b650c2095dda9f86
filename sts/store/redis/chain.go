package redis

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/sallyport-sts/sallyport/sts/revocation"
)

// errDamaged means that what Redis holds was not written by this deployment, or not in this order.
var errDamaged = errors.New("the revocations in Redis are damaged; nothing is served from them. Find out who wrote there; after its keys head and stream are deleted, replicas put back what they know")

// mark is a place in the chain: the entry at a position, by its MAC.
type mark struct {
	epoch, n uint64 // epoch of the stream id
	mac      string // "" before the first entry
	anchored bool   // the entry stands in the stream; else it was trimmed, or there is none
}

func (m mark) id() string { return strconv.FormatUint(m.epoch, 10) + "-" + strconv.FormatUint(m.n, 10) }

// view is what one look saw.
type view struct {
	millis   uint64 // of the clock of Redis
	run      string
	exists   bool // there is a head
	headRun  string
	epoch    uint64
	n        uint64
	mac      string
	floor    mark
	settling bool
	replicas map[string]string
	entries  []redis.XMessage
}

// maxAhead is how far an epoch, which is seconds or one more than the last, can be before the clock of Redis: that may be wrong
// by decades.
const maxAhead = 1 << 32

// sum is HMAC-SHA256 over parts, each with its length, so that no two lists of parts have one sum.
func sum(key []byte, parts ...string) string {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		h.Write([]byte(p))
	}
	return string(h.Sum(nil))
}

func entryMAC(key []byte, id, before, entry string) string {
	return sum(key, "sallyport revocation entry", id, before, entry)
}

func floorMAC(key []byte, n uint64, mac string) string {
	return sum(key, "sallyport revocation floor", strconv.FormatUint(n, 10), mac)
}

func same(a, b string) bool { return hmac.Equal([]byte(a), []byte(b)) }

// next checks that m follows at in the chain, and returns its mark and its entry.
func next(key []byte, at mark, m redis.XMessage) (mark, revocation.Entry, error) {
	var e revocation.Entry
	epoch, n, ok := parseID(m.ID)
	text, ok1 := m.Values["entry"].(string)
	mac, ok2 := m.Values["mac"].(string)
	switch {
	case !ok || !ok1 || !ok2:
		return at, e, fmt.Errorf("%w: %s is no entry", errDamaged, m.ID)
	case n != at.n+1:
		return at, e, fmt.Errorf("%w: after position %d comes %d", errDamaged, at.n, n)
	case !same(mac, entryMAC(key, m.ID, at.mac, text)):
		return at, e, fmt.Errorf("%w: the MAC of %s is wrong", errDamaged, m.ID)
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return at, e, fmt.Errorf("%w: %s does not parse", errDamaged, m.ID)
	}
	return mark{epoch: epoch, n: n, mac: mac, anchored: true}, e, nil
}

func parseID(s string) (epoch, n uint64, ok bool) {
	a, b, ok := strings.Cut(s, "-")
	epoch, err1 := strconv.ParseUint(a, 10, 64)
	n, err2 := strconv.ParseUint(b, 10, 64)
	return epoch, n, ok && err1 == nil && err2 == nil
}

// heartbeat is what a replica publishes: when it looked, by the clock of Redis, and what it has applied.
type heartbeat struct{ millis, epoch, n uint64 }

func (h heartbeat) text(key []byte, replica string) string {
	s := fmt.Sprintf("%d %d %d", h.millis, h.epoch, h.n)
	return s + " " + hex.EncodeToString([]byte(sum(key, "sallyport replica", replica, s)))
}

func parseHeartbeat(key []byte, replica, s string) (heartbeat, bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return heartbeat{}, false
	}
	mac, err := hex.DecodeString(s[i+1:])
	if err != nil || !same(string(mac), sum(key, "sallyport replica", replica, s[:i])) {
		return heartbeat{}, false
	}
	var h heartbeat
	_, err = fmt.Sscanf(s[:i], "%d %d %d", &h.millis, &h.epoch, &h.n)
	return h, err == nil
}

// parseView reads the answer of the script look.
func parseView(raw any, key []byte) (view, error) {
	var v view
	list, ok := raw.([]any)
	if !ok || len(list) != 7 {
		return v, errors.New("the Redis answered a script in another shape")
	}
	secs, _ := strconv.ParseUint(fmt.Sprint(list[0]), 10, 64)
	micros, _ := strconv.ParseUint(fmt.Sprint(list[1]), 10, 64)
	v.millis = secs*1000 + micros/1000
	v.run, _ = list[2].(string)
	head := pairs(list[3])
	v.headRun, v.exists = head["run"]
	pttl, _ := list[4].(int64)
	v.settling = pttl != -2
	v.replicas = pairs(list[5])
	messages, _ := list[6].([]any)
	for _, m := range messages {
		one, _ := m.([]any)
		if len(one) != 2 {
			return v, fmt.Errorf("%w: the stream has another shape", errDamaged)
		}
		values := map[string]any{}
		for k, s := range pairs(one[1]) {
			values[k] = s
		}
		v.entries = append(v.entries, redis.XMessage{ID: fmt.Sprint(one[0]), Values: values})
	}
	if !v.exists {
		return v, nil
	}
	var err1, err2, err3 error
	v.epoch, err1 = strconv.ParseUint(head["epoch"], 10, 64)
	v.n, err2 = strconv.ParseUint(head["n"], 10, 64)
	v.mac = head["mac"]
	if f, ok := head["floor"]; ok {
		v.floor.n, err3 = strconv.ParseUint(f, 10, 64)
		v.floor.mac = head["floor_mac"]
		if err3 == nil && !same(head["floor_sum"], floorMAC(key, v.floor.n, v.floor.mac)) {
			err3 = errors.New("the MAC of the floor is wrong")
		}
	}
	if v.epoch > v.millis/1000+maxAhead { // the next would be a smaller number
		err1 = errors.New("the epoch is none that replicas begin")
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return v, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return v, nil
}

func pairs(raw any) map[string]string {
	list, _ := raw.([]any)
	out := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		k, _ := list[i].(string)
		out[k], _ = list[i+1].(string)
	}
	return out
}
