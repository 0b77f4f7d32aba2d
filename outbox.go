package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	sendSlots   = 8                // frames in the send channel; more wait behind it
	maxWaiting  = 256 << 10        // bytes that may wait for one member
	ownWaiting  = 64 << 10         // bytes past which a session's own replies wait for its socket
	stallTime   = 10 * time.Second // time without progress, while bytes wait
	farewell    = time.Second      // time to take the last lines when a session ends
	writeBuffer = 32 << 10         // bytes that the writer joins to one write
)

// outbox is what waits to be sent on a connection, between everyone who has
// something for its user and the one writer. Nobody who sends to others waits:
// frames that find the send channel full wait behind it, bounded in bytes.
type outbox struct {
	conn net.Conn
	raw  syscall.RawConn // conn's, where writing can be tried without waiting; or nil
	send chan *frame     // the buffered send channel; nil in it only wakes the writer

	mu        sync.Mutex
	spill     []*frame // behind the channel, oldest first
	held      []*frame // what others sent while a long reply is being sent; behind spill
	waiting   int      // bytes in the channel, behind it, held and in the writer's hands
	heldBytes int      // the part of waiting that is in held
	streaming bool     // a long reply is being sent
	closed    bool     // nothing is taken any more
	overflow  bool     // the user read too slowly
	wantDrain bool     // somebody waits on drained
	drained   chan struct{}

	failed  atomic.Bool  // the writer gave up
	blocked atomic.Bool  // the writer waits for the socket
	until   atomic.Int64 // when the session ends: the writer's last moment, Unix nanoseconds

	// owned by the writer
	try    func(fd uintptr) bool
	tryBuf []byte
	tryN   int
	tryErr error
}

// newOutbox makes the outbox of a connection; its writer is not running yet.
func newOutbox(conn net.Conn) *outbox {
	o := &outbox{conn: conn, send: make(chan *frame, sendSlots)}
	if tcp, ok := conn.(*net.TCPConn); ok {
		o.raw, _ = tcp.SyscallConn()
	}
	return o
}

// put gives the connection a frame without ever waiting. It reports whether the
// member is behind but reading, so that a sender may slow down. A member past
// its bound is cut off.
func (o *outbox) put(f *frame) (behind bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	if o.waiting += len(f.line); o.waiting > maxWaiting {
		o.cutOff()
		return false
	}
	if o.streaming {
		o.held = append(o.held, f)
		o.heldBytes += len(f.line)
	} else {
		o.enqueue(f)
	}
	return o.waiting > maxWaiting/2 && !o.blocked.Load()
}

// enqueue keeps the order: once something waits behind the channel, all does.
// o.mu is held.
func (o *outbox) enqueue(f *frame) {
	if len(o.spill) == 0 {
		select {
		case o.send <- f:
			return
		default:
		}
	}
	o.spill = append(o.spill, f)
}

// tooSlow is the last that a member hears that did not read.
var tooSlow = warningFrame("you read too slowly; the connection ends")

// cutOff ends a connection whose user does not read; the reader does the rest.
// o.mu is held.
func (o *outbox) cutOff() {
	o.closed, o.overflow = true, true
	o.enqueue(tooSlow)
	o.waiting += len(tooSlow.line)
	o.wakeReader()
}

// wakeReader makes the session's reader come back at once, from the socket or
// from waiting for the writer. o.mu is held.
func (o *outbox) wakeReader() {
	_ = o.conn.SetReadDeadline(time.Unix(1, 0))
	o.drain()
}

// drain wakes who waits for the writer. o.mu is held.
func (o *outbox) drain() {
	if o.wantDrain {
		o.wantDrain = false
		close(o.drained)
	}
}

// readUntil sets the reader's deadline (zero: none) unless the session is to
// end, when the reader has been woken and is to stay so.
func (o *outbox) readUntil(t time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.failed.Load() {
		return errEnded
	}
	return o.conn.SetReadDeadline(t)
}

// end takes a last frame and then nothing any more, and wakes the reader, which
// tears the session down.
func (o *outbox) end(last *frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		o.waiting += len(last.line)
		o.enqueue(last)
	}
	o.wakeReader()
}

// errEnded says that a session's connection is over.
var errEnded = errors.New("the connection has ended")

