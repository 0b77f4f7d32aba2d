package main

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// readBuffer is how many bytes are taken off a socket at a time.
const readBuffer = 4096

// readBuffers are lent to connections while they have something to read.
var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// input reads a connection. On TCP it has no buffer while nothing comes: it
// waits for the socket first and then borrows one. With TLS it waits for one
// byte.
type input struct {
	conn   net.Conn
	raw    syscall.RawConn // nil: not TCP alone
	readFD func(uintptr) bool
	link   *tlsLink // nil: no TLS
	first  [1]byte
	buf    *[readBuffer]byte // borrowed
	n      int
	err    error
}

func (in *input) open(conn net.Conn) {
	in.conn = conn
	if tcp, ok := conn.(*net.TCPConn); ok {
		in.raw, _ = tcp.SyscallConn()
		in.readFD = in.tryRead
	}
}

// openTLS is open for a connection with TLS.
func (in *input) openTLS(link *tlsLink) { in.conn, in.link = link.tls, link }

// read waits for bytes and returns them; they are valid until release.
func (in *input) read() ([]byte, error) {
	if in.link != nil {
		return in.readTLS()
	}
	if in.raw == nil {
		in.buf = readBuffers.Get().(*[readBuffer]byte)
		n, err := in.conn.Read(in.buf[:])
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

// tryRead is one read system call; false waits for the socket.
func (in *input) tryRead(fd uintptr) bool {
	buf := readBuffers.Get().(*[readBuffer]byte)
	n, err := syscall.Read(int(fd), buf[:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		readBuffers.Put(buf)
		return false
	}
	in.buf, in.n, in.err = buf, max(n, 0), err
	return true
}

// readTLS waits for a byte and takes what came with it, without waiting again.
func (in *input) readTLS() ([]byte, error) {
	if n, err := in.conn.Read(in.first[:]); n == 0 {
		return nil, err
	}
	in.buf = readBuffers.Get().(*[readBuffer]byte)
	in.buf[0] = in.first[0]
	n, err := in.link.readOn(in.buf[1:])
	return in.buf[:1+n], err
}

// release gives the buffer back.
func (in *input) release() {
	if in.buf != nil {
		readBuffers.Put(in.buf)
		in.buf = nil
	}
}
