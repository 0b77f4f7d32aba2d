// Package wire is a test's end of the chat's protocol: a client that sends lines
// and says what must come back. It knows what crosses the network and nothing of
// the program, so that every test can use it: those inside the server's package,
// those that drive the built program, and those that are pointed at any server.
package wire

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

// Target is a server that listens: in this process, as a process of its own, or
// anywhere.
type Target struct {
	T    testing.TB
	Addr string
}

// Connect connects; the hello is still to come.
func (on Target) Connect() *Client {
	on.T.Helper()
	conn, err := net.Dial("tcp", on.Addr)
	if err != nil {
		on.T.Fatalf("connecting: %v", err)
	}
	on.T.Cleanup(func() { conn.Close() })
	return New(on.T, conn)
}

// Dial connects and takes the hello line.
func (on Target) Dial() *Client {
	on.T.Helper()
	c := on.Connect()
	c.greeted()
	return c
}

// Guest connects and logs in as a guest.
func (on Target) Guest(name string) *Client {
	on.T.Helper()
	c := on.Dial()
	c.Ask("#login anon "+name, "@status 0")
	return c
}

// Member makes an account (password "pw"), connects and logs in to it.
func (on Target) Member(name string) *Client {
	on.T.Helper()
	c := on.Guest(name)
	c.Ask("#createlogin "+name+` pw "Real Name" mail@example.org`, "@status 0")
	c.Ask("#login regd "+name+" pw", "@status 0")
	return c
}

// New returns the client at this end of a connection, which stays the caller's
// to close.
func New(t testing.TB, conn net.Conn) *Client {
	return &Client{T: t, Conn: conn, In: bufio.NewReader(conn)}
}

// Greeted returns the client at this end of a connection, once it has taken the
// hello line. The connection is closed when the test ends.
func Greeted(t testing.TB, conn net.Conn) *Client {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	c := New(t, conn)
	c.greeted()
	return c
}

// Client is a test's end of a connection.
type Client struct {
	T    testing.TB
	Conn net.Conn
	In   *bufio.Reader
}

// greeted takes the hello line.
func (c *Client) greeted() {
	c.T.Helper()
	if hello := c.Read(); !strings.HasPrefix(hello, "@mess #hello ") {
		c.T.Fatalf("first line %q, want the hello", hello)
	}
}

// Send sends lines, ending each with CRLF.
func (c *Client) Send(lines ...string) {
	c.T.Helper()
	c.Raw(strings.Join(lines, "\r\n") + "\r\n")
}

// Raw sends bytes as they are.
func (c *Client) Raw(bytes string) {
	c.T.Helper()
	if err := c.Conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		c.T.Fatalf("setting a deadline: %v", err)
	}
	if _, err := c.Conn.Write([]byte(bytes)); err != nil {
		c.T.Fatalf("sending %.60q: %v", bytes, err)
	}
}

// Read returns the next line, which must end with CRLF.
func (c *Client) Read() string {
	c.T.Helper()
	line, err := c.ReadErr()
	if err != nil {
		c.T.Fatalf("reading a line: %v (got %q)", err, line)
	}
	return line
}

// ReadErr is Read for lines that may not come.
func (c *Client) ReadErr() (string, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	line, err := c.In.ReadString('\n')
	if err != nil {
		return line, err
	}
	body, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return line, fmt.Errorf("a line that does not end with CRLF")
	}
	return body, nil
}

// Expect reads lines and compares each.
func (c *Client) Expect(want ...string) {
	c.T.Helper()
	for _, w := range want {
		if got := c.Read(); got != w {
			c.T.Fatalf("got %q, want %q", got, w)
		}
	}
}

// Ask sends one line and expects the reply.
func (c *Client) Ask(line string, want ...string) {
	c.T.Helper()
	c.Send(line)
	for _, w := range want {
		if got := c.Read(); got != w {
			c.T.Fatalf("%q: got %q, want %q", line, got, w)
		}
	}
}

