package main

import (
	"slices"
	"sync"
	"time"
)

const (
	catchUpTime  = time.Second          // what a round waits, at most, for members that read but were not served
	longestPause = 2 * time.Millisecond // what a busy room's lines may wait for company
	fewLines     = 16                   // lines that are always worth it to wait for, while that time is not over
	mostUnheard  = 64 << 10             // bytes of a room past which who says more waits for a round
)

// talk is what is being said in a room. A line is kept once until a round has
// brought it to everybody: whoever says something does not touch the members, and
// each of them gets in one write all that it has not had when its turn comes.
//
// An outbox knows how far it has heard, in bytes. Before anything else goes into it,
// it takes what is missing, so that everyone gets everything in the same order.
type talk struct {
	rings *ringSet // fixed when it is made; nil: none

	mu       sync.Mutex
	lines    [][]byte      // what not everybody has
	joined   *[]byte       // the same in one piece, lent; nil: nothing
	start    uint64        // where joined begins, in all that was ever said
	flushing bool          // somebody brings a round
	members  []*outbox     // whoever hears it; each outbox knows its seat
	lent     bool          // a round goes through members: they are not to be moved
	ended    chan struct{} // closed when the round ends; nil: nobody waits for that
	plenty   chan struct{} // closed when there are many lines; nil: nobody waits for that
	many     int           // how many that are
}

// said is what a talk has at a moment. Only who brings a round may use joined when
// talk.mu is not held any more.
type said struct {
	lines  [][]byte
	joined []byte
	start  uint64
}

// now is what not everybody has. t.mu is held.
func (t *talk) now() said {
	if t.joined == nil {
		return said{start: t.start}
	}
	return said{t.lines, *t.joined, t.start}
}

// end is where it ends.
func (s said) end() uint64 { return s.start + uint64(len(s.joined)) }

// say takes a line for everyone in the room; a flush must follow. While too much
// is on its way already it waits for a round to end.
func (t *talk) say(f *frame) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.joined != nil && len(*t.joined) > mostUnheard {
		flushing, ended := t.flushing, t.waitForEnd()
		t.mu.Unlock()
		if flushing {
			<-ended
		} else {
			t.flush()
		}
		t.mu.Lock()
	}
	if t.joined == nil {
		t.joined = writeBuffers.Get().(*[]byte)
		*t.joined = (*t.joined)[:0]
	}
	line := f.show(lookProgram)
	t.lines = append(t.lines, line)
	*t.joined = append(*t.joined, line...)
	if t.plenty != nil && len(t.lines) >= t.many {
		close(t.plenty)
		t.plenty = nil
	}
}

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
	o.room, o.heard = t, t.now().end()
	o.seat = len(t.members)
	t.members = append(t.members, o)
}

// part gives an outbox what was said so far, and nothing any more.
func (t *talk) part(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hear(t, t.now())
	o.room = nil
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
	if t.members = t.members[:last]; cap(t.members) > 2*sendSlots && last < cap(t.members)/4 {
		t.members = slices.Clone(t.members) // a room that was full once keeps no memory of it
	}
}

// catchUp gives an outbox all that was said so far.
func (t *talk) catchUp(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.joined == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hear(t, t.now())
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
	if t.many = max(carried*7/8, fewLines); len(t.lines) >= t.many || most <= 0 {
		return len(t.lines)
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
	return len(t.lines)
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
	t.flushing = len(t.lines) > 0
	return len(t.lines)
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
		now := t.now()
		t.mu.Unlock()
		fresh, isBehind := o.offer(t, now)
		if isBehind {
			behind = append(behind, o)
		}
		if fresh != nil {
			v.add(o, fresh)
		}
	}
	v.end(t.rings)
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
		if !o.catchUp(timer.C) {
			return
		}
	}
}

// endRound forgets the first n lines, which everybody has now. It returns how many
// there are for the next round; with none it gives up the flusher's part.
func (t *talk) endRound(n int) (lines int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	bytes := 0
	for _, f := range t.lines[:n] {
		bytes += len(f)
	}
	t.start += uint64(bytes)
	t.lines = slices.Delete(t.lines, 0, n)
	*t.joined = slices.Delete(*t.joined, 0, bytes)
	if len(t.lines) == 0 {
		t.silence()
	}
	t.lent = false
	if t.ended != nil {
		close(t.ended)
		t.ended = nil
	}
	t.flushing = len(t.lines) > 0
	return len(t.lines)
}

// silence gives back the memory that a talk needs while something is said. t.mu is
// held.
func (t *talk) silence() {
	if cap(*t.joined) == writeBuffer {
		writeBuffers.Put(t.joined)
	}
	t.joined = nil
	if cap(t.lines) > sendSlots {
		t.lines = nil
	}
}
