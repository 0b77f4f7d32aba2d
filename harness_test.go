package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long a test waits for what must come; it bounds a failure and
// synchronises nothing.
const patience = 20 * time.Second

// TestMain fails a run that leaves goroutines behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left after all tests:\n%s\n", left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines is the stacks of the goroutines that run this program's code,
// after those that are about to end had the time to.
func leftGoroutines() string {
	deadline := time.Now().Add(5 * time.Second)
	for {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for i, stack := range strings.Split(string(buf), "\n\n") {
			if i > 0 && strings.Contains(stack, "homeroom.") && !strings.Contains(stack, "homeroom.TestMain") {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return strings.Join(left, "\n\n")
		}
		runtime.Gosched()
	}
}

// testConfig is the defaults with a fresh folder, a free port, cheap hashing and
// the limits off that would slow a test down.
func testConfig(t testing.TB) config {
	cfg := defaultConfig()
	cfg.Server.Data = t.TempDir()
	cfg.Server.Listen = "127.0.0.1:0"
	cfg.Web.Listen = ""
	cfg.Auth.Iterations = 16
	cfg.Limits.CommandsPerSecond = 0
	cfg.Limits.ConnectionsPerIP = 0
	cfg.Limits.WaitingPerIP = 0
	cfg.Limits.Waiting = 0
	return cfg
}

// testServer is a server in this process, on a port of its own.
type testServer struct {
	*server
	t         testing.TB
	addr      string
	accepting chan error
	stopped   bool
}

// startServer starts a server with testConfig, changed by change, and stops it
// when the test ends.
func startServer(t testing.TB, change ...func(*config)) *testServer {
	t.Helper()
	cfg := testConfig(t)
	for _, c := range change {
		c(&cfg)
	}
	return startWith(t, cfg)
}

// startWith starts a server with these settings: on an earlier one's folder, say.
func startWith(t testing.TB, cfg config) *testServer {
	t.Helper()
	srv, err := newServer(cfg, nil)
	if err != nil {
		t.Fatalf("starting the server: %v", err)
	}
	if err := srv.listen(context.Background()); err != nil {
		t.Fatalf("listening: %v", err)
	}
	ts := &testServer{server: srv, t: t, addr: srv.listener.Addr().String(), accepting: make(chan error, 1)}
	go func() { ts.accepting <- srv.accept() }()
	t.Cleanup(ts.stopNow)
	return ts
}

// stopNow stops the server as SIGTERM does; a second call does nothing.
func (ts *testServer) stopNow() {
	if ts.stopped {
		return
	}
	ts.stopped = true
	if err := ts.stop("the server is stopping"); err != nil {
		ts.t.Errorf("stopping the server: %v", err)
	}
	if err := <-ts.accepting; err != nil {
		ts.t.Errorf("accepting: %v", err)
	}
}

// restart stops the server and starts another one on its folder.
func (ts *testServer) restart() *testServer {
	ts.t.Helper()
	ts.stopNow()
	return startWith(ts.t, ts.cfg)
}

// client is a test's end of a connection.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// dial connects and takes the hello line.
func (ts *testServer) dial() *client {
	ts.t.Helper()
	conn, err := net.Dial("tcp", ts.addr)
	if err != nil {
		ts.t.Fatalf("connecting: %v", err)
	}
	ts.t.Cleanup(func() { conn.Close() })
	c := &client{t: ts.t, conn: conn, in: bufio.NewReader(conn)}
	if hello := c.read(); !strings.HasPrefix(hello, "@mess #hello ") {
		ts.t.Fatalf("first line %q, want the hello", hello)
	}
	return c
}

// guest connects and logs in as a guest.
func (ts *testServer) guest(name string) *client {
	ts.t.Helper()
	c := ts.dial()
	c.ask("#login anon "+name, "@status 0")
	return c
}

// member makes an account (password "pw"), connects and logs in to it.
func (ts *testServer) member(name string) *client {
	ts.t.Helper()
	c := ts.guest(name)
	c.ask("#createlogin "+name+` pw "Real Name" mail@example.org`, "@status 0")
	c.ask("#login regd "+name+" pw", "@status 0")
	return c
}

// send sends lines, ending each with CRLF.
func (c *client) send(lines ...string) {
	c.t.Helper()
	c.raw(strings.Join(lines, "\r\n") + "\r\n")
}

// raw sends bytes as they are.
func (c *client) raw(bytes string) {
	c.t.Helper()
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatalf("setting a deadline: %v", err)
	}
	if _, err := c.conn.Write([]byte(bytes)); err != nil {
		c.t.Fatalf("sending %.60q: %v", bytes, err)
	}
}

// read returns the next line, which must end with CRLF.
func (c *client) read() string {
	c.t.Helper()
	line, err := c.readErr()
	if err != nil {
		c.t.Fatalf("reading a line: %v (got %q)", err, line)
	}
	return line
}

// readErr is read for lines that may not come.
func (c *client) readErr() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return line, err
	}
	body, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return line, fmt.Errorf("a line that does not end with CRLF")
	}
	return body, nil
}

// expect reads lines and compares each.
func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.read(); got != w {
			c.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// ask sends one line and expects the reply.
func (c *client) ask(line string, want ...string) {
	c.t.Helper()
	c.send(line)
	for _, w := range want {
		if got := c.read(); got != w {
			c.t.Fatalf("%q: got %q, want %q", line, got, w)
		}
	}
}

// barrier waits until everything that was sent before it has been done, and
// returns the lines that came meanwhile.
func (c *client) barrier() []string {
	c.t.Helper()
	c.send("#ping barrier")
	var lines []string
	for {
		line := c.read()
		if line == "@ret #ping barrier" {
			return lines
		}
		lines = append(lines, line)
	}
}

// ended expects the server to close the connection after these lines.
func (c *client) ended(want ...string) {
	c.t.Helper()
	c.expect(want...)
	if line, err := c.readErr(); err == nil {
		c.t.Fatalf("got %q, want the end of the connection", line)
	}
}

// until waits for what comes by itself, and of which nobody is told.
func until(t testing.TB, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !come(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not yet: %s", patience, what)
		}
	}
}
