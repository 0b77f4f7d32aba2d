package mdns

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// loadedAnnouncer is an announcer on one link that has its names, and an announcement
// that is too long to be compared for nothing.
func loadedAnnouncer(t testing.TB) *announcer {
	t.Helper()
	a := newAnnouncer(testOptions(Service{Type: testType, Port: 6500, Text: []string{"txtvers=1"}}, Service{Type: "_http._tcp", Port: 6580}))
	for len(appendData(nil, &dnsmessage.TXTResource{TXT: a.services[0].Text})) <= usualData {
		a.services[0].Text = append(a.services[0].Text, strings.Repeat("x", 250))
	}
	a.scan = func() []link { return []link{fakeLink(1, "192.0.2.1/24", "fd00::1/64")} }
	a.send = func(link, netip.AddrPort, []byte) {}
	a.relink(time.Now())
	a.step, a.stepAt = probes+announcements, time.Time{}
	return a
}

// loadPackets is the packets that give an announcer the most to do: as many records
// as are looked at, all of its own names.
func loadPackets(t testing.TB, a *announcer) map[string][]byte {
	t.Helper()
	host, service := a.names.hostName(), a.names.service(testType)
	address := &dnsmessage.AResource{A: [4]byte{192, 0, 2, 0}} // has less right to the name: the server keeps it
	load := func(asked, name dnsmessage.Name, body dnsmessage.ResourceBody, into func(m *dnsmessage.Message) *[]dnsmessage.Resource) []byte {
		var m dnsmessage.Message
		for range maxRecords {
			m.Questions = append(m.Questions, question(asked, dnsmessage.TypeALL))
			head := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: serviceTTL}
			*into(&m) = append(*into(&m), dnsmessage.Resource{Header: head, Body: body})
		}
		return askPacket(t, m)
	}
	known := func(m *dnsmessage.Message) *[]dnsmessage.Resource { return &m.Answers }
	claims := func(m *dnsmessage.Message) *[]dnsmessage.Resource { return &m.Authorities }
	return map[string][]byte{
		"known ports":     load(service, service, &dnsmessage.SRVResource{Port: 1, Target: host}, known),
		"known texts":     load(service, service, &dnsmessage.TXTResource{TXT: []string{"x"}}, known),
		"known addresses": load(host, host, address, known),
		"claims":          load(host, host, address, claims),
	}
}

// handle handles a packet as an announcer does that still probes for the names, or one
// that has them: claims are for the former.
func (a *announcer) handle(l *announcedLink, m *message, now time.Time) {
	a.step = probes + announcements
	if len(m.claims) > 0 {
		a.step = 1
	}
	a.asked(l, m, now)
}

// TestMDNSLoad: what a packet costs grows with what it holds, not with its square.
// Memory taken stands for time, which no test can count on: the long text takes some
// each time that it is compared.
func TestMDNSLoad(t *testing.T) {
	a := loadedAnnouncer(t)
	now := time.Now()
	for name, packet := range loadPackets(t, a) {
		m, err := parse(packet)
		if err != nil {
			t.Fatal(err)
		}
		most := 10 * float64(len(m.questions)) // the records that answer each are put together
		if len(m.claims) > 0 {
			most = float64(len(m.claims)) / 2 // sorted once for each name
		}
		if got := testing.AllocsPerRun(1, func() { a.handle(a.links[0], m, now) }); got > most {
			t.Errorf("%s, a packet of %d bytes: memory is taken %v times, want %v at most", name, len(packet), got, most)
		}
	}
}

// BenchmarkMDNSLoad is what such a packet costs, with reading it.
func BenchmarkMDNSLoad(b *testing.B) {
	a := loadedAnnouncer(b)
	now := time.Now()
	for name, packet := range loadPackets(b, a) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, err := parse(packet)
				if err != nil {
					b.Fatal(err)
				}
				a.handle(a.links[0], m, now)
			}
			b.ReportMetric(float64(len(packet)), "bytes")
		})
	}
}