// putOwn sends a reply of the session's own, or a piece of one; only its reader
// calls it. It waits for the socket while much waits already, and fails when
// the session is to end.
func (o *outbox) putOwn(f *frame) error {
	if err := o.waitForSocket(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting += len(f.line)
	o.enqueue(f)
	return nil
}

// waitForSocket waits until no more than ownWaiting bytes wait to be sent.
func (o *outbox) waitForSocket() error {
	for {
		o.mu.Lock()
		ended := o.closed || o.failed.Load()
		if ended || o.waiting-o.heldBytes <= ownWaiting {
			o.mu.Unlock()
			if ended {
				return errEnded
			}
			return nil
		}
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

// catchUp gives a member that is behind, but whose socket takes more, a moment
// to be served before a sender goes on: bursts must not cut off who reads.
func (o *outbox) catchUp(most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		o.mu.Lock()
		if o.closed || o.blocked.Load() || o.waiting <= maxWaiting/2 {
			o.mu.Unlock()
			return
		}
		drained := o.wait()
		o.mu.Unlock()
		select {
		case <-drained:
		case <-timer.C:
			return
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
		o.enqueue(f)
	}
	o.streaming, o.held, o.heldBytes = false, nil, 0
}

// close ends the writer after what waits. Only the session's reader calls it,
// once.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	last := time.Now().Add(farewell)
	o.until.Store(last.UnixNano())
	_ = o.conn.SetWriteDeadline(last)
	close(o.send)
}

// writeBuffers are lent to writers while they join frames.
var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, writeBuffer); return &b }}

// write is the writer goroutine: it takes all that waits and writes once.
func (o *outbox) write() {
	for open := true; open; {
		var f *frame
		f, open = <-o.send
		for o.writeOnce(f) {
			f = nil
		}
	}
}

// writeOnce writes first, if it is not nil, and what waits behind it, as much as
// goes into one write. It reports whether there may be more.
func (o *outbox) writeOnce(first *frame) bool {
	joined := writeBuffers.Get().(*[]byte)
	defer writeBuffers.Put(joined)
	out := o.take(first, (*joined)[:0])
	if len(out) == 0 {
		return false
	}
	*joined = (*joined)[:0]
	if !o.failed.Load() {
		if err := o.writeAll(out); err != nil {
			o.fail()
		}
	}
	o.sent(len(out))
	return true
}

// fail has the reader end the session: its socket takes nothing any more.
func (o *outbox) fail() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed.Store(true)
	o.wakeReader()
}

// take joins first with the frames that wait, into a buffer of writeBuffer
// bytes; a single frame is not copied.
func (o *outbox) take(first *frame, buf []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if first == nil {
		if first = o.nextFrame(buf, nil); first == nil {
			return nil
		}
	}
	second := o.nextFrame(buf, first)
	if second == nil {
		return first.line
	}
	buf = append(buf, first.line...)
	for f := second; f != nil; f = o.nextFrame(buf, nil) {
		buf = append(buf, f.line...)
	}
	return buf
}

// nextFrame takes the next frame that still fits behind what is in buf and
// first. o.mu is held.
func (o *outbox) nextFrame(buf []byte, first *frame) *frame {
	size := len(buf)
	if first != nil {
		size += len(first.line)
	}
	if size > writeBuffer-2*maxLine {
		return nil
	}
	for len(o.send) > 0 {
		if f := <-o.send; f != nil {
			return f
		}
	}
	if len(o.spill) == 0 {
		return nil
	}
	f := o.spill[0]
	o.spill[0] = nil
	if o.spill = o.spill[1:]; len(o.spill) == 0 {
		o.spill = nil
	}
	return f
}

// sent counts off what was written and wakes who waits for that.
func (o *outbox) sent(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting -= n
	o.drain()
}

// writeAll writes b. It fails when the socket takes nothing for stallTime.
func (o *outbox) writeAll(b []byte) error {
	n, err := o.tryWrite(b)
	if err != nil || n == len(b) {
		return err
	}
	o.blocked.Store(true)
	defer o.blocked.Store(false)
	for b = b[n:]; len(b) > 0; b = b[n:] {
		if err = o.conn.SetWriteDeadline(o.deadline()); err != nil {
			return err
		}
		n, err = o.conn.Write(b)
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
	}
	if o.until.Load() != 0 {
		return nil
	}
	return o.conn.SetWriteDeadline(time.Time{})
}

// deadline is when a write must have got something through.
func (o *outbox) deadline() time.Time {
	t := time.Now().Add(stallTime)
	if until := o.until.Load(); until != 0 && until < t.UnixNano() {
		t = time.Unix(0, until)
	}
	return t
}

// tryWrite writes what the socket takes at once, without setting a deadline.
func (o *outbox) tryWrite(b []byte) (int, error) {
	if o.raw == nil {
		return 0, nil
	}
	if o.try == nil {
		o.try = o.tryFD
	}
	o.tryBuf = b
	err := o.raw.Write(o.try)
	o.tryBuf = nil
	if err == nil {
		err = o.tryErr
	}
	return o.tryN, err
}

// tryFD is one write system call; it never asks to be called again.
func (o *outbox) tryFD(fd uintptr) bool {
	n, err := syscall.Write(int(fd), o.tryBuf)
	if err == syscall.EAGAIN || err == syscall.EINTR {
		n, err = 0, nil
	}
	o.tryN, o.tryErr = max(n, 0), err
	return true
}
