package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/store"
	"homeroom/test/storetest"
	"homeroom/test/wire"
)

// staller is a client whose connection takes nothing unless the test reads it.
type staller struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

// stalled connects a staller and logs it in with these lines.
func (b *bubble) stalled(login ...string) *staller {
	b.t.Helper()
	conn := b.connect()
	b.t.Cleanup(func() { conn.Close() })
	s := &staller{b.t, conn, bufio.NewReaderSize(conn, 16)}
	s.read()
	for _, line := range login {
		s.send(line)
		if got := s.read(); got != "@status 0" {
			b.t.Fatalf("%q: got %q", line, got)
		}
	}
	return s
}

// patiently bounds, in the bubble's time, how long a test waits for what must
// come; the function that it returns ends that.
func (s *staller) patiently() func() {
	_ = s.conn.SetDeadline(time.Now().Add(wire.Patience)) // it fails on a closed pipe only, as does what follows
	return func() { _ = s.conn.SetDeadline(time.Time{}) }
}

func (s *staller) send(line string) {
	s.t.Helper()
	defer s.patiently()()
	if _, err := io.WriteString(s.conn, line+"\r\n"); err != nil {
		s.t.Fatalf("sending %q: %v", line, err)
	}
}

// sendOn sends a line from a goroutine that is not the test's.
func sendOn(t testing.TB, conn net.Conn, line string) {
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		t.Errorf("sending %.40q: %v", line, err)
	}
}

// read takes the next line.
func (s *staller) read() string {
	s.t.Helper()
	defer s.patiently()()
	line, err := s.in.ReadString('\n')
	if err != nil {
		s.t.Fatalf("reading: %v (got %q)", err, line)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// rest takes all lines up to the end of the connection.
func (s *staller) rest() []string {
	s.t.Helper()
	defer s.patiently()()
	all, err := io.ReadAll(s.in)
	if err != nil && !errors.Is(err, io.ErrClosedPipe) {
		s.t.Errorf("reading to the end: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(all), "\r\n"), "\r\n")
}

// What may wait for a member, and how long it may take nothing of that, as
// promised; the server has constants of its own.
const (
	boundBytes = 256 << 10
	boundTime  = 10 * time.Second
)

const tooSlowText = `@mess #warning "you read too slowly; the connection ends"`

// TestStalledTooFarBehind: a user who does not read holds nobody up, is cut off when
// 256 KiB wait, and is told why, after all that came before that.
func TestStalledTooFarBehind(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		slow, other := b.stalled("#login anon slow"), b.guest("other")
		text := strings.Repeat("x", 900)
		line := `@mess #broadcast other "` + text + `"`
		start, sent := time.Now(), 0
		for ; other.Listed("#listusers", "slow") != nil; sent++ {
			if sent*len(line) > 2*boundBytes {
				t.Fatalf("%d bytes wait and the member is still there", sent*len(line))
			}
			other.Ask("#broadcast "+text, line, "@status 0")
			synctest.Wait() // until the member's session has ended, if it does
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("a member that does not read held the others up for %v", d)
		}
		if bytes := sent * (len(line) + 2); bytes < boundBytes-2*maxLine || bytes > boundBytes+batchSize+2*maxLine {
			t.Errorf("cut off when %d bytes waited, want %d", bytes, boundBytes)
		}
		got := slow.rest()
		if last := got[len(got)-1]; last != tooSlowText {
			t.Errorf("the last line is %q", last)
		}
		if len(got) < sent-1 {
			t.Errorf("%d lines came before the warning, of %d", len(got)-1, sent)
		}
		for _, l := range got[:len(got)-1] {
			if l != line {
				t.Fatalf("got %q", l)
			}
		}
		synctest.Wait()
		if n := len(b.doorway.sessions); n != 1 {
			t.Errorf("%d sessions are left, want 1", n)
		}
	})
}

// TestStalledTooLong: who takes nothing for 10 s while something waits is cut
// off, however little it is.
func TestStalledTooLong(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		b.stalled("#login anon slow")
		idle, other := b.stalled("#login anon idle", "#createroom den", "#changeroom den"), b.guest("other")
		other.Ask("#broadcast hello", `@mess #broadcast other "hello"`, "@status 0")
		b.pass(boundTime - time.Millisecond)
		if other.Listed("#listusers", "slow") == nil {
			t.Error("cut off before 10 s without progress")
		}
		b.pass(farewell + 2*time.Millisecond)
		if other.Listed("#listusers", "slow") != nil {
			t.Error("still there after 10 s without progress")
		}
		b.pass(time.Hour) // nothing waits for this one
		idle.send("#ping")
		if got := idle.read(); got != "@ret #ping" {
			t.Errorf("who has nothing to read and stays: %q", got)
		}
	})
}

