package main

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The server of 2001 had one buffer for each connection, a flag that told whether it was
// full, and a mutex around both: its authors called what came of that "the SetSendBuff
// issue". A thread that found the flag set must not keep the mutex, or the send thread
// never empties the buffer; so it unlocked and locked again, round and round, until the
// send thread had had its turn. Everybody who had something for a slow reader went
// round with it.
//
// Here a connection's buffer is a queue with two ends, a buffered channel: many put in,
// one takes out, and nobody who puts in waits.
//
//	everybody ──add──► batch ──handOver──► send ──► writer ──► socket
//	                  joined here        8 batches   a goroutine, which may wait for it
//
// Bytes are joined to a batch. A full batch goes into the send channel; the writer, when
// it has nothing else, takes one that is not full. So what came while a socket was busy
// leaves in one write. A member whose channel is full is too slow, and cut off; a
// session's own replies wait long before that, with nobody else (waitForSocket).
//
// A socket usually takes everything at once, and waking a goroutine costs as much as the
// write. So there is a writer only while there is something for it, and whoever has
// staged something may try one write, without waiting:
//
//	               flush, claim                     all of it was taken
//	      ┌─────────────────────────► trying ───────────────────────────┐
//	    idle ◄──────────────────────────────────────────────────────────┘
//	    │  ▲                             │ a part was not
//	    │  └────── nothing is left ───┐  ▼
//	    └──────── callWriter ───────► writing
//
// A try begins in idle only: then the channel is empty and there is no writer, so the
// batch is all that waits, and nothing can overtake it. Meanwhile others join the next
// batch. In each of the three states, while a long reply is streaming, what others send is
// held behind it; and once the outbox is closed nothing is added: what waits is written,
// and the writer ends.

const (
	batchSize  = 32 << 10              // bytes that are joined to a batch
	sendSlots  = 8                     // batches in the send channel
	maxWaiting = sendSlots * batchSize // bytes that may wait for one member
	ownWaiting = 2 * batchSize         // bytes past which a session's own replies wait for its socket
	leastBatch = 128                   // bytes that there is memory for when two things are joined
	stallTime  = 10 * time.Second      // time without progress, while bytes wait
	farewell   = time.Second           // time to take the last lines when a session ends
)

// hands says who may write on the socket just now.
type hands uint8

const (
	idle    hands = iota // nobody does; whoever flushes may
	trying               // somebody who flushes, without ever waiting
	writing              // the writer goroutine: it may wait for the socket
)

// outbox is the way out of a connection, for everyone who has something for its user.
type outbox struct {
	// fixed when it is made
	link    link
	fd      int           // the link's, while it is open: where writing is tried without waiting; or noSocket
	written *atomic.Int64 // bytes, on all connections
	writer  sync.WaitGroup

	mu        sync.Mutex
	batch     []byte      // the newest of what waits
	send      chan []byte // the older batches; nil: there is no writer
	held      []byte      // what others sent during a long reply; it goes behind batch
	look      look        // how lines are shown; not changed any more once it joins a talk
	hands     hands
	streaming bool // a long reply is being sent
	closed    bool // nothing is taken any more
	blocked   bool // the other end takes nothing: the writer waits for it
	wantDrain bool // somebody waits on drained
	drained   chan struct{}

	room  *talk  // whose lines it gets; nil: none
	heard uint64 // how many of them it has had
	seat  int    // where it is among the room's members; guarded by the talk's mu

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
	o.receive(f.show(o.look))
	o.callWriter()
}

// receive takes what somebody else has for the user. While a long reply is being sent,
// that is held back; a member whose channel is full is cut off. o.mu is held.
func (o *outbox) receive(b []byte) {
	switch {
	case o.closed:
	case o.queued()+len(o.held) >= maxWaiting:
		o.behind.Store(true)
		o.last(tooSlow)
	case o.streaming:
		o.held = append(o.held, b...)
	default:
		o.add(b)
	}
}

// queued is how many bytes wait for the writer, where each batch in the channel counts
// as a full one. o.mu is held.
func (o *outbox) queued() int { return len(o.send)*batchSize + len(o.batch) }

