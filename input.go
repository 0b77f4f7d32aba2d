package main

import (
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"
)

// readBuffer is how many bytes are taken off a socket at a time.
const readBuffer = 4096

// readBuffers are lent to connections while they have something to read.
var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// input reads a connection. On TCP it has no buffer while nothing comes: it
// waits for the socket first and then borrows one. With TLS it waits for one
// byte.
type input struct {
	raw    syscall.RawConn // nil: not TCP alone
	readFD func(uintptr) bool
	buf    *[readBuffer]byte // borrowed
	n      int
	err    error
}

// open is for connections without TLS.
func (in *input) open(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		in.raw, _ = tcp.SyscallConn()
		in.readFD = in.tryRead
	}
}

// read waits for bytes and returns them; they are valid until release. link is
// TLS over conn, or nil.
func (in *input) read(conn net.Conn, link *tlsLink) ([]byte, error) {
	if link != nil {
		return in.readTLS(link)
	}
	if in.raw == nil {
		in.buf = readBuffers.Get().(*[readBuffer]byte)
		n, err := conn.Read(in.buf[:])
		return in.buf[:n], err
	}
	if err := in.raw.Read(in.readFD); err != nil {
		return nil, err
	}
	if in.n == 0 && in.err == nil {
		in.err = io.EOF
	}
	return in.buf[:in.n], in.err
}

// tryRead is one read system call; false waits for the socket. The socket does not
// block: with Read in place of RawSyscall the scheduler's watchdog would wake, and
// then look 50 times a millisecond whether the call is over.
func (in *input) tryRead(fd uintptr) bool {
	buf := readBuffers.Get().(*[readBuffer]byte)
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(buf)), readBuffer)
	switch errno {
	case 0:
		in.buf, in.n, in.err = buf, int(n), nil
		return true
	case syscall.EAGAIN, syscall.EINTR:
		readBuffers.Put(buf)
		return false
	}
	in.buf, in.n, in.err = buf, 0, errno
	return true
}

// readTLS waits for a byte and takes what came with it, without waiting again.
func (in *input) readTLS(link *tlsLink) ([]byte, error) {
	if n, err := link.tls.Read(link.first[:]); n == 0 {
		return nil, err
	}
	in.buf = readBuffers.Get().(*[readBuffer]byte)
	in.buf[0] = link.first[0]
	n, err := link.readOn(in.buf[1:])
	return in.buf[:1+n], err
}

// release gives the buffer back.
func (in *input) release() {
	if in.buf != nil {
		readBuffers.Put(in.buf)
		in.buf = nil
	}
}