// TestSlowButReading: who takes a little now and then makes progress.
func TestSlowButReading(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		slow, other := b.stalled("#login anon slow"), b.guest("other")
		text := strings.Repeat("x", 900)
		other.Ask("#broadcast "+text, `@mess #broadcast other "`+text+`"`, "@status 0")
		for range 30 {
			b.pass(boundTime - time.Second)
			if _, err := slow.in.ReadByte(); err != nil {
				t.Fatalf("cut off while reading: %v", err)
			}
			if n, err := io.ReadFull(slow.in, make([]byte, 15)); err != nil { // what the reader had buffered
				t.Fatalf("%d bytes, %v", n, err)
			}
		}
		if other.Listed("#listusers", "slow") == nil {
			t.Error("cut off although it read all the time")
		}
	})
}

// TestLastLines: a user who does not read when the session ends has a second to take
// the last lines.
func TestLastLines(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		slow := b.stalled("#login anon slow")
		slow.send("#ping one")
		slow.send("#quit")
		b.pass(farewell - time.Millisecond)
		if got := slow.rest(); len(got) != 2 || got[1] != "@status 0" {
			t.Errorf("after almost a second: %q", got)
		}
		gone := b.stalled("#login anon gone")
		gone.send("#ping one")
		gone.send("#quit")
		b.pass(farewell + time.Millisecond)
		if n := len(b.doorway.sessions); n != 0 {
			t.Errorf("%d sessions are left after the second", n)
		}
		if got := gone.rest(); len(got) != 1 || got[0] != "" {
			t.Errorf("after more than a second: %q", got)
		}
	})
}

// fillGroup makes a folder with a group "big" of so many messages.
func fillGroup(t testing.TB, messages int) (folder string) {
	t.Helper()
	o := storetest.Options(t)
	o.Periodic = true
	st, err := store.OpenSQLite(o)
	if err != nil {
		t.Fatal(err)
	}
	r := store.Record{Kind: store.Group, Ends: never, Head: store.Pack("big", "big", "", "anon", "0")}
	group := storetest.Add(t, st, r)
	storetest.AddMessages(t, st, messages, func(i int) store.Record {
		return storetest.MessageRecord(group, 0, fmt.Sprintf("a-heading-as-long-as-they-%d", i))
	})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	return o.Folder
}

// TestLongReplyIsWhole: what others say while a long reply is being sent comes
// after it.
func TestLongReplyIsWhole(t *testing.T) {
	t.Parallel()
	const messages = 2500
	inBubble(t, func(b *bubble) {
		slow, other := b.stalled("#login anon slow", "#joingroup big"), b.guest("other")
		slow.send("#listmessages")
		if got := slow.read(); got != fmt.Sprintf("@ret #listmessages %d", messages) {
			t.Fatalf("got %q", got)
		}
		synctest.Wait() // the server has begun to send, and waits
		for i := range 3 {
			other.Ask(fmt.Sprintf("#sendto slow %d", i), "@status 0")
		}
		go sendOn(t, slow.conn, "#ping after")
		for i := range messages {
			if got, want := slow.read(), fmt.Sprintf("a-heading-as-long-as-they-%d alice %d 0 0 0", i, i+1); got != want {
				t.Fatalf("line %d is %q, want %q", i, got, want)
			}
		}
		for i := range 3 {
			if got, want := slow.read(), fmt.Sprintf(`@mess #sendto other "%d"`, i); got != want {
				t.Errorf("after the reply: %q, want %q", got, want)
			}
		}
		if got := slow.read(); got != "@ret #ping after" {
			t.Errorf("the next reply: %q", got)
		}
	}, func(cfg *config) { cfg.Server.Data = fillGroup(t, messages) })
}

