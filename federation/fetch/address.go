package fetch

import (
	"context"
	"net/netip"
	"syscall"
)

// control runs after name resolution, for each address, before the socket connects.
func (n Network) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !n.allows(ap.Addr()) {
		return ErrAddress
	}
	return nil
}

// metadata are the addresses where clouds hand credentials to whoever asks from inside, beyond link-local.
// They stay refused where private addresses are allowed.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // GCP
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("168.63.129.16"),   // Azure
}

// reserved are the networks that netip has no word for and that no issuer lives in.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"), // and broadcast
	netip.MustParsePrefix("::/96"),       // IPv4-compatible
	netip.MustParsePrefix("::ffff:0:0:0/96"),
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64: an IPv4 address in disguise
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/32"), // Teredo
	netip.MustParsePrefix("2002::/16"), // 6to4
	netip.MustParsePrefix("fec0::/10"), // site-local
}

// sharedSpace is carrier-grade NAT, private for our purposes (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// allows reports whether an address may be dialled.
func (n Network) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() || a.IsPrivate() || sharedSpace.Contains(a) {
		return n.AllowPrivate && !isMetadata(a)
	}
	if !a.IsGlobalUnicast() || isMetadata(a) { // link-local, multicast, unspecified
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

func isMetadata(a netip.Addr) bool {
	for _, m := range metadata {
		if a == m {
			return true
		}
	}
	return false
}
