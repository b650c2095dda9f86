package keys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strconv"
)

// seen is what a replica remembers of the newest document it worked with, so that an older one, or another
// deployment's, put in its place is noticed although it opens.
type seen struct {
	Deployment string `json:"deployment"`
	Serial     uint64 `json:"serial"`
	MAC        []byte `json:"mac"`
}

func seenMAC(d document) []byte {
	m := hmac.New(sha256.New, d.MAC)
	m.Write([]byte("sallyport keys seen\x00" + d.Deployment + "\x00" + strconv.FormatUint(d.Serial, 10)))
	return m.Sum(nil)
}

// checkSeen refuses a document that is older than what path remembers.
func checkSeen(path string, d document) error {
	if path == "" {
		return nil
	}
	data, err := readFile(path)
	if err != nil {
		return fmt.Errorf("reading what was seen of the keys: %w", err)
	}
	if data == nil {
		return nil
	}
	hint := fmt.Sprintf("; if this is meant (a restored backup), remove %s: keys that were taken out since are back then, so rotate at once with --compromised", path)
	var s seen
	if json.Unmarshal(data, &s) != nil || len(s.Deployment) < 8 {
		return fmt.Errorf("%w: %s is not what this program writes%s", ErrRollback, path, hint)
	}
	if err := d.notBefore(document{Deployment: s.Deployment, Serial: s.Serial}); err != nil {
		return fmt.Errorf("%w%s", err, hint)
	}
	if !hmac.Equal(s.MAC, seenMAC(document{MAC: d.MAC, Deployment: s.Deployment, Serial: s.Serial})) {
		return fmt.Errorf("%w: %s was changed%s", ErrRollback, path, hint)
	}
	return nil
}

// remember writes down that d was worked with.
func remember(path string, d document) error {
	if path == "" {
		return nil
	}
	data, err := json.Marshal(seen{d.Deployment, d.Serial, seenMAC(d)})
	if err == nil {
		err = replace(path, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("remembering which keys were seen: %w", err)
	}
	return nil
}
