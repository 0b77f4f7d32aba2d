package test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"homeroom/test/wire"
)

// abuse makes the tests of this file as long and as hard as docs/RELIABILITY.md says,
// on a quiet machine; without it they are short and bound no times.
var abuse = flag.Bool("abuse", false, "measure on the built program what abuse costs others (docs/RELIABILITY.md)")

// harder is n with -abuse, and few without.
func harder(n, few int) int {
	if *abuse {
		return n
	}
	return few
}

// abused starts the built program for a test of this file, with changed settings.
func abused(t *testing.T, changes ...string) *program {
	t.Helper()
	settings := strings.NewReplacer(changes...).Replace(programSettings)
	return startProgram(t, buildProgram(t), "-config", writeSettings(t, settings), "-data", t.TempDir())
}

// openFiles is how many files a program has open.
func (p *program) openFiles() int {
	p.T.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.T.Skip("this machine does not show a process's open files")
	}
	return len(entries)
}

// dialFrom connects from an address of this machine.
func (p *program) dialFrom(address string) net.Conn {
	p.T.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	conn, err := dialer.Dial("tcp4", p.Addr)
	if err != nil {
		p.T.Fatalf("connecting from %s: %v", address, err)
	}
	p.T.Cleanup(func() { conn.Close() })
	return conn
}

// TestSlowloris: 64 connections from one address that send a byte now and then
// keep nobody else out, and are gone when their time to log in is over.
func TestSlowloris(t *testing.T) {
	onlyLong(t)
	const connections, grace = 64, 4 * time.Second
	p := abused(t, "waiting = 0\nwaiting_per_ip = 0", "login_grace = \""+grace.String()+"\"\nwaiting_per_ip = "+strconv.Itoa(connections))
	start := time.Now()
	var slow sync.WaitGroup
	var told atomic.Int64
	for range connections {
		conn := p.dialFrom("127.0.0.2")
		slow.Go(func() {
			if dripUntilEnd(conn) {
				told.Add(1)
			}
		})
	}
	var took time.Duration
	for i := range 5 {
		began := time.Now()
		p.Guest("guest" + strconv.Itoa(i))
		took = max(took, time.Since(began))
	}
	slow.Wait()
	gone := time.Since(start)
	t.Logf("the slowest of 5 logins from another address took %v; the last of %d slow connections was gone after %v of %v, %d were told why",
		took.Round(time.Microsecond), connections, gone.Round(time.Millisecond), grace, told.Load())
	if *abuse && (took > time.Second || gone > grace+2*time.Second) {
		t.Error("a login took more than 1 s, or they stayed longer than they may")
	}
	if told.Load() != connections {
		t.Errorf("%d of %d were told why", told.Load(), connections)
	}
}

// dripUntilEnd sends a byte of a line now and then, until the server ends the
// connection, and reports whether it said why.
func dripUntilEnd(conn net.Conn) (told bool) {
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Millisecond):
				_, _ = conn.Write([]byte("x")) // it fails at the end
			}
		}
	})
	all, _ := io.ReadAll(conn) // a reset, where a byte came too late
	close(stop)
	dripping.Wait()
	return bytes.Contains(all, []byte("you did not log in in time"))
}

// TestConnectDisconnect: connections that come and go in every way leave neither
// memory nor descriptors behind. (TestComingAndGoing counts goroutines.)
func TestConnectDisconnect(t *testing.T) {
	p := abused(t)
	p.Guest("stays").Barrier()
	round := func(count int) {
		var next atomic.Int64
		var running sync.WaitGroup
		for range 8 {
			running.Go(func() {
				for i := next.Add(1); i <= int64(count); i = next.Add(1) {
					if err := wire.ComeAndGo(t, p.Addr, int(i)); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				}
			})
		}
		running.Wait()
	}
	round(100) // what is made once is made now
	memory, files := memoryOf(t, p), p.openFiles()
	count := harder(10_000, 500)
	round(count)
	wire.WantBack(t, "open files", files, p.openFiles)
	wire.WantBack(t, "KiB of memory", memory+5<<10, func() int { return memoryOf(t, p) })
	t.Logf("%d connections came and went: memory %d KiB, before %d; %d open files as before", count, memoryOf(t, p), memory, files)
}

