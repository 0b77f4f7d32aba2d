package main

import (
	"context"
	"crypto/tls"
	"homeroom/certs"
	"log/slog"
	"net"
	"sync"
	"time"
)

// listen opens the ports.
func (srv *server) listen(ctx context.Context) error {
	l, err := listenTCP(ctx, srv.cfg.Server.Listen)
	if err != nil {
		return err
	}
	srv.mu.Lock()
	srv.listener = l
	srv.mu.Unlock()
	srv.listenControl()
	if err := srv.listenWeb(ctx); err != nil {
		return err
	}
	if srv.cfg.TLS.Listen == "" {
		return nil
	}
	return srv.listenTLS(ctx)
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

// certificateOptions says which certificate the settings ask for.
func (c *config) certificateOptions() certs.Options {
	found := c.foundHost()
	return certs.Options{
		Cert: c.TLS.Cert, Key: c.TLS.Key, Folder: c.Server.Data, Earliest: firstWall, Log: slog.Default(),
		Names: func() certs.Names { return machineNames(found) },
	}
}

// sayTLS logs where to connect with TLS, and what its certificate is.
func (srv *server) sayTLS() {
	if srv.tlsListener == nil {
		return
	}
	slog.Info("listening with TLS on "+srv.tlsListener.Addr().String(),
		"fingerprint", certs.Fingerprint(srv.certificates.Get(time.Now())))
}

// accept serves whoever connects, until the listeners are closed.
func (srv *server) accept() error {
	var other sync.WaitGroup
	if srv.tlsListener != nil {
		other.Go(func() { srv.acceptOn(srv.tlsListener, srv.tlsConfig) })
	}
	if srv.web != nil {
		other.Go(srv.web.serve)
	}
	srv.acceptOn(srv.listener, nil)
	other.Wait()
	return nil
}

// acceptOn serves who connects to one listener; with TLS where a config is
// given.
func (srv *server) acceptOn(l net.Listener, secure *tls.Config) {
	patient := &patientListener{Listener: l}
	for {
		conn, err := patient.Accept()
		if err != nil {
			return
		}
		if tcp, ok := conn.(*net.TCPConn); ok && secure != nil {
			srv.admit(newTLSLink(tcp, secure))
		} else {
			srv.serve(conn)
		}
	}
}

// serve starts a session on a plain connection, if the limits allow it.
func (srv *server) serve(conn net.Conn) { srv.admit(newNetLink(conn)) }

// admit starts a session on a link, if the limits allow it.
func (srv *server) admit(l link) {
	s := newSession(srv, l)
	if refusal := srv.admission.admit(source(l.Peer()), &s.ticket); refusal != "" {
		refuse(l, refusal)
		return
	}
	srv.begin(s)
}

// begin starts the reader of a session that was let in, unless the server is
// stopping.
func (srv *server) begin(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.stopping {
		srv.admission.leave(&s.ticket)
		s.link.Close()
		return
	}
	srv.sessions[s] = true
	srv.running.Go(s.serve)
}

// refuse tells the other end why it is not served, unless that would cost a handshake.
// One line fits into any fresh socket, so this does not wait.
func refuse(l link, why string) {
	if !l.Private() {
		l.EndBy(time.Now().Add(farewell))
		_, _ = l.Write(warningFrame(why).show(lookProgram))
	}
	l.Close()
}

// gone forgets a session whose connection is closed.
func (srv *server) gone(s *session) {
	srv.admission.leave(&s.ticket)
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
}
