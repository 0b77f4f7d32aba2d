package main

import (
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/test/wire"
)

// bubble is a server whose time is the test's: it runs inside synctest.Test,
// where hours pass at once while everybody sleeps. Its connections are pipes.
type bubble struct {
	*server
	t       testing.TB
	stopped bool
}

// stopNow stops the server; a second call does nothing.
func (b *bubble) stopNow() {
	if b.stopped {
		return
	}
	b.stopped = true
	if err := b.stop("the server is stopping"); err != nil {
		b.t.Errorf("stopping the server: %v", err)
	}
}

// restart stops the server, lets so much time pass and starts another one on
// its folder.
func (b *bubble) restart(off time.Duration) *bubble {
	b.t.Helper()
	b.stopNow()
	time.Sleep(off)
	return startBubble(b.t, b.cfg)
}

// pass lets so much time pass, and waits until everything that it brings is done.
func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// connect gives the server a connection and returns the other end.
func (b *bubble) connect() net.Conn {
	mine, servers := net.Pipe()
	b.serve(fromLoopback{servers})
	return mine
}

// dial connects a client that takes what comes at all times, as a program does.
func (b *bubble) dial() *wire.Client {
	b.t.Helper()
	c := b.dialBriefly()
	b.t.Cleanup(func() { c.Conn.Close() })
	return c
}

// guest connects and logs in as a guest.
func (b *bubble) guest(name string) *wire.Client {
	b.t.Helper()
	c := b.dial()
	c.Ask("#login anon "+name, "@status 0")
	return c
}

// dialFrom connects a client from some address.
func (b *bubble) dialFrom(address string) *wire.Client {
	b.t.Helper()
	mine, servers := net.Pipe()
	b.serve(fromElsewhere{servers, net.ParseIP(address)})
	return b.greeted(mine)
}

// greeted is the client at this end of a connection; the server has just got the other.
func (b *bubble) greeted(mine net.Conn) *wire.Client {
	b.t.Helper()
	conn := &readingConn{Conn: mine}
	conn.wake = sync.NewCond(&conn.mu)
	go conn.pump()
	b.t.Cleanup(func() { conn.Close() })
	c := wire.New(b.t, conn)
	c.Expect(`@mess #hello "Homeroom" "type your name and press Enter; programs: #help"`)
	return c
}

// dialHost connects to a bubble's server as the machine's operator.
func (b *bubble) dialHost() *wire.Client {
	b.t.Helper()
	mine, servers := net.Pipe()
	b.serveHost(servers)
	return b.greeted(mine)
}

// dialFromGuest connects from an address, and logs in under a name that is used once.
func (b *bubble) dialFromGuest(address string) *wire.Client {
	b.t.Helper()
	c := b.dialFrom(address)
	c.Ask("#login anon guest"+hex.EncodeToString(randomBytes(4)), "@status 0")
	return c
}

// dialBriefly is dial for a client that the test closes itself, so that nothing of
// it stays.
func (b *bubble) dialBriefly() *wire.Client {
	b.t.Helper()
	conn := &readingConn{Conn: b.connect()}
	conn.wake = sync.NewCond(&conn.mu)
	go conn.pump()
	c := wire.New(b.t, conn)
	if hello := c.Read(); !strings.HasPrefix(hello, "@mess #hello ") {
		b.t.Fatalf("first line %q, want the hello", hello)
	}
	return c
}

// inBubble runs a test with a server of its own in a bubble.
func inBubble(t *testing.T, test func(b *bubble), change ...func(*config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(t)
		for _, c := range change {
			c(&cfg)
		}
		b := startBubble(t, cfg)
		test(b)
	})
}

// startBubble starts a server in the bubble that it is called in.
func startBubble(t testing.TB, cfg config) *bubble {
	t.Helper()
	srv, err := newServer(cfg, nil)
	if err != nil {
		t.Fatalf("starting the server: %v", err)
	}
	b := &bubble{server: srv, t: t}
	t.Cleanup(b.stopNow)
	return b
}

// fromLoopback is a pipe's end that says that the other one is on this machine.
type fromLoopback struct{ net.Conn }

func (fromLoopback) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// fromElsewhere is a pipe's end that says that the other one has this address.
type fromElsewhere struct {
	net.Conn
	address net.IP
}

func (c fromElsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.address, Port: 1} }

// readingConn is a pipe's end that is always being read; reads take from what
// has come.
type readingConn struct {
	net.Conn
	mu    sync.Mutex
	wake  *sync.Cond
	came  []byte
	err   error
	until time.Time
}

func (c *readingConn) pump() {
	buf := make([]byte, 4096)
	for {
		n, err := c.Conn.Read(buf)
		c.mu.Lock()
		c.came, c.err = append(c.came, buf[:n]...), err
		c.wake.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Read waits for what comes, in the bubble's time, until the deadline.
func (c *readingConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := false
	timer := time.AfterFunc(time.Until(c.until), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		late = true
		c.wake.Broadcast()
	})
	defer timer.Stop()
	for len(c.came) == 0 && c.err == nil && !late {
		c.wake.Wait()
	}
	n := copy(p, c.came)
	c.came = c.came[n:]
	switch {
	case n > 0:
		return n, nil
	case c.err != nil:
		return 0, io.EOF
	}
	return 0, os.ErrDeadlineExceeded
}

// SetWriteDeadline does nothing: in a bubble a write that nobody takes is a deadlock, which
// synctest tells. Hundreds of deadlines that pass in one moment crash Go's race detector.
func (c *readingConn) SetWriteDeadline(time.Time) error { return nil }

func (c *readingConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return nil
}
