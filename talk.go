package main

import (
	"sync"
	"time"
)

const (
	catchUpTime  = 20 * time.Millisecond // what a round waits, at most, for members that read but were not served
	longestPause = 2 * time.Millisecond  // what a busy room's lines may wait for company
	mostUnheard  = 128 << 10             // bytes of a room past which who says more waits for a round
)

// talk is what is being said in a room. A line is kept once, and numbered, until
// a round has brought it to everybody: whoever says something does not touch the
// members, and lines that come together go to each member in one write.
//
// An outbox knows which lines it has. Before anything else goes into it, it takes
// what is missing, so that everyone gets everything in the same order.
type talk struct {
	mu       sync.Mutex
	lines    []*frame      // what not everybody has
	first    uint64        // the number of lines[0]; they are numbered as they come
	bytes    int           // in lines
	flushing bool          // somebody brings a round
	ended    chan struct{} // closed when the round ends; nil: nobody waits for that
}

// round is lines on their way to everybody.
type round struct {
	lines  []*frame
	first  uint64  // the number of lines[0]
	joined []byte  // them all, for one write
	lent   *[]byte // what joined lies in; nil: in the one line
	began  time.Time
}

// say takes a line for everyone in the room; a flush must follow. While too much
// is on its way already it waits for a round to end.
func (t *talk) say(f *frame, members func() []*outbox) {
	t.mu.Lock()
	for t.bytes > mostUnheard {
		flushing, ended := t.flushing, t.waitForEnd()
		t.mu.Unlock()
		if flushing {
			<-ended
		} else {
			t.flush(members)
		}
		t.mu.Lock()
	}
	t.lines = append(t.lines, f)
	t.bytes += len(f.line)
	t.mu.Unlock()
}

// waitForEnd returns a channel that is closed when a round ends. t.mu is held.
func (t *talk) waitForEnd() <-chan struct{} {
	if t.ended == nil {
		t.ended = make(chan struct{})
	}
	return t.ended
}

// join has an outbox hear what is said from now on, and part no more. Only its
// session's reader calls them, which is in one room at a time.
func (t *talk) join(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.room, o.heard = t, t.first+uint64(len(t.lines))
}

func (t *talk) part(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hear(t, t.lines, t.first)
	o.room = nil
}

// catchUp gives an outbox all that was said so far.
func (t *talk) catchUp(o *outbox) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hear(t, t.lines, t.first)
}

// flush brings what was said to the members. One goroutine at a time does, for
// all who said something meanwhile; past its own round it leaves that to another
// one, so that nobody is held up by the others' lines.
func (t *talk) flush(members func() []*outbox) {
	if r, ok := t.begin(false); ok {
		if t.bring(&r, members()) {
			go t.flushOn(time.Since(r.began), members)
		}
	}
}

// flushOn brings rounds until there is nothing to bring; the round before took
// that long. While more comes than one round at a time carries, it pauses between
// rounds: later rounds then carry more lines to each member in one write.
func (t *talk) flushOn(took time.Duration, members func() []*outbox) {
	for more := true; more; {
		time.Sleep(min(took, longestPause))
		r, _ := t.begin(true)
		more = t.bring(&r, members())
		took = time.Since(r.began)
	}
}

// begin takes the flusher's part, if there is something to bring and nobody has
// it (or the caller has it already), and as many lines as go into one write. Who
// is a member is to be asked after that: who enters later has heard them.
func (t *talk) begin(has bool) (r round, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 || t.flushing && !has {
		return r, false
	}
	t.flushing = true
	n, bytes := 1, len(t.lines[0].line)
	for n < len(t.lines) && bytes+len(t.lines[n].line) <= writeBuffer {
		bytes += len(t.lines[n].line)
		n++
	}
	return round{lines: t.lines[:n:n], first: t.first, began: time.Now()}, true
}

// bring gives a round to the members, and those that are behind, although they
// read, a moment. It reports whether more was said meanwhile; if not, it has given
// up the flusher's part.
func (t *talk) bring(r *round, members []*outbox) (more bool) {
	r.join()
	var behind []*outbox
	for _, o := range members {
		if o.deliver(t, r) {
			behind = append(behind, o)
		}
	}
	if len(behind) > 0 {
		waitFor(behind)
	}
	if r.lent != nil {
		writeBuffers.Put(r.lent)
	}
	return t.end(r)
}

// join makes one piece of a round's lines.
func (r *round) join() {
	if len(r.lines) == 1 {
		r.joined = r.lines[0].line
		return
	}
	r.lent = writeBuffers.Get().(*[]byte)
	r.joined = (*r.lent)[:0]
	for _, f := range r.lines {
		r.joined = append(r.joined, f.line...)
	}
}

// waitFor gives members that are behind a moment: the machine is busy, not they
// slow.
func waitFor(behind []*outbox) {
	timer := time.NewTimer(catchUpTime)
	defer timer.Stop()
	for _, o := range behind {
		if !o.catchUp(timer.C) {
			return
		}
	}
}

// end forgets a round's lines, which everybody has now. It reports whether there
// are more; if not, it gives up the flusher's part.
func (t *talk) end(r *round) (more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range r.lines {
		t.bytes -= len(f.line)
	}
	t.first += uint64(len(r.lines))
	left := copy(t.lines, t.lines[len(r.lines):])
	clear(t.lines[left:])
	if t.lines = t.lines[:left]; left == 0 && cap(t.lines) > mostKept {
		t.lines = nil
	}
	if t.ended != nil {
		close(t.ended)
		t.ended = nil
	}
	t.flushing = left > 0
	return t.flushing
}

// mostKept is how many lines a silent room keeps the memory for.
const mostKept = 64
