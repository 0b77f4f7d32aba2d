package mdns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// fakeNet is a network of announcers, each with its links to it. Like a real one
// it gives each packet to everybody, its sender included.
type fakeNet struct {
	t       testing.TB
	mu      sync.Mutex
	members []*fakeMember
	log     []fakeSent
	parted  bool // nobody hears anybody else
}

type fakeSent struct {
	at   time.Time
	from netip.Addr
	to   netip.AddrPort // not valid: to everybody
	*message
}

// fakeMember is an announcer on the network.
type fakeMember struct {
	*announcer
	net     *fakeNet
	links   []link
	packets chan datagram
	changed chan struct{}
	stop    chan struct{}
	ended   chan struct{}
}

// fakeLink is a link of a machine with this address and, if it is an IPv4 one, an
// IPv6 one too.
func fakeLink(index int, addrs ...string) link {
	l := link{index: index, name: fmt.Sprintf("eth%d", index)}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		l.nets, l.addrs = append(l.nets, p), append(l.addrs, p.Addr())
	}
	return l
}

// testType is the type of the service that tests announce.
const testType = "_homeroom._tcp"

// testOptions announces these services, from the machine homeroom.
func testOptions(services ...Service) Options {
	return Options{Host: "Homeroom", Instance: "Homeroom", Services: services, Log: slog.New(slog.DiscardHandler)}
}

// join starts an announcer of two services that has these links.
func (n *fakeNet) join(links ...link) *fakeMember {
	chat := Service{Type: testType, Port: 6500, Text: []string{"txtvers=1", "protocol=0.03", "version=1", "tls=6501"}}
	return n.joinWith(testOptions(chat, Service{Type: "_http._tcp", Port: 6580, Text: []string{"txtvers=1", "path=/"}}), links...)
}

// joinWith starts an announcer with these options.
func (n *fakeNet) joinWith(o Options, links ...link) *fakeMember {
	m := &fakeMember{net: n, links: links, packets: make(chan datagram, 10000), changed: make(chan struct{}, 1),
		stop: make(chan struct{}), ended: make(chan struct{})}
	m.announcer = newAnnouncer(o)
	m.scan = func() []link {
		n.mu.Lock()
		defer n.mu.Unlock()
		return m.links
	}
	m.send = func(l link, to netip.AddrPort, packet []byte) { n.send(m, l.addrs[0], to, packet) }
	n.mu.Lock()
	n.members = append(n.members, m)
	n.mu.Unlock()
	go func() {
		defer close(m.ended)
		m.run(m.stop, m.packets, m.changed)
	}()
	return m
}

// send notes a packet and gives it to everybody who is to have it.
func (n *fakeNet) send(by *fakeMember, from netip.Addr, to netip.AddrPort, packet []byte) {
	m, err := parse(packet)
	if err != nil {
		n.t.Errorf("a packet that cannot be read: %v", err)
		return
	}
	if len(packet) > 1400 {
		n.t.Errorf("a packet of %d bytes", len(packet))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = append(n.log, fakeSent{time.Now(), from, to, m})
	for _, other := range n.members {
		if !to.IsValid() && (other == by || !n.parted) {
			other.give(from.String()+":5353", packet)
		}
	}
}

// give has a packet come in on all of a member's links.
func (m *fakeMember) give(from string, packet []byte) {
	for _, l := range m.links {
		m.packets <- datagram{l.index, l.v6, netip.MustParseAddrPort(from), packet}
	}
}

// sent is what was sent since the last call.
func (n *fakeNet) sent() []fakeSent {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	log := n.log
	n.log = nil
	return log
}

// part has members hear each other no more, or again.
func (n *fakeNet) part(parted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.parted = parted
}

// leave stops an announcer.
func (m *fakeMember) leave() {
	close(m.stop)
	<-m.ended
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	m.net.members = slices.DeleteFunc(m.net.members, func(o *fakeMember) bool { return o == m })
}

// called is what a settled announcer is called.
func (m *fakeMember) called() string {
	synctest.Wait()
	if !m.owns() {
		return "nothing yet"
	}
	return shownName(m.names.hostName()) + ", " + m.names.instanceName()
}

// onNet runs a test on a fake network, in fake time.
func onNet(t *testing.T, test func(t *testing.T, n *fakeNet)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{t: t}
		test(t, n)
		for len(n.members) > 0 {
			n.members[0].leave()
		}
	})
}

