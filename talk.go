package main

import (
	"slices"
	"sync"
	"time"

	"homeroom/uring"
)

const (
	catchUpTime  = time.Second          // what a round waits, at most, for members that read but were not served
	longestPause = 2 * time.Millisecond // what a busy room's lines may wait for company
	fewLines     = 16                   // lines that are always worth it to wait for, while that time is not over
	mostUnheard  = 64 << 10             // bytes of a room beyond which a speaker waits for a round
)

// talk is what is being said in a room. A line is kept once, for each look that a
// member has, until a round has brought it to everybody: whoever says something does not
// touch the members, and each of them gets in one write all that it has not had when its
// turn comes.
//
// An outbox knows how many lines it has heard. Before anything else goes into it, it
// takes what is missing, so that everyone gets everything in the same order.
type talk struct {
	rings *uring.Set // fixed when it is made; nil: none

	mu        sync.Mutex
	members   []*outbox  // whoever hears it; each outbox knows its seat
	lent      bool       // a round goes through members: they are not to be moved
	listening [looks]int // how many of them have each look
	streams   [looks]stream
	said      uint64        // lines, since the beginning
	brought   uint64        // how many of them everybody has had
	flushing  bool          // somebody brings a round
	ended     chan struct{} // closed when the round ends; nil: nobody waits for that
	plenty    chan struct{} // closed when there are many lines; nil: nobody waits for that
	many      int           // how many that are
}

// stream is the lines that not everybody has had, as one look shows them, in one piece.
type stream struct {
	bytes *[]byte // lent; nil: there are none
	ends  []int   // where each line ends in bytes
	first uint64  // the number of the first line
}

// streamBuffers are lent to streams while something is said.
var streamBuffers = sync.Pool{New: func() any { b := make([]byte, 0, batchSize); return &b }}

// add encodes a line at the end of the stream; number is its number.
func (s *stream) add(f *frame, l look, number uint64) {
	if s.bytes == nil {
		s.bytes, s.first = streamBuffers.Get().(*[]byte), number
		*s.bytes = (*s.bytes)[:0]
	}
	*s.bytes = f.append(*s.bytes, l)
	s.ends = append(s.ends, len(*s.bytes))
}

// forget drops the lines before a number. With none left it gives back the memory that
// it needs while something is said.
func (s *stream) forget(until uint64) {
	if s.bytes == nil || until <= s.first {
		return
	}
	n := int(until - s.first)
	cut := s.ends[n-1]
	*s.bytes = slices.Delete(*s.bytes, 0, cut)
	s.ends = slices.Delete(s.ends, 0, n)
	for i := range s.ends {
		s.ends[i] -= cut
	}
	if s.first = until; len(s.ends) > 0 {
		return
	}
	if cap(*s.bytes) == batchSize {
		streamBuffers.Put(s.bytes)
	}
	if s.bytes = nil; cap(s.ends) > fewLines {
		s.ends = nil
	}
}

// pending is what a stream has at a moment. When talk.mu is not held any more, only the
// goroutine that brings a round may use it.
type pending struct {
	bytes []byte
	ends  []int
	first uint64
}

// now is what not everybody has had of what a look shows. t.mu is held.
func (t *talk) now(l look) pending {
	s := &t.streams[l]
	if s.bytes == nil {
		return pending{}
	}
	return pending{*s.bytes, s.ends, s.first}
}

// end is how many lines have been heard with the last of them.
func (p pending) end() uint64 { return p.first + uint64(len(p.ends)) }

// after is the lines behind the first so many.
func (p pending) after(heard uint64) []byte {
	if heard <= p.first {
		return p.bytes
	}
	return p.bytes[p.ends[heard-p.first-1]:]
}

// say takes a line for everyone in the room; a flush must follow. While too much is on
// its way already it waits for a round to end.
func (t *talk) say(f *frame) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.unheard() > mostUnheard {
		flushing, ended := t.flushing, t.waitForEnd()
		t.mu.Unlock()
		if flushing {
			<-ended
		} else {
			t.flush()
		}
		t.mu.Lock()
	}
	for l := range t.streams {
		if s := &t.streams[l]; t.listening[l] > 0 || s.bytes != nil { // with no gap in it
			s.add(f, look(l), t.said)
		}
	}
	t.said++
	if t.plenty != nil && t.lines() >= t.many {
		close(t.plenty)
		t.plenty = nil
	}
}

// unheard is how many bytes are on their way to each member, at the most. t.mu is held.
func (t *talk) unheard() (most int) {
	for l := range t.streams {
		if b := t.streams[l].bytes; b != nil {
			most = max(most, len(*b))
		}
	}
	return most
}

// lines is how many lines not everybody has had. t.mu is held.
func (t *talk) lines() int { return int(t.said - t.brought) }