// Barrier waits until everything that was sent before it has been done, and
// returns the lines that came meanwhile.
func (c *Client) Barrier() []string {
	c.T.Helper()
	c.Send("#ping barrier")
	var lines []string
	for {
		line := c.Read()
		if line == "@ret #ping barrier" {
			return lines
		}
		lines = append(lines, line)
	}
}

// Ended expects the server to close the connection after these lines.
func (c *Client) Ended(want ...string) {
	c.T.Helper()
	c.Expect(want...)
	if line, err := c.ReadErr(); err == nil {
		c.T.Fatalf("got %q, want the end of the connection", line)
	}
}

// ClosedWell expects TLS's own end of a connection, after these lines.
func (c *Client) ClosedWell(want ...string) {
	c.T.Helper()
	c.Expect(want...)
	if line, err := c.ReadErr(); !errors.Is(err, io.EOF) {
		c.T.Errorf("the end is %q, %v; want TLS's own", line, err)
	}
}

// Request sends a line and reads up to its reply, on any goroutine.
func (c *Client) Request(line, want string) error {
	if _, err := c.Conn.Write([]byte(line + "\r\n")); err != nil {
		return err
	}
	for {
		got, err := c.ReadErr()
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

// ReadUntil reads up to a line, on any goroutine.
func (c *Client) ReadUntil(want string) error {
	for {
		got, err := c.ReadErr()
		if err != nil || got == want {
			return err
		}
	}
}

// Pipeline sends many commands at once and expects @status 0 for each.
func (c *Client) Pipeline(n int, line func(i int) string) {
	c.T.Helper()
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if _, err := io.WriteString(c.Conn, line(i)+"\r\n"); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range n {
		c.Expect("@status 0")
	}
	if err := <-sent; err != nil {
		c.T.Fatal(err)
	}
}

// Discard sends a command and throws its long reply away as fast as it comes.
func (c *Client) Discard(command string) (size int64, err error) {
	if _, err := io.WriteString(c.Conn, command+"\r\n#ping end\r\n"); err != nil {
		return 0, err
	}
	end, buf := []byte("@ret #ping end\r\n"), make([]byte, 64<<10)
	var kept int
	for {
		n, err := c.In.Read(buf[kept:])
		size += int64(n)
		if err != nil || bytes.HasSuffix(buf[:kept+n], end) {
			return size, err
		}
		kept = copy(buf, buf[max(0, kept+n-len(end)):kept+n])
	}
}

// Patience is how long a test waits for what must come; it bounds a failure and
// synchronises nothing.
const Patience = 60 * time.Second

// Until waits for a change that comes by itself and that nobody announces.
func Until(t testing.TB, what string, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !come(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not yet: %s", Patience, what)
		}
	}
}

// ComeAndGo connects and leaves in one of several ways.
func ComeAndGo(t testing.TB, addr string, i int) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := New(t, conn)
	if _, err := c.ReadErr(); err != nil {
		return err
	}
	way := i % 6
	if way > 0 {
		if err := c.Request(fmt.Sprintf("#login anon guest%d", i), "@status 0"); err != nil {
			return err
		}
	}
	switch way {
	case 1:
		return c.Request("#quit", "@status 0")
	case 2: // in the middle of a line, which the end ends
		_, err = conn.Write([]byte("#ping unfin"))
	case 3: // in the middle of a message
		_, err = conn.Write([]byte("#postmessage heading 0 3\r\none\r\n"))
	case 4: // at once, with what was sent thrown away
		err = conn.(*net.TCPConn).SetLinger(0)
	case 5: // one direction first
		if err = conn.(*net.TCPConn).CloseWrite(); err == nil {
			if line, err := c.ReadErr(); err == nil {
				return fmt.Errorf("got %q after the end", line)
			}
		}
	}
	return err
}

// WantBack waits until a count is back at what it was.
func WantBack(t testing.TB, what string, was int, count func() int) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for count() > was {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d %s, there were %d:\n%s", count(), what, was, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}