// ask packs questions.
func askPacket(t testing.TB, m dnsmessage.Message, asked ...string) []byte {
	t.Helper()
	kinds := map[string]dnsmessage.Type{"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "PTR": dnsmessage.TypePTR,
		"SRV": dnsmessage.TypeSRV, "TXT": dnsmessage.TypeTXT, "ANY": dnsmessage.TypeALL, "MX": dnsmessage.TypeMX}
	for _, line := range asked {
		kind, name, _ := strings.Cut(line, " ")
		m.Questions = append(m.Questions, question(dnsName(name), kinds[kind]))
	}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// shownRecords is records in a form to compare, without their times to live.
func shownRecords(all []dnsmessage.Resource) string {
	var lines []string
	for _, r := range all {
		what := ""
		switch body := r.Body.(type) {
		case *dnsmessage.PTRResource:
			what = "PTR " + body.PTR.String()
		case *dnsmessage.SRVResource:
			what = fmt.Sprintf("SRV %d %s", body.Port, body.Target)
		case *dnsmessage.TXTResource:
			what = "TXT " + strings.Join(body.TXT, ",")
		default:
			ip, _ := addressIn(body)
			what = ip.String()
		}
		lines = append(lines, strings.TrimSuffix(r.Header.Name.String(), ".local.")+" "+what)
	}
	return strings.Join(lines, "; ")
}

// TestAnnounceSteps: three questions whether the names are free, two
// announcements, then not a packet for a year, and at the end a goodbye.
func TestAnnounceSteps(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		m := n.join(fakeLink(1, "192.0.2.1/24", "fd00::1/64"))
		time.Sleep(365 * 24 * time.Hour)
		log := n.sent()
		if len(log) != probes+announcements {
			t.Fatalf("%d packets, want %d", len(log), probes+announcements)
		}
		for i, pause := range []time.Duration{probeEvery, probeEvery, probeEvery, announceEvery} {
			if got := log[i+1].at.Sub(log[i].at); got != pause {
				t.Errorf("packet %d comes %v after the one before, want %v", i+1, got, pause)
			}
		}
		claims := "homeroom 192.0.2.1; homeroom fd00::1"
		for _, p := range log[:probes] {
			if p.response || len(p.questions) != 3 || !strings.Contains(shownRecords(p.claims), claims) {
				t.Errorf("a probe with %d questions and %s", len(p.questions), shownRecords(p.claims))
			}
		}
		want := "_homeroom._tcp PTR Homeroom._homeroom._tcp.local.; Homeroom._homeroom._tcp SRV 6500 homeroom.local.; " +
			"Homeroom._homeroom._tcp TXT txtvers=1,protocol=0.03,version=1,tls=6501; _services._dns-sd._udp PTR _homeroom._tcp.local.; " +
			"_http._tcp PTR Homeroom._http._tcp.local.; Homeroom._http._tcp SRV 6580 homeroom.local.; " +
			"Homeroom._http._tcp TXT txtvers=1,path=/; _services._dns-sd._udp PTR _http._tcp.local.; " + claims
		m.leave()
		end := n.sent()
		if len(end) != 1 {
			t.Errorf("%d packets say goodbye, want 1", len(end))
		}
		for _, p := range append(log[probes:], end...) {
			if got := shownRecords(p.answers); !p.response || got != want {
				t.Errorf("announced %s\nwant %s", got, want)
			}
			for _, r := range p.answers {
				if shared := r.Header.Type == dnsmessage.TypePTR; shared == (r.Header.Class&flushBit != 0) {
					t.Errorf("%v has class %x", r.Header.Name, r.Header.Class)
				}
				if goodbye := p.at.After(log[probes+1].at); goodbye != (r.Header.TTL == 0) {
					t.Errorf("%v may be remembered for %d s", r.Header.Name, r.Header.TTL)
				}
			}
		}
	})
}

