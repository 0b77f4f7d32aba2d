package main

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// link is one end of a connection, whatever carries it: TCP, TLS, a unix socket, a
// pipe. The session's reader opens it, receives and closes it; one goroutine at a
// time writes.
type link interface {
	// Open makes the link ready for lines: a handshake, say. It gives up after limit.
	Open(limit time.Duration) error

	// Receive waits for bytes and returns them. They hold until Release: the buffer
	// is borrowed once they have come, so that an idle connection has none. A Wake
	// has it fail with errWoken.
	Receive() ([]byte, error)
	Release()

	// Write writes all of b. It fails when the other end takes nothing for stallTime,
	// or at the moment that EndBy has set.
	io.WriteCloser

	// OnStall has f told, by a Write, that the other end takes nothing, and that it
	// takes more again. It is called before anything is written.
	OnStall(f func(stalled bool))

	// EndBy gives all writes a last moment; the earliest one holds.
	EndBy(last time.Time)

	// Wake has the Receive that waits, or else the next one, come back at once, and
	// WakeAt at a moment; zero: not any more. Only the last of them counts.
	Wake()
	WakeAt(t time.Time)

	// CloseWrite says that nothing more comes. What is received afterwards is to be
	// thrown away.
	CloseWrite() error

	// Peer returns the addresses of the two ends; invalid where there are none.
	Peer() (from, to netip.Addr)

	// FD is the socket, where a line may be written to it as it is and without
	// waiting; otherwise noSocket: all writes are the writer's.
	FD() int

	// Private reports whether nobody on the way can read what goes over the link.
	Private() bool
}

// noSocket is the descriptor of a link that has none, or whose socket is closed.
const noSocket = -1

// errWoken is what Receive returns after a Wake.
var errWoken = errors.New("the reader was woken")

// readBuffer is how many bytes are taken off a link at a time.
const readBuffer = 4096

// readBuffers are lent to links while they have something to read.
var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// netLink is a link over a connection of package net. On TCP it waits for the socket
// without a buffer, and tries a write before it sets a deadline for it.
type netLink struct {
	conn    net.Conn
	fd      int             // its socket, until Close; noSocket: it is not TCP
	raw     syscall.RawConn // nil: it is not TCP
	readFD  func(uintptr) bool
	stalled func(bool)

	// the reader's
	buf   *[readBuffer]byte // borrowed
	n     int
	errno syscall.Errno // of the read

	mu   sync.Mutex
	last int64 // the last moment of all writes, Unix nanoseconds; 0: none is set
}

// newNetLink makes the link over a connection.
func newNetLink(conn net.Conn) *netLink {
	l := &netLink{conn: conn, fd: noSocket}
	if tcp, ok := conn.(*net.TCPConn); ok {
		l.raw, _ = tcp.SyscallConn() // it fails on a nil connection only
		l.readFD = l.tryRead
		if l.raw.Control(func(number uintptr) { l.fd = int(number) }) != nil {
			l.fd = noSocket // it is closed already
		}
	}
	return l
}

// Open has nothing to do.
func (l *netLink) Open(time.Duration) error { return nil }

// Receive waits for bytes. They hold until Release.
func (l *netLink) Receive() (came []byte, err error) {
	l.n = 0
	if l.raw == nil {
		l.buf = readBuffers.Get().(*[readBuffer]byte)
		l.n, err = l.conn.Read(l.buf[:])
	} else if err = l.raw.Read(l.readFD); err == nil && l.n == 0 {
		if err = io.EOF; l.errno != 0 {
			err = l.errno
		}
	}
	if l.n == 0 {
		return nil, l.woken(err)
	}
	return l.buf[:l.n], err
}

// woken is what an error of a read means to the reader. Only a Wake sets a deadline; it
// is taken back before the reader looks at what it was woken for, so no Wake is lost.
func (l *netLink) woken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = l.conn.SetReadDeadline(time.Time{}) // the next read finds out why it fails
		return errWoken
	}
	return err
}

// tryRead is one read system call; false waits for the socket. The socket does not
// block: with Read in place of RawSyscall the scheduler's watchdog would wake, and
// then look 50 times a millisecond whether the call is over.
func (l *netLink) tryRead(fd uintptr) bool {
	buf := readBuffers.Get().(*[readBuffer]byte)
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(buf)), readBuffer)
	switch errno {
	case 0:
		l.buf, l.n, l.errno = buf, int(n), 0
		return true
	case syscall.EAGAIN, syscall.EINTR:
		readBuffers.Put(buf)
		return false
	}
	l.buf, l.errno = buf, errno
	return true
}

// Release gives the buffer of Receive back.
func (l *netLink) Release() {
	if l.buf != nil {
		readBuffers.Put(l.buf)
		l.buf = nil
	}
}

// Write writes b. Nearly always the socket takes all of it at once, and no deadline
// has to be set.
func (l *netLink) Write(b []byte) (n int, err error) {
	if l.fd != noSocket {
		if n, err = sendNow(l.fd, b); err != nil || n == len(b) {
			return n, err
		}
	}
	if l.stalled != nil {
		l.stalled(true)
		defer l.stalled(false)
	}
	for n < len(b) {
		if err := l.patience(time.Now().Add(stallTime)); err != nil {
			return n, err
		}
		more, err := l.conn.Write(b[n:])
		n += more
		if err != nil && (more == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return n, err
		}
	}
	return n, l.patience(time.Time{})
}

// patience sets the deadline of the next write, unless the last moment is earlier.
func (l *netLink) patience(deadline time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := time.Unix(0, l.last); l.last != 0 && (deadline.IsZero() || last.Before(deadline)) {
		deadline = last
	}
	return l.conn.SetWriteDeadline(deadline)
}

// OnStall has f told when the other end takes nothing, and when it does again.
func (l *netLink) OnStall(f func(bool)) { l.stalled = f }

// EndBy gives all writes a last moment.
func (l *netLink) EndBy(last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == 0 || last.UnixNano() < l.last {
		l.last = last.UnixNano()
		_ = l.conn.SetWriteDeadline(last) // the next write finds out why it fails
	}
}

// Wake has the reader come back at once.
func (l *netLink) Wake() { l.WakeAt(time.Unix(1, 0)) }

// WakeAt has the reader come back at a moment.
func (l *netLink) WakeAt(t time.Time) {
	_ = l.conn.SetReadDeadline(t) // where that fails the next read does
}

// CloseWrite says that nothing more comes. A pipe cannot be closed by half.
func (l *netLink) CloseWrite() error {
	half, ok := l.conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Close closes the connection; its socket's number may be another's then.
func (l *netLink) Close() error { return l.conn.Close() }

// Peer returns the addresses of the two ends.
func (l *netLink) Peer() (from, to netip.Addr) {
	return addressOf(l.conn.RemoteAddr()), addressOf(l.conn.LocalAddr())
}

// FD is the socket, of TCP.
func (l *netLink) FD() int { return l.fd }

// Private is false: whoever is on the way can read everything.
func (l *netLink) Private() bool { return false }
