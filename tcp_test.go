package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
			"SO_OOBINLINE":     {unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
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

// TestUrgentMark: telnet sends the second byte of its mark as urgent data, outside of
// the stream, where the first byte would take what follows for it.
func TestUrgentMark(t *testing.T) {
	t.Parallel()
	c := startServer(t).Guest("alice")
	raw, err := c.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"#pi\xff", "\xff", "#ping\xff"} {
		c.Raw(text)
		var sent error
		if err := raw.Write(func(fd uintptr) bool {
			sent = unix.Send(int(fd), []byte{242}, unix.MSG_OOB)
			return true
		}); err != nil || sent != nil {
			t.Fatal(err, sent)
		}
		c.Ask([]string{"ng a", "#ping a", " a"}[i], "@ret #ping a")
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
