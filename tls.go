package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"homeroom/certs"
)

const (
	tlsRecord     = 16 << 10         // bytes that one TLS record holds
	handshakeTime = 10 * time.Second // to get TLS going; less where the time to log in is less
)

// tlsLink is TLS on a TCP connection. What TLS writes goes through the outbox,
// so that a slow reader has the same time with TLS as without. Closing the
// session's TCP connection closes it at once.
type tlsLink struct {
	*net.TCPConn
	tls *tls.Conn
	raw syscall.RawConn
	out atomic.Pointer[outbox] // nil: during the handshake

	// owned by the reader
	first [1]byte // what it waits for
	hasty bool    // reads do not wait
}

// newTLSLink makes the server's end of TLS; the handshake is to come.
func newTLSLink(conn *net.TCPConn, config *tls.Config) *tlsLink {
	l := &tlsLink{TCPConn: conn}
	l.raw, _ = conn.SyscallConn() // it fails on a nil connection only
	l.tls = tls.Server(l, config)
	return l
}

// Write is called by TLS: once for each record, by one goroutine at a time.
func (l *tlsLink) Write(b []byte) (int, error) {
	out := l.out.Load()
	if out == nil {
		return l.TCPConn.Write(b)
	}
	if err := out.writeRaw(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetWriteDeadline is called by TLS, and does nothing: the outbox knows how long
// a write may take.
func (l *tlsLink) SetWriteDeadline(time.Time) error { return nil }

// Read is called by TLS when it needs more from the socket.
func (l *tlsLink) Read(b []byte) (n int, err error) {
	if !l.hasty {
		return l.TCPConn.Read(b)
	}
	var failed error
	err = l.raw.Read(func(fd uintptr) bool {
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

// readOn takes what has come already, without waiting.
func (l *tlsLink) readOn(b []byte) (int, error) {
	l.hasty = true
	n, err := l.tls.Read(b)
	l.hasty = false
	if errors.Is(err, errNothingYet) || errors.Is(err, os.ErrDeadlineExceeded) { // the next read finds that too
		err = nil
	}
	return n, err
}

// handshake gets TLS going. Who speaks something else is told so.
func (s *session) handshake() error {
	end := time.Now().Add(handshakeTime)
	if grace := s.srv.settings().Limits.LoginGrace.Duration; grace > 0 {
		end = time.Now().Add(min(grace, handshakeTime))
	}
	if err := s.out.readUntil(end); err != nil {
		return err
	}
	if err := s.conn.SetWriteDeadline(end); err != nil {
		return err
	}
	if err := s.link.tls.Handshake(); err != nil {
		var other tls.RecordHeaderError
		if errors.As(err, &other) && other.Conn != nil {
			_, _ = s.conn.Write(warningFrame("this port speaks TLS only").show(lookProgram)) // it may be gone
		}
		return err
	}
	s.link.out.Store(s.out)
	return s.conn.SetWriteDeadline(noDeadline)
}

// certificateOptions says which certificate the settings ask for.
func (c *config) certificateOptions() certs.Options {
	found := c.foundHost()
	return certs.Options{
		Cert: c.TLS.Cert, Key: c.TLS.Key, Folder: c.Server.Data, Earliest: firstWall, Log: slog.Default(),
		Names: func() certs.Names { return machineNames(found) },
	}
}

// listenTLS opens the port for TLS, and has its certificate at hand.
func (srv *server) listenTLS(ctx context.Context) error {
	l, err := listenTCP(ctx, srv.cfg.TLS.Listen)
	if err != nil {
		return err
	}
	srv.mu.Lock()
	srv.tlsListener = l
	srv.mu.Unlock()
	if srv.certificates, err = certs.Open(srv.cfg.certificateOptions(), time.Now()); err != nil {
		return err
	}
	srv.tlsConfig = tlsConfig(srv.certificates)
	return nil
}

// sayTLS logs where to connect with TLS, and what its certificate is.
func (srv *server) sayTLS() {
	if srv.tlsListener == nil {
		return
	}
	slog.Info("listening with TLS on "+srv.tlsListener.Addr().String(),
		"fingerprint", certs.Fingerprint(srv.certificates.Get(time.Now())))
}

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
