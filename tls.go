package main

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"homeroom/certs"
)

const handshakeTime = 10 * time.Second // to get TLS going; less where the time to log in is less

// tlsLink is TLS over a TCP connection. Its records are written as plain lines are, so
// that a slow reader has the same time with TLS as without.
type tlsLink struct {
	*netLink
	tls *tls.Conn

	// the reader's
	first [1]byte // what it waits for
	ended bool    // what comes is not deciphered any more
}

// newTLSLink makes the server's end of TLS; the handshake is to come.
func newTLSLink(conn *net.TCPConn, config *tls.Config) *tlsLink {
	l := &tlsLink{netLink: newNetLink(conn)}
	l.tls = tls.Server(&tlsCarrier{TCPConn: conn, link: l.netLink}, config)
	return l
}

// Open is the handshake.
func (l *tlsLink) Open(limit time.Duration) error {
	defer time.AfterFunc(min(limit, handshakeTime), l.Wake).Stop()
	return l.tls.Handshake()
}

// Receive waits for a byte and takes what came with it, without waiting again.
func (l *tlsLink) Receive() ([]byte, error) {
	if l.ended {
		return l.netLink.Receive()
	}
	if n, err := l.tls.Read(l.first[:]); n == 0 {
		return nil, l.woken(err)
	}
	l.buf = readBuffers.Get().(*[readBuffer]byte)
	l.buf[0] = l.first[0]
	carrier := l.tls.NetConn().(*tlsCarrier)
	carrier.hasty = true
	n, err := l.tls.Read(l.buf[1:])
	carrier.hasty = false
	if errors.Is(err, errNothingYet) || errors.Is(err, os.ErrDeadlineExceeded) { // the next read finds that too
		err = nil
	}
	return l.buf[:1+n], err
}

// Write writes b, a record for each 16 KiB.
func (l *tlsLink) Write(b []byte) (int, error) { return l.tls.Write(b) }

// CloseWrite says goodbye in both protocols.
func (l *tlsLink) CloseWrite() error {
	l.ended = true
	_ = l.tls.CloseWrite() // it fails where there was no handshake, or nobody is there any more
	return l.netLink.CloseWrite()
}

// FD is none: nothing goes out as it is.
func (l *tlsLink) FD() int { return noSocket }

// Private is true.
func (l *tlsLink) Private() bool { return true }

// tlsCarrier is the connection as TLS sees it: deadlines are the link's, and a read
// need not wait.
type tlsCarrier struct {
	*net.TCPConn
	link  *netLink
	hasty bool // reads do not wait
}

// Write is called by TLS: once for each record, by one goroutine at a time.
func (c *tlsCarrier) Write(b []byte) (int, error) { return c.link.Write(b) }

// SetWriteDeadline is called by TLS, and does nothing: the link knows how long a write
// may take.
func (c *tlsCarrier) SetWriteDeadline(time.Time) error { return nil }

// Read is called by TLS when it needs more from the socket.
func (c *tlsCarrier) Read(b []byte) (n int, err error) {
	if !c.hasty {
		return c.TCPConn.Read(b)
	}
	var failed error
	err = c.link.raw.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), b)
		return true
	})
	if err != nil {
		return 0, err
	}
	if failed != nil || n <= 0 { // the end, too, is for the next read to find
		return 0, errNothingYet
	}
	return n, nil
}

// nothingYet says that a read would have to wait. TLS goes on after an error
// that is temporary.
type nothingYet struct{}

func (nothingYet) Error() string   { return "nothing has come yet" }
func (nothingYet) Timeout() bool   { return true }
func (nothingYet) Temporary() bool { return true }

var errNothingYet net.Error = nothingYet{}

// tlsConfig is TLS 1.2 and 1.3, in 1.2 with forward secrecy and authenticated
// encryption only. Records are filled from the start, so that what waits for a
// member is one record and one write. There are no session tickets: whoever got
// hold of their key could read what was said for days.
func tlsConfig(certificates *certs.Keeper) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return certificates.Get(time.Now()), nil
		},
	}
}
