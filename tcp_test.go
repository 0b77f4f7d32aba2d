package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"homeroom/test/wire"
)

// socketOption reads an option of a session's socket.
func socketOption(t testing.TB, s *session, level, name int) int {
	t.Helper()
	l, ok := s.link.(*netLink)
	if !ok {
		l = s.link.(*tlsLink).netLink
	}
	value, err := unix.GetsockoptInt(l.fd, level, name)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestAliveOptions: every connection has what finds out that the other end is gone.
func TestAliveOptions(t *testing.T) {
	t.Parallel()
	srv := startServer(t, withTLS)
	srv.Guest("plain")
	srv.overTLS().Barrier()
	srv.doorway.mu.Lock()
	defer srv.doorway.mu.Unlock()
	if len(srv.doorway.sessions) != 2 {
		t.Fatalf("%d sessions, want 2", len(srv.doorway.sessions))
	}
	for s := range srv.doorway.sessions {
		for name, option := range map[string]struct{ level, name, want int }{
			"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 10},
			"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
			"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20000},
			"TCP_NODELAY":      {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		} {
			if got := socketOption(t, s, option.level, option.name); got != option.want {
				t.Errorf("%s is %d, want %d", name, got, option.want)
			}
		}
	}
}

// brokenListener cannot accept until a moment, and then gives one connection.
type brokenListener struct {
	until  time.Time
	why    syscall.Errno
	calls  atomic.Int64
	conn   net.Conn
	closed chan struct{}
	once   sync.Once // net/http closes it again
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.calls.Add(1)
	if time.Now().Before(l.until) {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: l.why}
	}
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *brokenListener) Addr() net.Addr { return &net.TCPAddr{} }

func (l *brokenListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// TestAcceptPauses: whichever listener fails for ten minutes is not asked all the
// time, and when it works again, that is noticed within a second.
func TestAcceptPauses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		why       syscall.Errno // net/http bears EMFILE by itself, but not this
		serve     func(b *bubble, l net.Listener)
		ask, want string
	}{
		"chat": {syscall.EMFILE, func(b *bubble, l net.Listener) {
			b.doorway.listener = l
			go b.acceptOn(l, nil)
		}, "", "@mess #hello "},
		"control": {syscall.EMFILE, func(b *bubble, l net.Listener) {
			b.doorway.control = l
			b.doorway.controlling.Go(func() { b.acceptControl(l) })
		}, "", "@mess #hello "},
		"web": {syscall.ENOBUFS, func(b *bubble, l net.Listener) {
			b.doorway.web = &webServer{srv: b.server, listener: l}
			b.doorway.web.http = &http.Server{Handler: b.doorway.web.routes()}
			go b.doorway.web.serve()
		}, "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				mine, theirs := net.Pipe()
				l := &brokenListener{until: time.Now().Add(10 * time.Minute), why: test.why, conn: fromLoopback{theirs}, closed: make(chan struct{})}
				test.serve(b, l)
				acceptedLate(t, l, mine, test.ask, test.want)
				mine.Close()
				b.stopNow()
			})
		})
	}
}

// acceptedLate checks that a broken listener was asked now and then, and that its
// connection is answered once it works again.
func acceptedLate(t *testing.T, l *brokenListener, mine net.Conn, ask, want string) {
	t.Helper()
	if err := mine.SetDeadline(l.until.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if ask != "" {
		_, _ = io.WriteString(mine, ask) // who does not take it does not answer either
	}
	hello, err := bufio.NewReader(mine).ReadString('\n')
	if err != nil || !strings.HasPrefix(hello, want) {
		t.Errorf("got %q, %v; want %q", hello, err, want)
	}
	if late := time.Since(l.until); late > longestAcceptPause {
		t.Errorf("it took %v to notice that it works again", late)
	}
	if calls := l.calls.Load(); calls < 600 || calls > 650 {
		t.Errorf("it was asked %d times in ten minutes, want about once a second", calls)
	}
}

// startShell starts the program from a shell that sets its limits first.
func startShell(t testing.TB, limits, program string, args ...string) *program {
	t.Helper()
	line := append([]string{"-c", limits + ` && exec "$0" "$@"`, program}, args...)
	return startProgram(t, "/bin/sh", line...)
}

// loggedLine waits until the program has logged something.
func (p *program) loggedLine(text string) {
	p.T.Helper()
	for end := time.Now().Add(wire.Patience); !strings.Contains(p.logged(), text); runtime.Gosched() {
		if time.Now().After(end) {
			p.T.Fatalf("it does not log %q, but\n%s", text, p.logged())
		}
	}
}

// TestOutOfFiles: a server that cannot open more files says so once, serves those
// who are on, and serves others when it can again.
func TestOutOfFiles(t *testing.T) {
	t.Parallel()
	p := startShell(t, "ulimit -n 64", buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	first := p.Guest("first")
	var waiting []net.Conn
	for range 64 {
		conn, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waiting = append(waiting, conn)
	}
	p.loggedLine("cannot accept connections")
	first.Ask("#createroom made", "@status 0")
	for _, conn := range waiting {
		conn.Close()
	}
	p.Guest("second").Ask("#listusers", "@ret #listusers 2", "first anon", "second anon")
	if n := strings.Count(p.logged(), "cannot accept connections"); n != 1 {
		t.Errorf("it was logged %d times, want once:\n%s", n, p.logged())
	}
	if code := p.terminate(); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

// TestFileLimit: the server takes as many files as it may have (Go does that, and
// leaves one out).
func TestFileLimit(t *testing.T) {
	t.Parallel()
	p := startShell(t, "ulimit -S -n 256 && ulimit -H -n 4096", buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max open files +409[56] +4096 `).Match(limits) {
		t.Errorf("the limit was not raised to 4096:\n%s", limits)
	}
}

// cable is two network namespaces with a cable between them: the server's and its
// clients'.
type cable struct {
	t               testing.TB
	server, clients string
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
