package main

import (
	"bytes"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"homeroom/mdns"
	"homeroom/test/wire"
)

// findIn runs `homeroom find` in a namespace until what it prints is as wanted.
func (l *cable) findIn(space, path string, wanted func(text string) bool) {
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
func (l *cable) lookUp(space, own, host string) string {
	l.t.Helper()
	var conn net.PacketConn
	l.in(space, func() (err error) {
		conn, err = net.ListenPacket("udp4", own+":0")
		return err
	})
	defer conn.Close()
	name := dnsmessage.MustNewName(host + ".")
	asked := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	question, err := asked.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdns.Port}
	buf := make([]byte, 9000)
	for deadline := time.Now().Add(2 * wire.Patience); time.Now().Before(deadline); {
		if _, err := conn.WriteTo(question, group); err != nil {
			l.t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			l.t.Fatal(err)
		}
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			continue
		}
		var m dnsmessage.Message
		if err := m.Unpack(buf[:n]); err != nil || m.ID != 4711 || len(m.Answers) != 1 || m.Answers[0].Header.Name != name {
			l.t.Fatalf("got %q", buf[:n])
		}
		if a, ok := m.Answers[0].Body.(*dnsmessage.AResource); ok {
			return netip.AddrFrom4(a.A).String()
		}
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
	cable, path := newCable(t), buildProgram(t)
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
	if got, want := cable.lookUp(cable.clients, "10.99.0.2", "classroom.local"), "10.99.0.1"; got != want {
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
	cable, path := newCable(t), buildProgram(t)
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

// TestFoundIsShown: the table of what was found, with names that would like to do
// something to the terminal.
func TestFoundIsShown(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1%eth0")}
	var out bytes.Buffer
	err := writeFound(&out, []mdns.Entry{
		{Instance: "\x1b[2Jall\tgone\r\n\u202e\xff", Host: "pi\x1b.local", Port: 6500, Text: []string{"version=" + strings.Repeat("\x07", 200), "tls"}, Addrs: addrs},
		{Instance: "Homeroom", Host: "homeroom.local", Port: 6500, Text: []string{"TLS=6501", "version=0.1.0"}, Addrs: addrs},
		{Instance: "Deaf", Host: "deaf.local", Port: 6500},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `NAME HOST PORT TLS VERSION ADDRESSES
\x1b[2Jall\tgone\r\n\u202e\xff pi\x1b.local 6500 - \a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a\a 192.0.2.1 fe80::1%eth0
Homeroom homeroom.local 6500 6501 0.1.0 192.0.2.1 fe80::1%eth0
Deaf deaf.local 6500 - - -
`
	if got := out.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
