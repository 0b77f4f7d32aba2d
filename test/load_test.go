package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/wire"
)

// crowd connects many guests to a program, a few at a time.
func crowd(p *program, names string, n int) []*wire.Client {
	p.T.Helper()
	clients := make([]*wire.Client, n)
	var next atomic.Int64
	var connecting sync.WaitGroup
	for range 16 {
		connecting.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				c, err := connectGuest(p.T, p.Addr, names+strconv.FormatInt(i, 10))
				if err != nil {
					p.T.Errorf("connection %d: %v", i, err)
					return
				}
				clients[i] = c
			}
		})
	}
	connecting.Wait()
	p.T.Cleanup(func() {
		for _, c := range clients {
			if c != nil {
				c.Conn.Close()
			}
		}
	})
	if p.T.Failed() {
		p.T.FailNow()
	}
	return clients
}

// connectGuest connects and logs in, on any goroutine.
func connectGuest(t testing.TB, addr, name string) (*wire.Client, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &wire.Client{T: t, Conn: conn, In: bufio.NewReaderSize(conn, 256)}
	if _, err := c.ReadErr(); err != nil {
		return c, fmt.Errorf("the hello: %w", err)
	}
	return c, c.Request("#login anon "+name, "@status 0")
}

// TestManyConnections: 5000 people in one room, and one line reaches them all.
func TestManyConnections(t *testing.T) {
	const people = 5000
	p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	empty := memoryOf(t, p)
	start := time.Now()
	clients := crowd(p, "guest", people)
	connected := time.Since(start)
	full := memoryOf(t, p)
	clients[0].Send("#listusers")
	clients[0].Expect(fmt.Sprintf("@ret #listusers %d", people))
	start = time.Now()
	clients[people-1].Send("#broadcast hello all")
	reached := 0
	for i, c := range clients {
		if err := c.ReadUntil(`@mess #broadcast guest` + strconv.Itoa(people-1) + ` "hello all"`); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		reached++
	}
	t.Logf("%d connections in %v, %d KiB each; a line reached %d in %v",
		people, connected.Round(time.Millisecond), (full-empty)/people, reached, time.Since(start).Round(time.Millisecond))
	if code := p.terminate(); code != exitDone {
		t.Errorf("stopping: exit code %d", code)
	}
	for i, c := range clients {
		if err := c.ReadUntil(`@mess #warning "the server is stopping"`); err != nil {
			t.Fatalf("connection %d does not hear that the server stops: %v", i, err)
		}
	}
}

// memoryOf is how much memory a program has, in KiB.
func memoryOf(t testing.TB, p *program) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Logf("no figures of memory here: %v", err)
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

// TestStopUnderLoad: a server that is told to stop while 500 people talk and
// post ends within 5 s, in order, and every one of them is told.
func TestStopUnderLoad(t *testing.T) {
	p := startProgram(t, buildProgram(t), "-config", writeSettings(t, programSettings), "-data", t.TempDir())
	clients := crowd(p, "guest", 500)
	clients[0].Ask(`#creategroup talk "" anon`, "@status 0")
	for i := range 10 {
		clients[0].Ask(fmt.Sprintf("#createroom room%d", i), "@status 0")
	}
	for i, deaf := range crowd(p, "deaf", 5) { // they never read again, which must not keep the server
		deaf.Ask(fmt.Sprintf("#changeroom room%d", i), "@status 0")
	}
	var running sync.WaitGroup
	var lines, warned atomic.Int64
	busy := make(chan struct{}, 1)
	for i, c := range clients {
		running.Go(func() {
			if err := chatOn(c, i, &lines, busy); err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			warned.Add(1)
		})
	}
	<-busy
	start := time.Now()
	code := p.terminate()
	took := time.Since(start)
	running.Wait()
	t.Logf("%d commands; the stop took %v; %d of %d were told", lines.Load(), took.Round(time.Millisecond), warned.Load(), len(clients))
	if code != exitDone || took > 5*time.Second {
		t.Errorf("exit code %d after %v, want %d within 5 s; log:\n%s", code, took, exitDone, p.logged())
	}
	if !strings.Contains(p.logged(), "stopped") || strings.Contains(p.logged(), "level=ERROR") {
		t.Errorf("the log is\n%s", p.logged())
	}
}

// underWay is how many commands a client sends before it waits for replies.
const underWay = 30

// chatOn goes to a room and a group and talks and posts there until the
// connection ends, which must be after the warning.
func chatOn(c *wire.Client, i int, lines *atomic.Int64, busy chan<- struct{}) error {
	const warning = `@mess #warning "the server is stopping"`
	say := fmt.Sprintf("#broadcast hello from %d", i)
	if i%5 == 0 {
		say = "#postmessage heading\r\ntext"
	}
	// Many commands are always under way: some are unread when the server stops.
	_, err := fmt.Fprintf(c.Conn, "#joingroup talk\r\n#changeroom room%d\r\n%s", i%10, strings.Repeat(say+"\r\n", underWay))
	for last := ""; ; {
		line, readErr := c.ReadErr()
		if readErr != nil {
			c.Conn.Close()
			if last != warning {
				return fmt.Errorf("ended with %v (%v) after %q, want the warning", readErr, err, last)
			}
			return nil
		}
		if last = line; strings.HasPrefix(line, "@status ") && err == nil {
			_, err = c.Conn.Write([]byte(say + "\r\n"))
			if lines.Add(1) == 10_000 {
				busy <- struct{}{}
			}
		}
	}
}