// add joins b to the batch. What makes it too long goes into a new one, where there is
// a writer to take the old one. o.mu is held.
func (o *outbox) add(b []byte) {
	if o.hands == writing && len(o.batch)+len(b) > batchSize {
		o.handOver()
	}
	if need := len(o.batch) + len(b); need > cap(o.batch) {
		size := leastBatch
		for size < need && size < batchSize {
			size *= 4
		}
		o.batch = append(make([]byte, 0, max(size, need)), o.batch...)
	}
	o.batch = append(o.batch, b...)
}

// handOver puts the batch into the send channel, in pieces if there was no writer when it
// grew too long. What finds the channel full stays. o.mu is held.
func (o *outbox) handOver() {
	for len(o.batch) > 0 && len(o.send) < sendSlots {
		n := min(len(o.batch), batchSize)
		o.send <- o.batch[:n:n]
		o.batch = o.batch[n:]
	}
	if len(o.batch) == 0 {
		o.batch = nil // its memory is the writer's now
	}
}

// callWriter starts a writer if something waits and nobody writes. o.mu is held.
func (o *outbox) callWriter() {
	if o.hands == idle && len(o.batch) > 0 {
		o.hands, o.send = writing, make(chan []byte, sendSlots)
		o.handOver()
		send := o.send
		o.writer.Go(func() { o.write(send) })
	}
}

// write is the writer goroutine: it writes a batch at a time until nothing is left.
func (o *outbox) write(send <-chan []byte) {
	for batch := range send {
		if err := o.writeAll(batch); err != nil {
			o.writeFailed(err)
		}
		o.refill()
	}
}

// writeAll writes a batch and counts it. Once a write has failed it throws the rest away.
func (o *outbox) writeAll(b []byte) error {
	o.written.Add(int64(len(b)))
	if o.failed.Load() {
		return nil
	}
	_, err := o.link.Write(b)
	return err
}

// setBlocked notes whether the other end takes nothing: then the member is slow, not the
// server, and nobody has to wait for it. The link calls it.
func (o *outbox) setBlocked(yes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocked = yes
	o.drain()
}

// refill hands over what has come while the writer wrote, if its channel is empty. With
// nothing left it closes the channel, and the writer ends: parked, the two would cost
// each idle connection a third of its memory.
func (o *outbox) refill() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drain()
	if len(o.send) == 0 || len(o.batch) >= batchSize {
		o.handOver()
	}
	if len(o.send) == 0 {
		close(o.send)
		o.hands, o.send = idle, nil
	}
}

// writeFailed has the reader end the session: its socket takes nothing any more.
func (o *outbox) writeFailed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		o.behind.Store(true)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail()
}

// fail is writeFailed for a socket that is broken. o.mu is held.
func (o *outbox) fail() {
	o.failed.Store(true)
	o.wakeReader()
}

// flush writes what is staged, if nobody writes, without waiting for the socket.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushStaged()
}

// flushStaged is flush. o.mu is held, but not while it writes.
func (o *outbox) flushStaged() {
	if !o.mayTry() {
		o.callWriter()
		return
	}
	for o.hands == idle && len(o.batch) > 0 {
		out := o.batch
		o.batch, o.hands = nil, trying
		o.mu.Unlock()
		n, err := o.tryWrite(out)
		o.mu.Lock()
		o.settle(out, n, err)
	}
}

// mayTry reports whether writing can be tried without waiting.
func (o *outbox) mayTry() bool { return o.fd != noSocket }

// tryWrite writes what the socket takes at once.
func (o *outbox) tryWrite(b []byte) (int, error) {
	if o.fd == noSocket || o.failed.Load() {
		return 0, nil
	}
	return sendNow(o.fd, b)
}

// settle ends a try: the socket has taken n bytes of out. What it did not take, the
// writer gets, before what has come meanwhile. o.mu is held.
func (o *outbox) settle(out []byte, n int, err error) {
	o.written.Add(int64(n))
	o.hands = idle
	o.drain()
	switch {
	case err != nil:
		o.fail()
	case n < len(out):
		o.batch = slices.Concat(out[n:], o.batch)
		o.callWriter()
	}
}

