package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// TestWhatIsAnnounced: which ports are told to whom, and none that are for this
// machine only.
func TestWhatIsAnnounced(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ plain, tls, web, want string }{
		{"[::]:6500", "", "", "_homeroom._tcp 6500"},
		{"0.0.0.0:6500", "0.0.0.0:6501", "0.0.0.0:80", "_homeroom._tcp 6500 tls=6501, _http._tcp 80"},
		{"127.0.0.1:6500", "[::]:6501", "", "_homeroom._tcp 6501 tls=6501"},
		{"127.0.0.1:6500", "", "[::1]:80", ""},
		{"[::1]:6500", "", "192.0.2.1:80", "_http._tcp 80"},
	} {
		at := func(text string) netip.AddrPort {
			if text == "" {
				return netip.AddrPort{}
			}
			return publicAddress(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text)))
		}
		ports := openPorts{at(test.plain), at(test.tls), at(test.web)}
		var got []string
		for _, s := range ports.services() {
			line := fmt.Sprint(s.Type, " ", s.Port)
			for _, text := range s.Text {
				if strings.HasPrefix(text, "tls=") {
					line += " " + text
				}
			}
			got = append(got, line)
		}
		if shown := strings.Join(got, ", "); shown != test.want {
			t.Errorf("%s, TLS %s, web %s: announced is %q, want %q", test.plain, test.tls, test.web, shown, test.want)
		}
	}
}

// TestPortsOf: a server knows which of its ports are open to the network.
func TestPortsOf(t *testing.T) {
	t.Parallel()
	ts := startServer(t, func(c *config) { c.TLS.Listen, c.Web.Listen = "127.0.0.1:0", "0.0.0.0:0" })
	want := openPorts{web: netip.MustParseAddrPort(ts.doorway.web.listener.Addr().String())}
	if got := ts.portsOf(); got != want || len(got.services()) != 1 || got.services()[0].Type != webService {
		t.Errorf("got %+v, want %+v", got, want)
	}
	ts = startServer(t, func(c *config) { c.Server.Listen, c.TLS.Listen = "0.0.0.0:0", "0.0.0.0:0" })
	if got := ts.portsOf(); got.plain.String() != ts.Addr || !got.tls.IsValid() || got.web.IsValid() {
		t.Errorf("got %+v", got)
	}
}

// TestWhereAnnounced: an address is announced where a port is open on it.
func TestWhereAnnounced(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		open, addr string
		want       bool
	}{
		{"[::]:1", "192.0.2.1", true}, {"[::]:1", "fd00::1", true},
		{"0.0.0.0:1", "192.0.2.1", true}, {"0.0.0.0:1", "fd00::1", false},
		{"192.0.2.1:1", "192.0.2.1", true}, {"192.0.2.1:1", "192.0.2.2", false},
		{"[fe80::1%eth0]:1", "fe80::1", true}, {"[fd00::1]:1", "192.0.2.1", false},
	} {
		if got := (openPorts{tls: netip.MustParseAddrPort(test.open)}).reach(netip.MustParseAddr(test.addr)); got != test.want {
			t.Errorf("%s reaches %s: %v", test.open, test.addr, got)
		}
	}
	if (openPorts{}).reach(netip.MustParseAddr("192.0.2.1")) {
		t.Error("no port, and it is reached")
	}
}
