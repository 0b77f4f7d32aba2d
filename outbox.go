package main

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	sendSlots   = 8                // frames in the send channel; more wait behind it
	maxWaiting  = 256 << 10        // bytes that may wait for one member
	ownWaiting  = 64 << 10         // bytes past which a session's own replies wait for its socket
	stallTime   = 10 * time.Second // time without progress, while bytes wait
	farewell    = time.Second      // time to take the last lines when a session ends
	writeBuffer = 32 << 10         // bytes that are joined to one write
)

// hands says who may write on the socket just now.
type hands uint8

const (
	handsNone    hands = iota // nobody does; whoever flushes may
	handsFlusher              // somebody who flushes, without ever waiting
	handsWriter               // the writer goroutine: it may wait for the socket
)

// outbox is what waits to be sent on a connection, between everyone who has
// something for its user and the one writer. Nobody who sends to others waits.
//
// While the socket takes everything, frames are staged and whoever staged them
// flushes: one try, which saves waking the writer. Once the socket does not, and
// for frames that are simply put, the writer has the socket: frames go to it
// through the send channel, those that find it full wait behind it, and when
// nothing is left the writer lets go again. It ends then, its channel with it:
// parked, the two would cost each idle connection a third of its memory.
type outbox struct {
	link   link
	fd     int            // the link's, while it is open
	writer sync.WaitGroup // the writer goroutine, while there is one

	written *atomic.Int64 // bytes, on all connections

	mu        sync.Mutex
	send      chan []byte // the buffered send channel; nil: there is no writer
	spill     [][]byte    // staged, or behind the channel; oldest first, from spillAt on
	spillAt   int
	held      [][]byte // what others sent while a long reply is being sent; behind spill
	waiting   int      // bytes in the channel, in spill, held and being written
	heldBytes int      // the part of waiting that is in held
	hands     hands
	streaming bool // a long reply is being sent
	closed    bool // nothing is taken any more
	wantDrain bool // somebody waits on drained
	drained   chan struct{}

	room  *talk  // whose lines it gets; nil: none
	seat  int    // where it is among the room's members; guarded by the talk's mu
	heard uint64 // how far it has had them

	blocked bool // the other end takes nothing: the writer waits for it

	behind atomic.Bool // the member did not read
	failed atomic.Bool // writing failed: what is left is thrown away
}

// newOutbox makes the outbox of a link; what it writes is counted.
func newOutbox(l link, written *atomic.Int64) *outbox {
	o := &outbox{link: l, fd: l.FD(), written: written}
	l.OnStall(o.setBlocked)
	return o
}

// put gives the connection a frame by way of its writer, without ever waiting.
func (o *outbox) put(f *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := f.show(lookProgram); o.accept(b) {
		o.enqueue(b)
		o.callWriter()
	}
}

// hear takes those of its room's lines that it has not had. o.mu is held.
func (o *outbox) hear(room *talk, now said) {
	if !o.lacks(room, now) {
		return
	}
	i := len(now.lines)
	for at := now.end(); at > o.heard; at -= uint64(len(now.lines[i])) {
		i--
	}
	for _, f := range now.lines[i:] {
		if o.accept(f) {
			o.enqueue(f)
		}
	}
	o.heard = now.end()
}

// lacks tells whether it has not had all that its room has said. o.mu is held.
func (o *outbox) lacks(room *talk, now said) bool {
	return o.room == room && o.heard < now.end()
}

// offer brings what its room says. Where that may be written at once, it returns
// the bytes: whoever writes them has the socket until it calls offered. It reports
// whether the member is behind although it reads, so that the room may slow down.
func (o *outbox) offer(room *talk, now said) (fresh []byte, behind bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lacks(room, now) && o.isIdle() {
		fresh = now.joined[o.heard-now.start:]
		o.heard = now.end()
		o.waiting += len(fresh)
		o.hands = handsFlusher
		return fresh, false
	}
	o.hear(room, now)
	o.flushStaged()
	return nil, o.isBehind()
}

// offered hears what came of writing what offer returned, and writes what was
// staged meanwhile.
func (o *outbox) offered(line []byte, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(line, n, err)
	o.flushRest()
}

// isIdle tells whether what comes now may be written at once. o.mu is held.
func (o *outbox) isIdle() bool {
	return o.hands == handsNone && o.spilled() == 0 && !o.isOver() && !o.streaming && o.fd != noSocket
}

// isBehind tells whether much waits although the socket takes more. o.mu is
// held.
func (o *outbox) isBehind() bool {
	return o.waiting-o.heldBytes > maxWaiting/2 && !o.closed && !o.blocked
}

