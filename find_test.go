package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"homeroom/test/wire"
)

// findIn runs `homeroom find` in a namespace until what it prints is as wanted.
func (l *link) findIn(space, path string, wanted func(text string) bool) {
	l.t.Helper()
	var out []byte
	for deadline := time.Now().Add(2 * wire.Patience); time.Now().Before(deadline); {
		out, _ = exec.Command("ip", "netns", "exec", space, path, "find", "-time", "1s").CombinedOutput() // fails while nothing is found
		if wanted(string(out)) {
			return
		}
	}
	l.t.Fatalf("homeroom find in %s says:\n%s", space, out)
}

// lookUp asks a namespace's network for a host's IPv4 address as a program does
// that knows plain DNS only, until it is answered.
func (l *link) lookUp(space, own, host string) string {
	l.t.Helper()
	var conn net.PacketConn
	l.in(space, func() (err error) {
		conn, err = net.ListenPacket("udp4", own+":0")
		return err
	})
	defer conn.Close()
	question := askPacket(l.t, dnsmessage.Message{Header: dnsmessage.Header{ID: 4711}}, "A "+host+".")
	buf := make([]byte, maxMDNSPacket)
	for deadline := time.Now().Add(2 * wire.Patience); time.Now().Before(deadline); {
		if _, err := conn.WriteTo(question, net.UDPAddrFromAddrPort(mdnsGroup(false))); err != nil {
			l.t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			l.t.Fatal(err)
		}
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			continue
		}
		m, err := parseMDNS(buf[:n])
		if err != nil || m.id != 4711 || len(m.answers) != 1 {
			l.t.Fatalf("got %q", buf[:n])
		}
		return shownRecords(m.answers)
	}
	l.t.Fatalf("nobody says where %s is", host)
	return ""
}

// TestFoundOverTheNetwork: a server is found from another machine, by its service
// and by its host name; a second one takes other names; one that stops is
// forgotten; and a new address is announced.
func TestFoundOverTheNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("the servers take seconds to get their names")
	}
	t.Parallel()
	cable, path := newLink(t), buildProgram(t)
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	start := func(space, listen, extra string) *program {
		settings := writeSettings(t, programSettings+"[find]\nname = \"classroom\"\n"+extra)
		return startProgram(t, ip, "netns", "exec", space, path, "-config", settings, "-data", t.TempDir(), "-listen", listen)
	}
	has := func(parts ...string) func(string) bool {
		return func(text string) bool {
			fields := strings.Fields(text)
			return !slices.ContainsFunc(parts, func(p string) bool { return !slices.Contains(fields, p) })
		}
	}
	first := start(cable.server, ":6500", "[tls]\nlisten = \":6501\"\n")
	cable.findIn(cable.clients, path, has("Homeroom", "classroom.local", "6500", "6501", version, "10.99.0.1"))
	cable.findIn(cable.server, path, has("Homeroom", "classroom.local"))
	if got, want := cable.lookUp(cable.clients, "10.99.0.2", "classroom.local"), "classroom 10.99.0.1"; got != want {
		t.Errorf("the answer is %s, want %s", got, want)
	}
	second := start(cable.clients, "10.99.0.2:7500", "")
	cable.findIn(cable.clients, path, has("classroom.local", "classroom-2.local", "(2)", "7500", "10.99.0.2"))
	if out, err := exec.Command(ip, "-n", cable.server, "addr", "add", "10.99.0.7/24", "dev", "cable").CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	cable.findIn(cable.clients, path, has("classroom.local", "10.99.0.7"))
	if code := first.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	cable.findIn(cable.server, path, func(text string) bool { return !has("classroom.local")(text) && has("classroom-2.local")(text) })
	if code := second.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	cable.findIn(cable.server, path, func(text string) bool { return strings.Contains(text, "no server has answered") })
	if log := second.logged(); !strings.Contains(log, "another machine on this network has the name") || !strings.Contains(log, "name=classroom-2.local") {
		t.Errorf("the second logs:\n%s", log)
	}
}