// TestSameName: machines that start at once with the same names get different
// ones, and so does one that comes later.
func TestSameName(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		var all []*fakeMember
		for i := range 3 {
			all = append(all, n.join(fakeLink(1, fmt.Sprintf("192.0.2.%d/24", i+1))))
		}
		time.Sleep(time.Minute)
		all = append(all, n.join(fakeLink(1, "192.0.2.9/24")))
		time.Sleep(time.Minute)
		var names []string
		for _, m := range all {
			names = append(names, m.called())
		}
		if last := names[3]; last != "homeroom-4.local, Homeroom (4)" {
			t.Errorf("the last one is %s", last)
		}
		slices.Sort(names)
		want := []string{"homeroom-2.local, Homeroom (2)", "homeroom-3.local, Homeroom (3)", "homeroom-4.local, Homeroom (4)", "homeroom.local, Homeroom"}
		if !slices.Equal(names, want) {
			t.Errorf("got %q", names)
		}
	})
}

// TestNetworksMeet: two machines that got the same names on networks of their own
// get different ones when the networks are joined.
func TestNetworksMeet(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		n.part(true)
		a, b := n.join(fakeLink(1, "192.0.2.1/24")), n.join(fakeLink(1, "192.0.2.2/24"))
		time.Sleep(time.Minute)
		if a.called() != "homeroom.local, Homeroom" || b.called() != a.called() {
			t.Fatalf("apart: %s and %s", a.called(), b.called())
		}
		n.part(false)
		packet := askPacket(t, dnsmessage.Message{}, "A homeroom.local.", "SRV Homeroom._homeroom._tcp.local.")
		a.give("192.0.2.7:5353", packet)
		time.Sleep(time.Minute)
		names := []string{a.called(), b.called()}
		slices.Sort(names)
		if want := []string{"homeroom-2.local, Homeroom (2)", "homeroom.local, Homeroom"}; !slices.Equal(names, want) {
			t.Errorf("together: %q", names)
		}
	})
}

// TestOneMachineTwice: a machine with two ways into one network hears itself and
// keeps its name; another server on the same machine shares it.
func TestOneMachineTwice(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		wire, radio := fakeLink(1, "192.0.2.1/24"), fakeLink(2, "192.0.2.2/24")
		a := n.join(wire, radio)
		time.Sleep(time.Minute)
		b := n.joinWith(testOptions(Service{Type: testType, Port: 7500}), wire, radio)
		time.Sleep(time.Minute)
		if got := a.called(); got != "homeroom.local, Homeroom" {
			t.Errorf("the first is %s", got)
		}
		if got := b.called(); got != "homeroom.local, Homeroom (2)" {
			t.Errorf("the second is %s", got)
		}
		n.sent()
		b.leave() // and takes the address back, which the other still has
		time.Sleep(time.Minute)
		var again bool
		for _, p := range n.sent() {
			again = again || strings.Contains(shownRecords(p.answers), "homeroom 192.0.2.1") && p.answers[0].Header.TTL > 0
		}
		if !again {
			t.Error("the first does not say that the name is still its own")
		}
	})
}