// countedLists counts the lists that are being read.
type countedLists struct {
	store.Store
	open atomic.Int64
}

func (c *countedLists) List(group, parent int64) (*store.List, error) {
	c.open.Add(1)
	return c.Store.List(group, parent)
}

func (c *countedLists) EndList(l *store.List) {
	c.open.Add(-1)
	c.Store.EndList(l)
}

// TestLongReplyStalled: what others say during a long reply is bounded as ever,
// and the list that was being read is let go.
func TestLongReplyStalled(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		synctest.Wait() // until nobody uses the store
		lists := &countedLists{Store: b.store}
		synctest.Wait() // the expirer has looked into the store
		b.store = lists
		slow, other := b.stalled("#login anon slow", "#joingroup big"), b.guest("other")
		slow.send("#listmessages")
		synctest.Wait()
		if n := lists.open.Load(); n != 1 {
			t.Errorf("%d lists are open, want 1", n)
		}
		text := strings.Repeat("x", 900)
		for range boundBytes/len(text) + 1 {
			other.Ask("#sendto slow "+text, "@status 0")
			synctest.Wait()
			if other.Listed("#listusers", "slow") == nil {
				break
			}
		}
		b.pass(farewell + time.Millisecond)
		other.Ask("#sendto slow hello", "@status -3")
		if n := len(b.doorway.sessions); n != 1 {
			t.Errorf("%d sessions are left, want 1", n)
		}
		if n := lists.open.Load(); n != 0 {
			t.Errorf("%d lists are still open", n)
		}
	}, func(cfg *config) { cfg.Server.Data = fillGroup(t, 2500) })
}

// TestTakeoverIsPrompt: a login takes over at once, whatever the earlier
// session waits for.
func TestTakeoverIsPrompt(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		stall func(slow *staller, other *wire.Client)
	}{
		{"idle", func(*staller, *wire.Client) {}},
		{"nothing is read", func(_ *staller, other *wire.Client) { other.Ask("#sendto slow hello", "@status 0") }},
		{"in a long reply", func(slow *staller, _ *wire.Client) { slow.send("#listmessages") }},
		{"in a post", func(slow *staller, _ *wire.Client) { slow.send("#postmessage heading 0 5\r\none") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				other := b.guest("other")
				other.Ask(`#createlogin slow pw "Real Name" mail`, "@status 0")
				slow := b.stalled("#login regd slow pw", "#joingroup big")
				test.stall(slow, other)
				synctest.Wait()
				start, fresh := time.Now(), b.dial()
				fresh.Ask("#login regd slow pw", "@status 0")
				fresh.Ask("#whoami", "@ret #whoami slow Home 2 - 0")
				if d := time.Since(start); d != 0 {
					t.Errorf("the takeover took %v", d)
				}
				got := slow.rest()
				if last := got[len(got)-1]; last != `@mess #warning "logged in from another place"` {
					t.Errorf("the last line of the earlier session is %q", last)
				}
			}, func(cfg *config) { cfg.Server.Data = fillGroup(t, 2500) })
		})
	}
}

