package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// target is a server that listens: in this process, as a process of its own, or
// anywhere.
type target struct {
	t    testing.TB
	addr string
}

// connect connects; the hello is still to come.
func (on target) connect() *client {
	on.t.Helper()
	conn, err := net.Dial("tcp", on.addr)
	if err != nil {
		on.t.Fatalf("connecting: %v", err)
	}
	on.t.Cleanup(func() { conn.Close() })
	return newClient(on.t, conn)
}

// dial connects and takes the hello line.
func (on target) dial() *client {
	on.t.Helper()
	c := on.connect()
	c.greeted()
	return c
}

// guest connects and logs in as a guest.
func (on target) guest(name string) *client {
	on.t.Helper()
	c := on.dial()
	c.ask("#login anon "+name, "@status 0")
	return c
}

// member makes an account (password "pw"), connects and logs in to it.
func (on target) member(name string) *client {
	on.t.Helper()
	c := on.guest(name)
	c.ask("#createlogin "+name+` pw "Real Name" mail@example.org`, "@status 0")
	c.ask("#login regd "+name+" pw", "@status 0")
	return c
}

// newClient is the client at this end of a connection, which stays the caller's
// to close.
func newClient(t testing.TB, conn net.Conn) *client {
	return &client{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// greeted is the client at this end of a connection, once it has taken the hello
// line. The connection is closed when the test ends.
func greeted(t testing.TB, conn net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	c := newClient(t, conn)
	c.greeted()
	return c
}

// client is a test's end of a connection.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// greeted takes the hello line.
func (c *client) greeted() {
	c.t.Helper()
	if hello := c.read(); !strings.HasPrefix(hello, "@mess #hello ") {
		c.t.Fatalf("first line %q, want the hello", hello)
	}
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

// closedWell expects TLS's own end of a connection, after these lines.
func (c *client) closedWell(want ...string) {
	c.t.Helper()
	c.expect(want...)
	if line, err := c.readErr(); !errors.Is(err, io.EOF) {
		c.t.Errorf("the end is %q, %v; want TLS's own", line, err)
	}
}

// request sends a line and reads up to its reply, on any goroutine.
func (c *client) request(line, want string) error {
	if _, err := c.conn.Write([]byte(line + "\r\n")); err != nil {
		return err
	}
	for {
		got, err := c.readErr()
		if err != nil {
			return fmt.Errorf("%.30q: %w", line, err)
		}
		if !strings.HasPrefix(got, "@mess ") {
			if got != want {
				err = fmt.Errorf("%.30q: got %q, want %q", line, got, want)
			}
			return err
		}
	}
}

// readUntil reads up to a line, on any goroutine.
func (c *client) readUntil(want string) error {
	for {
		got, err := c.readErr()
		if err != nil || got == want {
			return err
		}
	}
}

// pipeline sends many commands at once and expects @status 0 for each.
func (c *client) pipeline(n int, line func(i int) string) {
	c.t.Helper()
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if _, err := io.WriteString(c.conn, line(i)+"\r\n"); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range n {
		c.expect("@status 0")
	}
	if err := <-sent; err != nil {
		c.t.Fatal(err)
	}
}

// discard sends a command and throws its long reply away as fast as it comes.
func (c *client) discard(command string) (size int64, err error) {
	if _, err := io.WriteString(c.conn, command+"\r\n#ping end\r\n"); err != nil {
		return 0, err
	}
	end, buf := []byte("@ret #ping end\r\n"), make([]byte, 64<<10)
	var kept int
	for {
		n, err := c.in.Read(buf[kept:])
		size += int64(n)
		if err != nil || bytes.HasSuffix(buf[:kept+n], end) {
			return size, err
		}
		kept = copy(buf, buf[max(0, kept+n-len(end)):kept+n])
	}
}

// patience is how long a test waits for what must come; it bounds a failure and
// synchronises nothing.
const patience = 20 * time.Second

// until waits for what comes by itself, and of which nobody is told.
func until(t testing.TB, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !come(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not yet: %s", patience, what)
		}
	}
}