// TestAnswers: what is asked, and what is answered when.
func TestAnswers(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		m := n.join(fakeLink(1, "192.0.2.1/24"))
		time.Sleep(time.Minute)
		n.sent()
		const service = "Homeroom._homeroom._tcp.local."
		for _, test := range []struct {
			asked, want string
			shared      bool
		}{
			{"A homeroom.local.", "homeroom 192.0.2.1", false},
			{"A HOMEroom.Local.", "homeroom 192.0.2.1", false},
			{"ANY homeroom.local.", "homeroom 192.0.2.1", false},
			{"SRV " + service, "Homeroom._homeroom._tcp SRV 6500 homeroom.local.", false},
			{"PTR _homeroom._tcp.local.", "_homeroom._tcp PTR " + service, true},
			{"PTR _http._tcp.local.", "_http._tcp PTR Homeroom._http._tcp.local.", true},
			{"PTR _services._dns-sd._udp.local.", "_services._dns-sd._udp PTR _homeroom._tcp.local.; _services._dns-sd._udp PTR _http._tcp.local.", true},
			{"A homeroom-2.local.", "", false},
			{"A homeroom.", "", false},
			{"PTR _ipp._tcp.local.", "", false},
			{"A _homeroom._tcp.local.", "", false},
		} {
			asked := time.Now()
			m.give("192.0.2.7:5353", askPacket(t, dnsmessage.Message{}, test.asked))
			time.Sleep(2 * time.Second)
			var got []string
			for _, p := range n.sent() {
				got = append(got, shownRecords(p.answers))
				if wait := p.at.Sub(asked); test.shared != (wait >= sharedLeast) || wait > sharedLeast+sharedSpread {
					t.Errorf("%s: answered after %v", test.asked, wait)
				}
			}
			if answer := strings.Join(got, "; "); len(got) > 2 || !sameLines(answer, test.want) {
				t.Errorf("%s: %q, want %q", test.asked, answer, test.want)
			}
		}
	})
}

// sameLines compares records in any order.
func sameLines(a, b string) bool {
	as, bs := strings.Split(a, "; "), strings.Split(b, "; ")
	slices.Sort(as)
	slices.Sort(bs)
	return slices.Equal(as, bs)
}

// TestNoAddress: a question for an address of a family that the machine lacks is
// answered with that at once.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	host := dnsName("homeroom.local.")
	records := recordsFor(names{host: "homeroom", hostNumber: 1, instanceNumber: 1}, nil, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	found := answersTo(question(host, dnsmessage.TypeAAAA), records)
	if len(found) != 1 || found[0].Header.Type != typeNSEC {
		t.Fatalf("got %v", found)
	}
	want := append([]byte("\x08homeroom\x05local\x00"), 0, 1, 0x40)
	if got := found[0].Body.(*dnsmessage.UnknownResource).Data; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAnswersAreFew: known answers are not repeated, and no record goes to everybody
// more than once a second, however often it is asked for.
func TestAnswersAreFew(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		m := n.join(fakeLink(1, "192.0.2.1/24"))
		time.Sleep(time.Minute)
		n.sent()
		known := dnsmessage.Message{Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsName("_homeroom._tcp.local."), Class: dnsmessage.ClassINET, TTL: serviceTTL / 2},
			Body:   &dnsmessage.PTRResource{PTR: dnsName("Homeroom._homeroom._tcp.local.")},
		}}}
		m.give("192.0.2.7:5353", askPacket(t, known, "PTR _homeroom._tcp.local."))
		time.Sleep(time.Minute)
		if log := n.sent(); len(log) != 0 {
			t.Errorf("told again what was known: %s", shownRecords(log[0].answers))
		}
		known.Answers[0].Header.TTL--
		m.give("192.0.2.7:5353", askPacket(t, known, "PTR _homeroom._tcp.local."))
		time.Sleep(time.Minute)
		if len(n.sent()) != 1 {
			t.Error("not told what will soon be forgotten")
		}
		for range 1000 {
			m.give("192.0.2.7:5353", askPacket(t, dnsmessage.Message{}, "A homeroom.local.", "A homeroom.local.", "PTR _homeroom._tcp.local."))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if got := len(n.sent()); got < 10 || got > 24 {
			t.Errorf("%d answers to 1000 questions in 10 s, want about 2 a second", got)
		}
	})
}