// TestPortTaken: where the port cannot be had, the server says so in one line and
// serves.
func TestPortTaken(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs a network of its own")
	}
	t.Parallel()
	cable, path := newLink(t), buildProgram(t)
	var holders []net.PacketConn
	cable.in(cable.server, func() error {
		for _, network := range []string{"udp4", "udp6"} {
			conn, err := net.ListenPacket(network, ":5353") // and does not share it
			if err != nil {
				return err
			}
			holders = append(holders, conn)
		}
		return nil
	})
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	settings := writeSettings(t, programSettings)
	p := startProgram(t, ip, "netns", "exec", cable.server, path, "-config", settings, "-data", t.TempDir(), "-listen", "10.99.0.1:6500")
	wire.Greeted(t, cable.dial(cable.clients, "10.99.0.1:6500")).Ask("#login anon ann", "@status 0")
	out, err := exec.Command(ip, "netns", "exec", cable.server, path, "find").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "asking the network: opening port 5353") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("homeroom find: %v, %s", err, out)
	}
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if log := p.logged(); strings.Count(log, "cannot be found by name on the network; all else works") != 1 || strings.Count(log, "level=WARN") != 1 {
		t.Errorf("it logs:\n%s", log)
	}
	for _, h := range holders {
		h.Close()
	}
}

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
			line := fmt.Sprint(s.kind, " ", s.port)
			for _, text := range s.text {
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
	want := openPorts{web: netip.MustParseAddrPort(ts.web.listener.Addr().String())}
	if got := ts.portsOf(); got != want || len(got.services()) != 1 || got.services()[0].kind != webService {
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

// TestLongNames: names that are too long for a part of a name are cut, between two
// characters, with room for a number.
func TestLongNames(t *testing.T) {
	t.Parallel()
	n := netNames{host: strings.Repeat("h", 63), instance: strings.Repeat("ü", 50), hostNumber: 1, instanceNumber: 1}
	if got, want := n.hostName().String(), n.host+".local."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.instanceName(), strings.Repeat("ü", 31); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	n.hostNumber, n.instanceNumber, n.instance = 12, 12, "v1.2 "+n.instance
	if got, want := n.hostName().String(), strings.Repeat("h", 60)+"-12.local."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := n.instanceName(), "v1-2 "+strings.Repeat("ü", 26)+" (12)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// answerOf is what a finder hears from a server of these names.
func answerOf(t testing.TB, instance, host string, text ...string) []dnsmessage.Resource {
	t.Helper()
	names := netNames{host: host, instance: instance, hostNumber: 1, instanceNumber: 1}
	packet, err := packResponse(recordsFor(names, []netService{{chatService, 6500, text}}, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")}), nil, 120)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseMDNS(packet)
	if err != nil {
		t.Fatal(err)
	}
	return m.records()
}

// TestFoundIsShown: the table of what was found, with names that would like to do
// something to the terminal.
func TestFoundIsShown(t *testing.T) {
	t.Parallel()
	f := &finder{}
	f.hear(answerOf(t, "Homeroom", "homeroom", "TLS=6501", "version=0.1.0"), "eth0")
	f.hear(answerOf(t, "\x1b[2Jall\tgone\r\n\u202e\xff", "pi\x1b", "version="+strings.Repeat("\x07", 200), "tls"), "eth0")
	f.hear(answerOf(t, "Gone", "gone"), "eth0")
	gone := answerOf(t, "Gone", "gone")
	for i := range gone {
		gone[i].Header.TTL = 0
	}
	f.hear(gone, "eth0")
	var out bytes.Buffer
	if err := f.write(&out); err != nil {
		t.Fatal(err)
	}
	want := `NAME                                  HOST            PORT  TLS   VERSION                                   ADDRESSES
\x1b[2Jall\tgone\r\n\u202e\xff  pi\x1b.local     6500  -     \a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a  192.0.2.1 fe80::1%eth0
Homeroom                              homeroom.local  6500  6501  0.1.0                                     192.0.2.1 fe80::1%eth0
`
	if got := out.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestFoundIsBounded: however much others send, so much is kept.
func TestFoundIsBounded(t *testing.T) {
	t.Parallel()
	f := &finder{}
	for i := range 2 * maxFound {
		f.hear(answerOf(t, fmt.Sprint("s", i), fmt.Sprint("h", i)), "eth0")
		f.heardAddress(dnsName("h0.local."), netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 120)
	}
	if len(f.servers) != maxFound || len(f.hosts) != maxFound || len(f.addresses(dnsName("h0.local."))) != maxFoundAddrs {
		t.Errorf("%d servers, %d hosts, %d addresses", len(f.servers), len(f.hosts), len(f.addresses(dnsName("h0.local."))))
	}
	if packet, err := (&finder{servers: f.servers}).question(); err != nil || len(packet) > 1400 {
		t.Errorf("asking for more: %d bytes, %v", len(packet), err)
	}
}

// TestFindUsage: what `homeroom find` says to a time that is none.
func TestFindUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"find", "-time", "0s"}, {"find", "-time", "-1s"}, {"find", "-time", "soon"}, {"find", "everything"}} {
		var out bytes.Buffer
		if code := runMain(environment{ctx: t.Context(), stdout: &out, stderr: &out}, args); code != exitUsage || out.Len() == 0 {
			t.Errorf("%q: exit code %d, %s", args, code, out.String())
		}
	}
}

// FuzzMDNS gives packets to everything that reads them. Whatever comes, an
// announcer answers with a few packets at most, which can be read, and what is
// shown does nothing to a terminal.
func FuzzMDNS(f *testing.F) {
	names := netNames{host: "homeroom", instance: "Homeroom", hostNumber: 1, instanceNumber: 1}
	ports := openPorts{plain: netip.MustParseAddrPort("[::]:6500"), web: netip.MustParseAddrPort("[::]:80")}
	link := fakeLink(1, "192.0.2.1/24", "fe80::1/64")
	records := recordsFor(names, ports.services(), link.addrs)
	for _, packet := range [][]byte{
		packed(packProbe(records)), packed(packResponse(records, nil, 120)), packed(packDirect(&mdnsMessage{}, records[:2], records[2:])),
		askPacket(f, dnsmessage.Message{}, "ANY homeroom.local.", "PTR _homeroom._tcp.local.", "AAAA homeroom.local."),
	} {
		f.Add(packet, uint16(mdnsPort), true)
		f.Add(packet, uint16(53), false)
	}
	f.Fuzz(func(t *testing.T, packet []byte, port uint16, owns bool) {
		a := newAnnouncer("Homeroom", "homeroom", ports, nil)
		a.scan = func() []mdnsLink { return []mdnsLink{link} }
		sent := 0
		a.send = func(_ mdnsLink, _ netip.AddrPort, packet []byte) {
			sent++
			if _, err := parseMDNS(packet); err != nil {
				t.Errorf("it sends what cannot be read: %v", err)
			}
		}
		now := time.Now()
		a.relink(now)
		if owns {
			a.step, a.stepAt = probes+announcements, time.Time{}
		}
		a.receive(mdnsPacket{1, false, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), port), packet}, now)
		a.tick(now.Add(200 * time.Millisecond))
		if sent > 3 {
			t.Errorf("it sends %d packets", sent)
		}
		if m, err := parseMDNS(packet); err == nil {
			found := &finder{}
			found.hear(m.records(), "eth0")
			var out bytes.Buffer
			if err := found.write(&out); err != nil {
				t.Error(err)
			}
			if i := strings.IndexFunc(strings.ReplaceAll(out.String(), "\n", ""), isControl); i >= 0 || strings.Count(out.String(), "\n") > maxFound+1 {
				t.Errorf("shown is %q", out.String())
			}
			if _, err := found.question(); err != nil {
				t.Error(err)
			}
		}
	})
}
