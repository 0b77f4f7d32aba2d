package main

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noSocket is the descriptor of what is not TCP, or is closed.
const noSocket = -1

// socketOf is the descriptor of a TCP connection. It must not be used once the
// connection is closed: its number may be another's then.
func socketOf(conn net.Conn) (fd int) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return noSocket
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		err = raw.Control(func(number uintptr) { fd = int(number) })
	}
	if err != nil { // it is closed already
		return noSocket
	}
	return fd
}

// writeAll writes b, sealed where the connection has TLS, and counts it off as it
// goes.
func (o *outbox) writeAll(b []byte) error {
	if o.seal != nil {
		defer o.wrote(len(b))
		_, err := o.seal.Write(b)
		return err
	}
	for len(b) > 0 {
		piece := b[:min(len(b), writeBuffer)]
		if err := o.writeRaw(piece); err != nil {
			o.wrote(len(b))
			return err
		}
		o.wrote(len(piece))
		b = b[len(piece):]
	}
	return nil
}

// wrote counts off what waits no longer.
func (o *outbox) wrote(n int) {
	o.written.Add(int64(n))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting -= n
	o.drain()
}

// writeRaw writes b to the socket. It fails when the socket takes nothing for
// stallTime.
func (o *outbox) writeRaw(b []byte) error {
	if o.failed.Load() {
		return nil
	}
	n, err := o.tryWrite(b)
	if err != nil || n == len(b) {
		return err
	}
	o.setBlocked(true)
	defer o.setBlocked(false)
	for b = b[n:]; len(b) > 0; b = b[n:] {
		if err = o.extend(); err != nil {
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

// setBlocked notes whether the socket takes nothing: then the member is slow, not
// the server, and nobody has to wait for it.
func (o *outbox) setBlocked(yes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocked = yes
	o.drain()
}

// extend gives the next write its time.
func (o *outbox) extend() error {
	o.mu.Lock() // close may set an earlier one
	defer o.mu.Unlock()
	return o.conn.SetWriteDeadline(o.deadline())
}

// deadline is when a write must have got something through.
func (o *outbox) deadline() time.Time {
	t := time.Now().Add(stallTime)
	if until := o.until.Load(); until != 0 && until < t.UnixNano() {
		t = time.Unix(0, until)
	}
	return t
}

// tryWrite writes what the socket takes at once, without setting a deadline. The
// socket does not block, so the one system call is over in microseconds: RawSyscall
// spares the scheduler's accounts of calls that might take long, a tenth of its cost;
// sendto spares what write does for files, and the descriptor what net does for
// calls that wait. (A 32-bit Intel kernel before 4.3 has no sendto; there the writer
// serves everybody.)
func (o *outbox) tryWrite(b []byte) (int, error) {
	if o.fd == noSocket || o.failed.Load() {
		return 0, nil
	}
	first := unsafe.Pointer(unsafe.SliceData(b))
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(o.fd), uintptr(first), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno == 0 {
		return int(n), nil
	}
	return 0, sendError(errno)
}

// sendError is what an outbox hears of a send that failed: nothing where the socket
// only takes nothing now.
func sendError(errno syscall.Errno) error {
	switch errno {
	case syscall.EAGAIN, syscall.EINTR, syscall.ENOSYS:
		return nil
	}
	return errno
}