// TestNonReaders: 50 members of a room that read nothing do not hold up the
// others, and do not take the machine's memory.
func TestNonReaders(t *testing.T) {
	const stalled, listeners = 50, 20
	p := abused(t)
	for i := range stalled {
		c := p.Dial()
		if err := c.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		c.Ask("#login anon stalled"+strconv.Itoa(i), "@status 0")
	}
	before := memoryOf(t, p)
	seconds := harder(30, 2)
	took := p.talkTo(crowd(p, "listener", listeners), seconds*1000)
	peak := peakMemory(t, p)
	cut := stalled
	counter := p.Guest("counter")
	counter.Send("#listusers")
	for _, line := range counter.Barrier() {
		if strings.HasPrefix(line, "stalled") {
			cut--
		}
	}
	t.Logf("%d lines in %d s to %d who read and %d who do not: the median %v, p99 %v; %d who do not read were cut off; memory %d KiB, at most %d",
		seconds*1000, seconds, listeners, stalled, median(took), p99(took), cut, before, peak)
	if peak > before+(stalled*(256<<10)>>10)+32<<10 {
		t.Errorf("memory went from %d to %d KiB", before, peak)
	}
	if *abuse && p99(took) > 100*time.Millisecond {
		t.Error("the p99 of the others is more than 100 ms")
	}
	if *abuse && cut < stalled {
		t.Errorf("%d who do not read are still there", stalled-cut)
	}
}

// talkTo sends so many lines, one each millisecond, to a room and returns how long
// each took to each of its listeners.
func (p *program) talkTo(listeners []*wire.Client, lines int) (took []time.Duration) {
	p.T.Helper()
	var mu sync.Mutex
	var listening sync.WaitGroup
	sent := make([]time.Time, lines)
	for _, c := range listeners {
		listening.Go(func() {
			all := make([]time.Duration, 0, lines)
			for range lines {
				i, err := nextNumbered(c)
				if err != nil {
					p.T.Errorf("listening: %v", err)
					return
				}
				mu.Lock()
				all = append(all, time.Since(sent[i]))
				mu.Unlock()
			}
			mu.Lock()
			took = append(took, all...)
			mu.Unlock()
		})
	}
	talker := p.Guest("talker")
	go func() { _, _ = io.Copy(io.Discard, talker.In) }()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := range lines {
		<-pace.C
		mu.Lock()
		sent[i] = time.Now()
		mu.Unlock()
		talker.Raw(fmt.Sprintf("#broadcast %d %s\r\n", i, strings.Repeat("x", 100)))
	}
	listening.Wait()
	return took
}

// nextNumbered reads up to the next broadcast and returns its number.
func nextNumbered(c *wire.Client) (int, error) {
	for {
		line, err := c.ReadErr()
		if err != nil {
			return 0, err
		}
		if text, ok := strings.CutPrefix(line, `@mess #broadcast talker "`); ok {
			number, _, _ := strings.Cut(text, " ")
			return strconv.Atoi(number)
		}
	}
}

// TestNoLineEnd: whoever sends without ever ending a line is cut off, and costs
// no memory, however much it sends.
func TestNoLineEnd(t *testing.T) {
	p := abused(t)
	p.Guest("stays").Barrier()
	flood(t, p, []byte("x"), 1<<20) // what is made once is made now
	before := memoryOf(t, p)
	telnetOption := []byte{255, 250} // a subnegotiation that never ends
	for _, bytes := range [][]byte{[]byte("x"), telnetOption, {'x', '\b'}, {0xe2, 0x80}} {
		size := int64(harder(1<<30, 8<<20))
		connections := flood(t, p, bytes, size)
		memory := memoryOf(t, p)
		t.Logf("%d MiB of %q, in %d connections: memory %d KiB, before %d", size>>20, bytes, connections, memory, before)
		if memory > before+2<<10 {
			t.Errorf("more than 2 MiB")
		}
	}
}

// flood sends so many bytes with no line end, on as many connections as it takes.
func flood(t *testing.T, p *program, pattern []byte, size int64) (connections int) {
	t.Helper()
	piece := slices.Repeat(pattern, 64<<10/len(pattern))
	for size > 0 {
		connections++
		c := p.Dial()
		for size > 0 {
			n, err := c.Conn.Write(piece)
			size -= int64(n)
			if err != nil {
				break
			}
		}
		if line, err := c.ReadErr(); err == nil && !strings.HasSuffix(line, `@mess #warning "line longer than 1000 bytes"`) {
			t.Fatalf("got %q", line)
		} else if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the connection was not ended")
		}
		c.Conn.Close()
	}
	return connections
}
