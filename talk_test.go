package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"homeroom/test/wire"
)

// TestSameOrder: while eight people talk as fast as they can, everybody in the room
// gets the same lines in the same order, whatever else they get or ask, and a
// private message comes after what its sender had said before. So it is where many
// sends share a system call, and where they do not.
func TestSameOrder(t *testing.T) {
	t.Parallel()
	for _, rings := range []bool{true, false} {
		t.Run(fmt.Sprintf("rings_%t", rings), func(t *testing.T) {
			t.Parallel()
			srv := startServer(t, func(cfg *config) { cfg.Limits.CommandsPerSecond = 0 })
			if !rings {
				srv.rings.Close()
			}
			everybodyTalks(t, srv)
		})
	}
}

// everybodyTalks has eight people talk, and two listen to all of it.
func everybodyTalks(t *testing.T, srv *testServer) {
	const senders, each, atOnce = 8, 300, 20
	hearers := map[string]*wire.Client{"quiet": srv.Guest("quiet"), "busy": srv.Guest("busy")}
	var talkers []*wire.Client
	for i := range senders {
		talkers = append(talkers, srv.Guest(fmt.Sprintf("sender%d", i)))
	}
	var running sync.WaitGroup
	for i, c := range talkers {
		running.Go(func() {
			for k := range each {
				c.Send(fmt.Sprintf("#broadcast %d.%d", i, k), fmt.Sprintf("#sendto quiet %d.%d", i, k), fmt.Sprintf("#sendto busy %d.%d", i, k))
				if k%atOnce == atOnce-1 {
					c.Barrier()
				}
			}
		})
	}
	heard := make(map[string][]string)
	var mu sync.Mutex
	for name, c := range hearers {
		running.Go(func() {
			said := hearAll(t, c, name == "busy", senders, each)
			mu.Lock()
			defer mu.Unlock()
			heard[name] = said
		})
	}
	running.Wait()
	if !slices.Equal(heard["quiet"], heard["busy"]) {
		t.Error("two people in a room heard different things")
	}
}

// hearAll reads until everybody has said everything to c, which asks something
// before each read if it is busy. It returns what was said to all.
func hearAll(t *testing.T, c *wire.Client, busy bool, senders, each int) (said []string) {
	last, private := make(map[string]string), 0
	for len(said) < senders*each || private < senders*each {
		if busy {
			c.Send("#ping busy")
		}
		line, err := c.ReadErr()
		if err != nil {
			t.Errorf("after %d and %d of %d lines: %v", len(said), private, senders*each, err)
			return nil
		}
		words := strings.Fields(line)
		if words[0] != "@mess" {
			continue
		}
		from, text := words[2], strings.Trim(words[3], `"`)
		if words[1] == "#broadcast" {
			said, last[from] = append(said, text), text
		} else if private++; text != last[from] {
			t.Errorf("%s said %s in private when the last that it had said to all was %s", from, text, last[from])
		}
	}
	return said
}

// roomMember is an outbox whose session is in a room, and what comes out of it.
type roomMember struct {
	*outbox
	got chan string
}

// newRoomMember makes one whose member reads only when the test reads got.
func newRoomMember(t *testing.T) *roomMember {
	near, far := net.Pipe()
	h := &roomMember{outbox: newOutbox(newNetLink(near), new(atomic.Int64)), got: make(chan string)}
	go func() {
		defer close(h.got)
		buf := make([]byte, batchSize)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			for line := range strings.Lines(string(buf[:n])) {
				h.got <- strings.TrimSuffix(line, "\r\n")
			}
		}
	}()
	t.Cleanup(func() {
		h.close()
		near.Close()
		far.Close()
	})
	return h
}

// wantNext expects these lines and then, for now, nothing.
func (h *roomMember) wantNext(t *testing.T, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if got := <-h.got; got != line {
			t.Errorf("got %q, want %q", got, line)
		}
	}
	synctest.Wait()
	select {
	case got := <-h.got:
		t.Errorf("got %q, want nothing more", got)
	default:
	}
}

// TestTalkMoves: who goes to another room while a round is under way has all that
// was said in the first before, nothing of what comes later, and of the other one
// what is said from then on.
func TestTalkMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, first, second := newRoomMember(t), &talk{}, &talk{}
		for range 5 {
			second.say(eventFrame("before"))
		}
		first.join(h.outbox)
		first.say(eventFrame("one"))
		n, members := first.begin(), first.lend()
		first.say(eventFrame("two"))
		first.part(h.outbox)
		second.join(h.outbox)
		first.say(eventFrame("late"))
		first.bring(members)
		if more := first.endRound(n); more != 2 {
			t.Errorf("%d lines are for the next round, want 2", more)
		}
		h.wantNext(t, "@mess #one", "@mess #two")
		second.flush()
		h.wantNext(t)
		second.say(eventFrame("three"))
		second.bringTo(h.outbox)
		h.put(eventFrame("private"))
		second.say(eventFrame("four"))
		second.flush()
		h.wantNext(t, "@mess #three", "@mess #private", "@mess #four")
	})
}

