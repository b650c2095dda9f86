package verify

import (
	"testing"

	"github.com/sallyport-sts/sallyport/federation/fetch"
)

// What may be reached follows from configuration alone: http and loopback only where the issuer says so itself.
func TestNetworkIsAsNarrowAsTheIssuer(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		config Config
		want   fetch.Network
	}{
		{Config{Issuer: "https://sts.example"}, fetch.Network{}},
		{Config{Issuer: "https://10.0.0.1", CAFile: "ca.pem"}, fetch.Network{CAFile: "ca.pem"}},
		{Config{Issuer: "https://sts.example", AllowPrivate: true}, fetch.Network{AllowPrivate: true}},
		{Config{Issuer: "https://127.0.0.1:8443"}, fetch.Network{AllowPrivate: true}},
		{Config{Issuer: "http://localhost:8443"}, fetch.Network{AllowPrivate: true, AllowHTTP: true}},
	} {
		if got, err := tc.config.network(); err != nil || got != tc.want {
			t.Errorf("%+v: got %+v, %v; want %+v", tc.config, got, err, tc.want)
		}
	}
}
