package mdns

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// answerOf is what a finder hears from a server of these names.
func answerOf(t testing.TB, instance, host string, text ...string) []dnsmessage.Resource {
	t.Helper()
	names := names{host: host, instance: instance, hostNumber: 1, instanceNumber: 1}
	packet, err := packResponse(recordsFor(names, []Service{{testType, 6500, text}}, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")}), nil, 120)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parse(packet)
	if err != nil {
		t.Fatal(err)
	}
	return m.records()
}

// TestFoundIsBounded: however much others send, so much is kept.
func TestFoundIsBounded(t *testing.T) {
	t.Parallel()
	f := newFinder(testType)
	for i := range 2 * maxFound {
		f.hear(answerOf(t, fmt.Sprint("s", i), fmt.Sprint("h", i)), "eth0")
		f.heardAddress(dnsName("h0.local."), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 120)
	}
	if len(f.servers) != maxFound || len(f.hosts) != maxFound || len(f.addresses(dnsName("h0.local."))) != maxFoundAddrs {
		t.Errorf("%d servers, %d hosts, %d addresses", len(f.servers), len(f.hosts), len(f.addresses(dnsName("h0.local."))))
	}
	if packet, err := (&finder{kind: f.kind, servers: f.servers}).question(); err != nil || len(packet) > 1400 {
		t.Errorf("asking for more: %d bytes, %v", len(packet), err)
	}
}

// TestEntries: what is known of services is listed by name; one that took itself
// back, and one whose host is not known, are left out.
func TestEntries(t *testing.T) {
	t.Parallel()
	f := newFinder(testType)
	f.hear(answerOf(t, "Homeroom", "homeroom", "TLS=6501", "version=0.1.0"), "eth0")
	f.hear(answerOf(t, "\x1b[2Jall", "pi\x1b", "tls"), "eth0")
	gone := answerOf(t, "Gone", "gone")
	f.hear(gone, "eth0")
	for i := range gone {
		gone[i].Header.TTL = 0
	}
	f.hear(gone, "eth0")
	f.heardServer(dnsName("Silent."+testType+".local."), 120)
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}
	want := []Entry{{"\x1b[2Jall", "pi\x1b.local", 6500, []string{"tls"}, addrs}, {"Homeroom", "homeroom.local", 6500, []string{"TLS=6501", "version=0.1.0"}, addrs}}
	if got := f.entries(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzPackets gives packets to everything that reads them. Whatever comes, an
// announcer answers with a few packets at most, which can be read, and so many
// services are found.
func FuzzPackets(f *testing.F) {
	names := names{host: "homeroom", instance: "Homeroom", hostNumber: 1, instanceNumber: 1}
	o := testOptions(Service{Type: testType, Port: 6500, Text: []string{"txtvers=1"}}, Service{Type: "_http._tcp", Port: 80})
	wire := fakeLink(1, "192.0.2.1/24", "fe80::1/64")
	records := recordsFor(names, o.Services, wire.addrs)
	packed := newAnnouncer(o).packed
	for _, packet := range [][]byte{
		packed(packProbe(records)), packed(packResponse(records, nil, 120)), packed(packDirect(&message{}, records[:2], records[2:])),
		askPacket(f, dnsmessage.Message{}, "ANY homeroom.local.", "PTR _homeroom._tcp.local.", "AAAA homeroom.local."),
	} {
		f.Add(packet, uint16(Port), true)
		f.Add(packet, uint16(53), false)
	}
	f.Fuzz(func(t *testing.T, packet []byte, port uint16, owns bool) {
		a := newAnnouncer(o)
		a.scan = func() []link { return []link{wire} }
		sent := 0
		a.send = func(_ link, _ netip.AddrPort, packet []byte) {
			sent++
			if _, err := parse(packet); err != nil {
				t.Errorf("it sends what cannot be read: %v", err)
			}
		}
		now := time.Now()
		a.relink(now)
		if owns {
			a.step, a.stepAt = probes+announcements, time.Time{}
		}
		a.receive(datagram{1, false, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), port), packet}, now)
		a.tick(now.Add(200 * time.Millisecond))
		if sent > 3 {
			t.Errorf("it sends %d packets", sent)
		}
		if m, err := parse(packet); err == nil {
			found := newFinder(testType)
			found.hear(m.records(), "eth0")
			if n := len(found.entries()); n > maxFound {
				t.Errorf("%d services are found", n)
			}
			if _, err := found.question(); err != nil {
				t.Error(err)
			}
		}
	})
}