// accept counts a frame of somebody else's. It reports whether it is to be
// enqueued now: not while a long reply is being sent, and not when the session
// ends. A member past its bound is cut off. o.mu is held.
func (o *outbox) accept(f []byte) bool {
	if o.closed {
		return false
	}
	if o.waiting+len(f) > maxWaiting {
		o.behind.Store(true)
		o.last(tooSlow.show(lookProgram))
		return false
	}
	o.waiting += len(f)
	if o.streaming {
		o.held = append(o.held, f)
		o.heldBytes += len(f)
		return false
	}
	return true
}

// enqueue keeps the order: the channel is the writer's, and once something waits
// behind it, all does. o.mu is held.
func (o *outbox) enqueue(f []byte) {
	if o.hands == handsWriter && o.spilled() == 0 {
		select {
		case o.send <- f:
			return
		default:
		}
	}
	o.spill = append(o.spill, f)
}

// callWriter gives the socket to the writer if nobody has it. o.mu is held.
func (o *outbox) callWriter() {
	if o.hands == handsNone && o.spilled() > 0 {
		o.startWriter(o.pop())
	}
}

// startWriter gives the socket to a writer, with the first frame to write. o.mu
// is held.
func (o *outbox) startWriter(first []byte) {
	o.hands = handsWriter
	o.send = make(chan []byte, sendSlots)
	o.send <- first
	o.writer.Go(o.write)
}

// spilled is how many frames are in spill. o.mu is held.
func (o *outbox) spilled() int { return len(o.spill) - o.spillAt }

// pop takes the oldest frame of spill, whose memory is used again unless it has
// grown. o.mu is held.
func (o *outbox) pop() []byte {
	f := o.spill[o.spillAt]
	o.spill[o.spillAt] = nil
	if o.spillAt++; o.spillAt == len(o.spill) {
		o.spill, o.spillAt = o.spill[:0], 0
		if cap(o.spill) > sendSlots {
			o.spill = nil
		}
	}
	return f
}

// tooSlow is the last that a member hears that did not read.
var tooSlow = warningFrame("you read too slowly; the connection ends")

// last takes a last frame and then nothing any more, and has the reader end the
// session. o.mu is held.
func (o *outbox) last(f []byte) {
	if !o.closed {
		o.closed = true
		o.link.EndBy(time.Now().Add(stallTime)) // whatever holds its reader up
		o.waiting += len(f)
		o.enqueue(f)
		o.callWriter()
	}
	o.wakeReader()
}

// end takes a last frame and has the reader end the session.
func (o *outbox) end(f *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last(f.show(lookProgram))
}

// wakeReader makes the session's reader come back at once, from the socket or
// from waiting for the writer. o.mu is held.
func (o *outbox) wakeReader() {
	o.link.Wake()
	o.drain()
}

// drain wakes who waits for the socket. o.mu is held.
func (o *outbox) drain() {
	if o.wantDrain {
		o.wantDrain = false
		close(o.drained)
	}
}

// wait returns a channel that is closed after the next write. o.mu is held.
func (o *outbox) wait() <-chan struct{} {
	if !o.wantDrain {
		o.wantDrain, o.drained = true, make(chan struct{})
	}
	return o.drained
}

// ending reports whether the session is to end.
func (o *outbox) ending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.isOver()
}

// errEnded says that a session's connection is over.
var errEnded = errors.New("the connection has ended")

// stageOwn stages a reply of the session's own, or a piece of one; only its
// reader calls it, and flushes. It does not while much waits already, or when
// the session is to end: then waitForSocket says which.
func (o *outbox) stageOwn(f []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isOver() || o.waiting-o.heldBytes > ownWaiting {
		return false
	}
	o.waiting += len(f)
	o.enqueue(f)
	return true
}

// isOver tells whether the session is to end. o.mu is held.
func (o *outbox) isOver() bool { return o.closed || o.failed.Load() }

// waitForSocket waits until no more than ownWaiting bytes wait to be sent.
func (o *outbox) waitForSocket() error {
	for {
		o.mu.Lock()
		ended := o.isOver()
		if ended || o.waiting-o.heldBytes <= ownWaiting {
			o.mu.Unlock()
			if ended {
				return errEnded
			}
			return nil
		}
		o.callWriter()
		drained := o.wait()
		o.mu.Unlock()
		<-drained
	}
}

