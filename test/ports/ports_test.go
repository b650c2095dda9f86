package ports_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/sallyport-sts/sallyport/test/ports"
)

// An address is given out once and can be listened on; what is listened on is not given out.
func TestAddressesAreFreeAndDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 200 {
		for _, address := range []string{ports.Address(), net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.Port()))} {
			if seen[address] {
				t.Fatalf("%s was given out twice", address)
			}
			seen[address] = true
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatalf("%s is not free: %v", address, err)
			}
			defer l.Close()
		}
	}
}