// TestDirectAnswers: a program that asks from a port of its own gets an answer of
// its own, in the form of plain DNS; not too many of them, and nobody elsewhere.
func TestDirectAnswers(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		m := n.join(fakeLink(1, "192.0.2.1/24"))
		time.Sleep(time.Minute)
		n.sent()
		question := askPacket(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 77}}, "A homeroom.local.")
		m.give("192.0.2.7:33333", question)
		log := n.sent()
		if len(log) != 1 || log[0].to.String() != "192.0.2.7:33333" || log[0].id != 77 || len(log[0].questions) != 1 {
			t.Fatalf("got %+v", log)
		}
		if r := log[0].answers; shownRecords(r) != "homeroom 192.0.2.1" || r[0].Header.TTL > 10 || r[0].Header.Class != dnsmessage.ClassINET {
			t.Errorf("got %+v", r)
		}
		for _, from := range []string{"198.51.100.7:33333", "198.51.100.7:5353", "[2001:db8::1]:53"} {
			m.give(from, question)
		}
		m.give("192.0.2.7:53", askPacket(t, dnsmessage.Message{}, slices.Repeat([]string{"A homeroom.local."}, maxDirectAsked+1)...))
		time.Sleep(time.Minute)
		if log := n.sent(); len(log) != 0 {
			t.Errorf("answered %v", log[0].to)
		}
		for range 1000 {
			m.give("192.0.2.7:33333", question)
		}
		time.Sleep(time.Minute)
		if got := len(n.sent()); got != maxDirect {
			t.Errorf("%d answers to 1000 questions at once, want %d", got, maxDirect)
		}
	})
}

// TestNameThief: somebody who claims every name that is tried costs a few packets
// a minute, and the names are found when he has gone.
func TestNameThief(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		m := n.join(fakeLink(1, "192.0.2.1/24"))
		n.sent()
		const hour = 3600
		count := 0
		for range hour {
			time.Sleep(time.Second)
			for _, p := range n.sent() {
				count++
				for _, q := range p.questions {
					theft := dnsmessage.Message{Header: dnsmessage.Header{Response: true}, Answers: []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 120},
						Body:   &dnsmessage.SRVResource{Port: 1, Target: q.Name},
					}, {
						Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 120},
						Body:   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 66}},
					}}}
					m.give("192.0.2.66:5353", askPacket(t, theft))
				}
			}
		}
		if count > 20*hour/60 {
			t.Errorf("%d packets in an hour", count)
		}
		time.Sleep(10 * time.Minute)
		if got := m.called(); !strings.HasPrefix(got, "homeroom") {
			t.Errorf("afterwards it is called %s", got)
		}
	})
}

// TestInterfacesChange: a new address is announced, and a server without a network
// waits for one.
func TestInterfacesChange(t *testing.T) {
	onNet(t, func(t *testing.T, n *fakeNet) {
		m := n.join()
		change := func(links ...link) []fakeSent {
			n.mu.Lock()
			m.links = links
			n.mu.Unlock()
			m.changed <- struct{}{}
			time.Sleep(time.Minute)
			return n.sent()
		}
		time.Sleep(time.Minute)
		if log := n.sent(); len(log) != 0 {
			t.Errorf("without a network: %d packets", len(log))
		}
		for _, addr := range []string{"192.0.2.1/24", "203.0.113.5/24"} {
			log := change(fakeLink(1, addr))
			if want, _, _ := strings.Cut(addr, "/"); len(log) != probes+announcements || !strings.HasSuffix(shownRecords(log[4].answers), "homeroom "+want) {
				t.Errorf("%s: %d packets", addr, len(log))
			}
		}
		if log := change(fakeLink(1, "203.0.113.5/24")); len(log) != 0 {
			t.Errorf("nothing has changed, and %d packets are sent", len(log))
		}
		if log := change(); len(log) != 0 {
			t.Errorf("the network has gone, and %d packets are sent", len(log))
		}
	})
}
