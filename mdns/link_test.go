package mdns

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestAnnouncedAddresses: IPv6's addresses for one link only are announced where
// there is no other, and never too many of any.
func TestAnnouncedAddresses(t *testing.T) {
	t.Parallel()
	nets := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	everywhere := func(netip.Addr) bool { return true }
	for _, test := range []struct {
		nets []netip.Prefix
		want string
	}{
		{nets("192.0.2.1/24", "fe80::1/64"), "[192.0.2.1 fe80::1]"},
		{nets("192.0.2.1/24", "fd00::1/64", "fe80::1/64"), "[192.0.2.1 fd00::1]"},
		{nets("127.0.0.1/8", "::1/128"), "[]"},
		{nets("fe80::1/64", "fe80::2/64", "fe80::3/64", "fe80::4/64", "fe80::5/64", "fe80::6/64", "fe80::7/64", "fe80::8/64", "fe80::9/64"),
			"[fe80::1 fe80::2 fe80::3 fe80::4 fe80::5 fe80::6 fe80::7 fe80::8]"},
	} {
		if got := fmt.Sprint(announcedAddrs(test.nets, everywhere)); got != test.want {
			t.Errorf("of %v: %s, want %s", test.nets, got, test.want)
		}
	}
	const list = "fd000000000000000000000000000001 02 40 00 41 eth0\nfd000000000000000000000000000002 02 40 00 80 eth0\n"
	if !isTentative(netip.MustParseAddr("fd00::1"), list) || isTentative(netip.MustParseAddr("fd00::2"), list) {
		t.Error("an address that is not usable yet is not told from one that is")
	}
}

func TestFleetingAddresses(t *testing.T) {
	t.Parallel()
	const list = `20010db8000000000000000000000001 02 40 00 01     eth0
20010db8000000000000000000000002 02 40 00 00     eth0
00000000000000000000000000000001 01 80 10 81       lo
`
	for ip, want := range map[string]bool{"2001:db8::1": true, "2001:db8::2": false, "::1": false, "2001:db8::3": false, "10.0.0.1": false} {
		if got := isFleeting(netip.MustParseAddr(ip), list); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
}
