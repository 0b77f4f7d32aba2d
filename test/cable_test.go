package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"homeroom/test/wire"
)

// TestPortTaken: where the port cannot be had, the server says so in one line and
// serves.
func TestPortTaken(t *testing.T) {
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

// cable is two network namespaces with a cable between them: the server's and its
// clients'.
type cable struct {
	t               testing.TB
	server, clients string
}

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
	question, err := (&dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(host + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}).Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	buf, to := make([]byte, 9000), &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	for deadline := time.Now().Add(2 * wire.Patience); time.Now().Before(deadline); {
		if _, err := conn.WriteTo(question, to); err != nil {
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
		if err := m.Unpack(buf[:n]); err != nil || m.ID != 4711 || len(m.Answers) != 1 {
			l.t.Fatalf("got %q", buf[:n])
		}
		body, ok := m.Answers[0].Body.(*dnsmessage.AResource)
		if !ok {
			l.t.Fatalf("got %v", m.Answers)
		}
		return net.IP(body.A[:]).String()
	}
	l.t.Fatalf("nobody says where %s is", host)
	return ""
}

// cut pulls the cable out at the clients' end.
func (l *cable) cut() {
	l.t.Helper()
	if out, err := exec.Command("ip", "-n", l.clients, "link", "set", "cable", "down").CombinedOutput(); err != nil {
		l.t.Fatalf("cutting the cable: %v, %s", err, out)
	}
}

// dial connects from a namespace to the server in the other, or in the same.
func (l *cable) dial(from, addr string) (conn net.Conn) {
	l.t.Helper()
	l.in(from, func() (err error) {
		conn, err = net.Dial("tcp4", addr)
		return err
	})
	return conn
}

// in opens sockets in a namespace; they stay in it.
func (l *cable) in(name string, open func() error) {
	l.t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		space, err := os.Open(filepath.Join("/run/netns", name))
		if err == nil {
			defer space.Close()
			err = unix.Setns(int(space.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = open()
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		l.t.Fatalf("in %s: %v", name, err)
	}
}

// newCable lays the cable, or skips the test where that cannot be done.
func newCable(t testing.TB) *cable {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" && os.Getuid() == 0 {
			t.Fatal("this machine has no ip program (package iproute2), and must have")
		}
		t.Skip("cutting a cable needs root and the ip program")
	}
	name := fmt.Sprintf("homeroom-%d-%s", os.Getpid(), t.Name())
	l := &cable{t, name + "-s", name + "-c"}
	t.Cleanup(func() {
		for _, space := range []string{l.server, l.clients} {
			_ = exec.Command("ip", "netns", "del", space).Run() // it may never have been made
		}
	})
	for _, line := range []string{
		"netns add " + l.server, "netns add " + l.clients,
		"-n " + l.server + " link add cable type veth peer name cable netns " + l.clients,
		"-n " + l.server + " addr add 10.99.0.1/24 dev cable", "-n " + l.clients + " addr add 10.99.0.2/24 dev cable",
		"-n " + l.server + " link set lo up",
		"-n " + l.server + " link set cable up", "-n " + l.clients + " link set cable up",
	} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "" {
				t.Skipf("this machine lays no cables: ip %s: %v, %s", line, err, out)
			}
			t.Fatalf("ip %s: %v, %s", line, err, out)
		}
	}
	return l
}