// waitForEnd returns a channel that is closed when a round ends. t.mu is held.
func (t *talk) waitForEnd() <-chan struct{} {
	if t.ended == nil {
		t.ended = make(chan struct{})
	}
	return t.ended
}

// join has an outbox hear what is said from now on. Only its session's reader calls
// join and part: it is in one room at a time.
func (t *talk) join(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.room, o.heard, o.seat = t, t.said, len(t.members)
	t.members = append(t.members, o)
	t.listening[o.look]++
}

// part gives an outbox what was said so far, and nothing any more.
func (t *talk) part(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hear(t, t.now(o.look))
	o.room = nil
	t.listening[o.look]--
	t.unseat(o)
}

// unseat takes an outbox off the members; the last of them gets its seat. t.mu is
// held.
func (t *talk) unseat(o *outbox) {
	if t.lent {
		t.members, t.lent = slices.Clone(t.members), false
	}
	last := len(t.members) - 1
	t.members[o.seat] = t.members[last]
	t.members[o.seat].seat = o.seat
	t.members[last] = nil
	if t.members = t.members[:last]; cap(t.members) > fewLines && last < cap(t.members)/4 {
		t.members = slices.Clone(t.members) // a room that was full once keeps no memory of it
	}
}

// bringTo gives an outbox all that was said so far.
func (t *talk) bringTo(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hear(t, t.now(o.look))
}

// flush brings what was said to the members. One goroutine at a time does, for
// all who said something meanwhile; past its own round it leaves that to another
// one, so that nobody is held up by the others' lines.
func (t *talk) flush() {
	if n := t.begin(); n > 0 {
		began := time.Now()
		t.bring(t.lend())
		if n = t.endRound(n); n > 0 {
			go t.flushOn(time.Since(began), n)
		}
	}
}

// flushOn brings rounds until there is nothing to bring; the round before took
// that long. While more comes than one round at a time carries, it pauses between
// rounds: later rounds then carry more lines to each member in one write.
func (t *talk) flushOn(took time.Duration, n int) {
	for carried := 0; n > 0; {
		carried = t.pause(min(took, longestPause), carried)
		began := time.Now()
		t.bring(t.lend())
		took = time.Since(began)
		n = t.endRound(carried)
	}
}

// pause waits for company, until there are about as many lines as the round before
// carried, or the time is over. It returns how many there are. In the simulated time of
// tests a round takes none, and so does this: timers that are over when they are made,
// in two goroutines at once, crash the race detector of Go 1.26 (runtime.maybeRunChan).
func (t *talk) pause(most time.Duration, carried int) (lines int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.many = max(carried*7/8, fewLines); t.lines() >= t.many || most <= 0 {
		return t.lines()
	}
	plenty := make(chan struct{})
	t.plenty = plenty
	t.mu.Unlock()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-plenty:
	case <-timer.C:
	}
	t.mu.Lock()
	t.plenty = nil
	return t.lines()
}

// begin takes the flusher's part, if there is something to bring and nobody has
// it. It returns how many lines everybody will have after the round. Its members
// are looked up after that: an outbox that joins later needs none of these lines.
func (t *talk) begin() (lines int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flushing {
		return 0
	}
	t.flushing = t.lines() > 0
	return t.lines()
}

// lend returns the members for a round, during which their slice is not changed.
func (t *talk) lend() []*outbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent = true
	return t.members
}

// bring gives the members what they have not had, and those that are behind,
// although they read, a moment.
func (t *talk) bring(members []*outbox) {
	var behind []*outbox
	v := newVolley(t.rings, len(members))
	for _, o := range members {
		t.mu.Lock()
		now := t.now(o.look)
		t.mu.Unlock()
		fresh, isBehind := o.claim(t, now)
		if isBehind {
			behind = append(behind, o)
		}
		if fresh != nil {
			v.add(o, fresh)
		}
	}
	v.end()
	if len(behind) > 0 {
		waitFor(behind)
	}
}

// waitFor gives members that are behind a moment: the machine is busy, not they
// slow. It ends as soon as their writers have run, whether a socket took what they
// had or not.
func waitFor(behind []*outbox) {
	timer := time.NewTimer(catchUpTime)
	defer timer.Stop()
	for _, o := range behind {
		if !o.waitWhileBehind(timer.C) {
			return
		}
	}
}

// endRound forgets the first n lines, which everybody has now. It returns how many
// there are for the next round; with none it gives up the flusher's part.
func (t *talk) endRound(n int) (lines int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.brought += uint64(n)
	for l := range t.streams {
		t.streams[l].forget(t.brought)
	}
	t.lent = false
	if t.ended != nil {
		close(t.ended)
		t.ended = nil
	}
	t.flushing = t.lines() > 0
	return t.lines()
}