// TestRepliesInOrder: many commands at once are answered in their order,
// whatever comes from others in between.
func TestRepliesInOrder(t *testing.T) {
	t.Parallel()
	const commands = 2000
	srv := startServer(t)
	c, other := srv.Guest("alice"), srv.Guest("bob")
	var running sync.WaitGroup
	running.Go(func() {
		for i := range commands {
			sendOn(t, c.Conn, fmt.Sprintf("#ping %d", i))
			if i%100 == 0 {
				sendOn(t, c.Conn, "#listusers")
			}
		}
	})
	running.Go(func() {
		for i := range commands / 10 {
			sendOn(t, other.Conn, fmt.Sprintf("#sendto alice %d", i))
		}
	})
	said := 0
	next := func() string {
		for {
			line := c.Read()
			if !strings.HasPrefix(line, "@mess ") {
				return line
			}
			if want := fmt.Sprintf(`@mess #sendto bob "%d"`, said); line != want {
				t.Fatalf("got %q, want %q", line, want)
			}
			said++
		}
	}
	for i := range commands {
		if got, want := next(), fmt.Sprintf("@ret #ping %d", i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		if i%100 == 0 {
			if got := next(); got != "@ret #listusers 2" {
				t.Fatalf("got %q", got)
			}
			c.Expect("alice anon", "bob anon") // nothing comes between the lines of a reply
		}
	}
	running.Wait()
	for ; said < commands/10; said++ {
		c.Expect(fmt.Sprintf(`@mess #sendto bob "%d"`, said))
	}
}

// TestBurst: 1000 lines at once to 50 members that read reach every one of
// them, in order, and nobody is cut off.
func TestBurst(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"short": "", "900 bytes": strings.Repeat("x", 900)} {
		t.Run(name, func(t *testing.T) {
			const lines, members = 1000, 50
			srv := startServer(t)
			sender := srv.Guest("sender")
			var reading sync.WaitGroup
			for i := range members {
				c := srv.Guest(fmt.Sprintf("member%d", i))
				reading.Go(func() { wantBurst(c, lines, text) })
			}
			reading.Go(func() {
				for i := range lines {
					sendOn(t, sender.Conn, fmt.Sprintf("#broadcast %d%s", i, text))
				}
			})
			for range lines { // its own lines and replies
				for sender.Read() != "@status 0" {
				}
			}
			reading.Wait()
			sender.Send("#listusers")
			if got, want := sender.Read(), fmt.Sprintf("@ret #listusers %d", members+1); got != want {
				t.Errorf("after the burst: %q, want %q", got, want)
			}
		})
	}
}

// wantBurst reads a burst and reports what is not as it was sent. It runs on a
// goroutine of its own.
func wantBurst(c *wire.Client, lines int, text string) {
	for i := range lines {
		got, err := c.ReadErr()
		if want := fmt.Sprintf(`@mess #broadcast sender "%d%s"`, i, text); err != nil || got != want {
			c.T.Errorf("line %d is %.60q (%v)", i, got, err)
			return
		}
	}
}

// TestStalledOnTCP: the same over real sockets: a member whose buffers are full
// does not hold up the others and loses its place.
func TestStalledOnTCP(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	other := srv.Guest("other")
	conn, err := net.Dial("tcp", srv.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	slow := wire.New(t, conn)
	slow.Read()
	slow.Ask("#login anon slow", "@status 0")
	text := strings.Repeat("x", 900)
	longest, start := time.Duration(0), time.Now()
	for other.Listed("#listusers", "slow") != nil {
		before := time.Now()
		other.Ask("#broadcast "+text, `@mess #broadcast other "`+text+`"`, "@status 0")
		longest = max(longest, time.Since(before))
		if time.Since(start) > wire.Patience {
			t.Fatal("the member that does not read is still there")
		}
	}
	if longest > 5*time.Second { // far more than a busy machine needs, far less than the stall
		t.Errorf("a broadcast took %v", longest)
	}
}

// TestGuestBecomesAccount: who makes an account under the name that it has as a
// guest, and logs in to it, is a guest no more.
func TestGuestBecomesAccount(t *testing.T) {
	t.Parallel()
	srv := startServer(t)
	c := srv.Guest("alice")
	c.Ask(`#createlogin alice pw "Real Name" mail`, "@status 0")
	c.Ask("#login regd alice pw", "@status 0")
	c.Ask("#listusers", "@ret #listusers 1", "alice regd")
	c.Ask("#changepass new pw", "@status 0")
}