// catchUp gives a member that is behind, but whose socket takes more, a moment
// to be served before a sender goes on: bursts must not cut off who reads. It
// reports false when the time is over.
func (o *outbox) catchUp(over <-chan time.Time) bool {
	for {
		o.mu.Lock()
		if !o.isBehind() {
			o.mu.Unlock()
			return true
		}
		o.callWriter()
		drained := o.wait()
		o.mu.Unlock()
		select {
		case <-drained:
		case <-over:
			return false
		}
	}
}

// beginStream starts a reply that comes in pieces: until endStream, what others
// send is held back.
func (o *outbox) beginStream() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streaming = true
}

// endStream lets what others sent meanwhile follow the long reply.
func (o *outbox) endStream() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.held {
		if !o.closed { // nothing comes after the last line
			o.enqueue(f)
		}
	}
	o.streaming, o.held, o.heldBytes = false, nil, 0
}

// close writes what waits and returns when that is done, or the time for it is
// over. Only the session's reader calls it, once.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.link.EndBy(time.Now().Add(farewell))
	for o.hands == handsFlusher { // for the time of one try
		drained := o.wait()
		o.mu.Unlock()
		<-drained
		o.mu.Lock()
	}
	o.callWriter()
	o.mu.Unlock()
	o.writer.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fd = noSocket // it may be closed now
}

// writeBuffers are lent to who writes while frames are joined.
var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, writeBuffer); return &b }}

// flush writes what is staged if nobody else has the socket, without waiting for
// it: what the socket does not take, the writer gets.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushStaged()
}

// flushStaged is flush. o.mu is held.
func (o *outbox) flushStaged() {
	switch {
	case o.hands != handsNone || o.spilled() == 0:
	case o.fd == noSocket:
		o.callWriter()
	default:
		o.hands = handsFlusher
		o.flushRest()
	}
}

// flushRest makes writes of what is staged until that is all written, or the
// socket takes no more. o.mu is held, and o.hands is handsFlusher.
func (o *outbox) flushRest() {
	for o.hands == handsFlusher {
		if o.spilled() == 1 {
			o.try(o.pop())
			continue
		}
		joined := writeBuffers.Get().(*[]byte)
		o.try(o.take((*joined)[:0]))
		writeBuffers.Put(joined)
	}
}

// try makes one write. o.mu is held, but not while it writes, and o.hands is
// handsFlusher.
func (o *outbox) try(out []byte) {
	o.mu.Unlock()
	n, err := o.tryWrite(out)
	o.mu.Lock()
	o.settle(out, n, err)
}

// settle notes that the socket took n bytes of out. With nothing left nobody has the
// socket any more; with something that it did not take, the writer has. o.mu is held,
// and o.hands is handsFlusher.
func (o *outbox) settle(out []byte, n int, err error) {
	o.written.Add(int64(n))
	if err != nil {
		o.fail()
		n = len(out)
	}
	o.waiting -= n
	o.drain()
	switch {
	case n < len(out):
		o.startWriter(append([]byte(nil), out[n:]...))
	case o.spilled() == 0:
		o.hands = handsNone
	}
}

// write is the writer goroutine: it takes all that waits and writes once, until
// nothing waits any more.
func (o *outbox) write() {
	for o.writeOnce() {
		continue
	}
}

// writeOnce writes what waits, as much as goes into one write. With nothing left
// it lets go of the socket and reports false.
func (o *outbox) writeOnce() bool {
	joined := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(joined)
	o.mu.Lock()
	out := o.take((*joined)[:0])
	if len(out) == 0 {
		o.hands, o.send = handsNone, nil
		o.mu.Unlock()
		return false
	}
	o.mu.Unlock()
	if err := o.writeAll(out); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.behind.Store(true)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.fail()
	}
	return true
}

// fail has the reader end the session: its socket takes nothing any more. o.mu
// is held.
func (o *outbox) fail() {
	o.failed.Store(true)
	o.wakeReader()
}

// take joins the frames that wait, into a buffer of writeBuffer bytes; a single
// frame is not copied. o.mu is held.
func (o *outbox) take(buf []byte) []byte {
	first := o.next(0)
	if first == nil {
		return nil
	}
	second := o.next(len(first))
	if second == nil {
		return first
	}
	buf = append(buf, first...)
	for f := second; f != nil; f = o.next(len(buf)) {
		buf = append(buf, f...)
	}
	return buf
}

// next takes the next frame, if it is to go behind so many bytes in one write.
// o.mu is held.
func (o *outbox) next(behind int) []byte {
	if behind > writeBuffer-replyChunk {
		return nil
	}
	if len(o.send) > 0 {
		return <-o.send
	}
	if o.spilled() == 0 {
		return nil
	}
	return o.pop()
}

// replyChunk is how much of a long reply is sent at a time.
const replyChunk = 8 << 10