// claim brings what is pending of what its room says. Where that may be tried at once,
// it returns the bytes: whoever writes them has the socket until it calls tried. It
// reports whether the member is behind although it reads, so that the room may slow down.
func (o *outbox) claim(room *talk, now pending) (fresh []byte, behind bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hands == idle && len(o.batch) == 0 && o.lacks(room, now) && o.mayTry() && !o.streaming && !o.isOver() {
		fresh = now.after(o.heard)
		o.heard, o.hands = now.end(), trying
		return fresh, false
	}
	o.hear(room, now)
	o.flushStaged()
	return nil, o.isBehind()
}

// tried ends the try of what claim returned, and writes what was staged meanwhile.
func (o *outbox) tried(fresh []byte, n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(fresh, n, err)
	o.flushStaged()
}

// hear takes what is pending of what its room says. o.mu is held.
func (o *outbox) hear(room *talk, now pending) {
	if o.lacks(room, now) {
		o.receive(now.after(o.heard))
		o.heard = now.end()
	}
}

// lacks reports whether it has not had all that its room has said. o.mu is held.
func (o *outbox) lacks(room *talk, now pending) bool {
	return o.room == room && o.heard < now.end()
}

// isBehind reports whether much waits although the socket takes more. o.mu is held.
func (o *outbox) isBehind() bool {
	return o.queued() > maxWaiting/2 && !o.closed && !o.blocked
}

// waitWhileBehind gives a member that is behind, but whose socket takes more, a moment
// to be served before a sender goes on: bursts must not cut off members that read. It
// reports false when the time is over.
func (o *outbox) waitWhileBehind(over <-chan time.Time) bool {
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

// stageOwn stages a reply of the session's own, or a piece of one, which is not changed
// any more; only its reader calls it, and flushes. It reports false while much waits
// already, or when the session is to end: then waitForSocket says which.
func (o *outbox) stageOwn(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.isOver() || o.queued() > ownWaiting:
		return false
	case len(o.batch) == 0:
		o.batch = b[:len(b):len(b)] // not copied until something is joined to it
	default:
		o.add(b)
	}
	return true
}

// waitForSocket waits until no more than ownWaiting bytes wait to be sent.
func (o *outbox) waitForSocket() error {
	for {
		o.mu.Lock()
		ended := o.isOver()
		if ended || o.queued() <= ownWaiting {
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

// wait returns a channel that is closed after the next write. o.mu is held.
func (o *outbox) wait() <-chan struct{} {
	if !o.wantDrain {
		o.wantDrain, o.drained = true, make(chan struct{})
	}
	return o.drained
}

// drain wakes whoever waits for the socket. o.mu is held.
func (o *outbox) drain() {
	if o.wantDrain {
		o.wantDrain = false
		close(o.drained)
	}
}

// beginStream starts a reply that comes in pieces: until endStream, what others send
// is held back.
func (o *outbox) beginStream() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streaming = true
}

// endStream lets what others sent meanwhile follow the long reply.
func (o *outbox) endStream() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed { // nothing comes after the last line
		o.add(o.held)
	}
	o.streaming, o.held = false, nil
}

// errEnded says that a session's connection is over.
var errEnded = errors.New("the connection has ended")

// isOver reports whether the session is to end. o.mu is held.
func (o *outbox) isOver() bool { return o.closed || o.failed.Load() }

// tooSlow is the last line that a member gets that did not read.
var tooSlow = warningFrame("you read too slowly; the connection ends")

// end takes a last frame and has the reader end the session.
func (o *outbox) end(f *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last(f)
}

// last takes a last frame and then nothing any more, and has the reader end the
// session. o.mu is held.
func (o *outbox) last(f *frame) {
	if !o.closed {
		o.closed = true
		o.link.EndBy(time.Now().Add(stallTime)) // whatever holds its reader up
		o.add(f.show(o.look))
		o.callWriter()
	}
	o.wakeReader()
}

// wakeReader makes the session's reader come back at once, from the socket or from
// waiting for the writer. o.mu is held.
func (o *outbox) wakeReader() {
	o.link.Wake()
	o.drain()
}

// ending reports whether the session is to end.
func (o *outbox) ending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.isOver()
}

// close writes what waits and returns when that is done, or the time for it is over.
// Only the session's reader calls it, once.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.link.EndBy(time.Now().Add(farewell))
	for o.hands == trying { // for the time of one try
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

// setLook has everything shown in another look from now on. Only its session's reader
// calls it, before it joins a talk.
func (o *outbox) setLook(l look) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.look = l
}