// TestTalkLooks: in one room each member gets the same lines as its look shows them. A
// look that nobody has any more, or has again in the middle of a round, loses nothing.
func TestTalkLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		room, program, person, late := &talk{}, newRoomMember(t), newRoomMember(t), newRoomMember(t)
		person.look, late.look = lookPlain, lookPlain
		say := func(text string) { room.say(messFrame("broadcast", "ana", text)) }
		room.join(program.outbox)
		say("one")
		room.join(person.outbox)
		say("two")
		n, members := room.begin(), room.lend()
		say("three")
		room.part(person.outbox)
		say("four")
		room.join(late.outbox)
		say("five")
		room.bring(members)
		room.flushOn(0, room.endRound(n))
		program.wantNext(t, `@mess #broadcast ana "one"`, `@mess #broadcast ana "two"`, `@mess #broadcast ana "three"`,
			`@mess #broadcast ana "four"`, `@mess #broadcast ana "five"`)
		person.wantNext(t, "00:00 ana: two", "00:00 ana: three")
		late.wantNext(t, "00:00 ana: five")
		room.part(late.outbox)
		say("six")
		if room.streams[lookPlain].bytes != nil {
			t.Error("a line is encoded for a look that no member has")
		}
		room.flush()
		program.wantNext(t, `@mess #broadcast ana "six"`)
	})
}

// TestTalkWaits: with mostUnheard bytes on their way one more line may be said; who
// says another one after that waits until a round has ended, and brings one itself
// where nobody does.
func TestTalkWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		line := eventFrame(strings.Repeat("x", 1024-len("@mess #\r\n")))
		room := &talk{}
		near, far := net.Pipe()
		o := newOutbox(newNetLink(near), new(atomic.Int64))
		defer near.Close()
		defer o.close()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		room.join(o)
		room.say(line)
		n := room.begin()
		for range mostUnheard / 1024 {
			room.say(line)
		}
		if got, want := room.unheard(), mostUnheard+1024; got != want {
			t.Fatalf("%d bytes are on their way, want %d", got, want)
		}
		said := make(chan struct{})
		go func() {
			room.say(line)
			close(said)
		}()
		synctest.Wait()
		select {
		case <-said:
			t.Fatal("past the bound nobody waited")
		default:
		}
		room.bring(room.lend())
		n = room.endRound(n)
		<-said
		room.flushOn(0, n)
		if room.unheard() > 0 || room.flushing {
			t.Error("the talk does not end")
		}
		for range 2 * mostUnheard / 1024 { // nobody flushes: say does
			room.say(line)
		}
		synctest.Wait()
		if got := room.unheard(); got > mostUnheard+1024 {
			t.Errorf("%d bytes are on their way", got)
		}
	})
}

// TestTalkPauses: between rounds a busy room waits for its time, unless there are as
// many lines before that as it is worth it to wait for.
func TestTalkPauses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ before, meanwhile, carried, most int }{
		{fewLines - 1, 0, 0, 1}, {fewLines, 0, 0, 0}, {0, fewLines - 1, 0, 1}, {0, fewLines, 0, 0},
		{0, 27, 32, 1}, {0, 28, 32, 0}, {28, 0, 32, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			room, began := &talk{}, time.Now()
			say := func(lines int) {
				for range lines {
					room.say(eventFrame("hello"))
				}
			}
			say(c.before)
			go say(c.meanwhile)
			if got := room.pause(longestPause, c.carried); got != c.before+c.meanwhile {
				t.Errorf("%+v: %d lines came", c, got)
			}
			if took := time.Since(began); took != longestPause*time.Duration(c.most) {
				t.Errorf("%+v: it paused for %v", c, took)
			}
		})
	}
}

// TestTalkOverTLS: members who read are not cut off, however much a crowd says to
// them, over TLS, where each is served by a goroutine of its own.
func TestTalkOverTLS(t *testing.T) {
	t.Parallel()
	const members, senders, lines = 150, 15, 60
	srv := startServer(t, withTLS, func(cfg *config) { cfg.Limits.CommandsPerSecond = 0 })
	var crowd []*wire.Client
	for i := range members + senders {
		c := srv.overTLS()
		c.Ask(fmt.Sprintf("#login anon user%d", i), "@status 0")
		crowd = append(crowd, c)
	}
	var running sync.WaitGroup
	for i, c := range crowd {
		if i < senders {
			running.Go(func() { c.Raw(strings.Repeat("#broadcast "+strings.Repeat("x", 900)+"\r\n", lines)) })
		}
		running.Go(func() {
			for heard := 0; heard < senders*lines; {
				line, err := c.ReadErr()
				if err != nil {
					t.Errorf("user%d got %d of %d lines, then %v", i, heard, senders*lines, err)
					return
				}
				if strings.HasPrefix(line, "@mess #broadcast ") {
					heard++
				}
			}
		})
	}
	running.Wait()
	if n := srv.counts.slowReaders.Load(); n > 0 {
		t.Errorf("%d were cut off as too slow", n)
	}
}

// TestWrittenInPieces: of much that comes at once, what the writer has taken does not
// count as waiting.
func TestWrittenInPieces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		o := newOutbox(newNetLink(near), new(atomic.Int64))
		const batches = 3
		whole := eventFrame("x", quoted(strings.Repeat("x", batches*batchSize)))
		o.put(whole)
		for left := len(whole.show(lookProgram)); left > 0; left -= batchSize {
			synctest.Wait()
			o.mu.Lock()
			if o.queued() != (left-1)/batchSize*batchSize {
				t.Errorf("with %d bytes to be read, %d wait for the writer", left, o.queued())
			}
			o.mu.Unlock()
			if _, err := io.CopyN(io.Discard, far, int64(min(batchSize, left))); err != nil {
				t.Fatal(err)
			}
		}
		o.close()
		near.Close()
		far.Close()
	})
}
