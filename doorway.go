package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	"homeroom/certs"
)

// doorway is where connections come in, and those that are being served.
type doorway struct {
	admission   *admission
	controlling sync.WaitGroup // accepts on the control socket

	mu           sync.Mutex
	listener     net.Listener
	tlsListener  net.Listener  // nil: no TLS
	certificates *certs.Keeper // nil: no TLS
	tlsConfig    *tls.Config   // nil: no TLS
	control      net.Listener  // nil: no control socket
	web          *webServer    // nil: no web listener
	sessions     map[*session]bool
	stopping     bool
	running      sync.WaitGroup // readers
}

func newDoorway(cfg *config) doorway {
	return doorway{admission: newAdmission(cfg), sessions: map[*session]bool{}}
}

// begin starts the reader of a session that was let in, unless the server is
// stopping.
func (d *doorway) begin(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		d.admission.leave(&s.ticket)
		s.link.Close()
		return
	}
	d.sessions[s] = true
	d.running.Go(s.serve)
}

// gone forgets a session whose link is closed.
func (d *doorway) gone(s *session) {
	d.admission.leave(&s.ticket)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, s)
}

// each does something with every session, which must not wait: the doorway is held.
func (d *doorway) each(f func(*session)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s := range d.sessions {
		f(s)
	}
}

// stopTime is how long the sessions have to end by themselves when the server stops.
const stopTime = 3 * time.Second

// close lets nobody in any more and ends all sessions, with a last frame.
func (d *doorway) close(last *frame) {
	d.mu.Lock()
	d.stopping = true
	for _, l := range []net.Listener{d.listener, d.tlsListener} {
		if l != nil {
			l.Close()
		}
	}
	d.mu.Unlock()
	d.each(func(s *session) { s.end(last) })
	defer time.AfterFunc(stopTime, func() { d.each((*session).cut) }).Stop()
	d.running.Wait()
}

// listen opens the ports.
func (srv *server) listen(ctx context.Context) error {
	l, err := listenTCP(ctx, srv.cfg.Server.Listen)
	if err != nil {
		return err
	}
	d := &srv.doorway
	d.mu.Lock()
	d.listener = l
	d.mu.Unlock()
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
	d := &srv.doorway
	d.mu.Lock()
	d.tlsListener = l
	d.mu.Unlock()
	if d.certificates, err = certs.Open(srv.cfg.certificateOptions(), time.Now()); err != nil {
		return err
	}
	d.tlsConfig = tlsConfig(d.certificates)
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

// sayTLS logs where to connect with TLS, and its certificate's fingerprint.
func (srv *server) sayTLS() {
	if srv.doorway.tlsListener == nil {
		return
	}
	slog.Info("listening with TLS on "+srv.doorway.tlsListener.Addr().String(),
		"fingerprint", certs.Fingerprint(srv.doorway.certificates.Get(time.Now())))
}

// accept serves whoever connects, until the listeners are closed.
func (srv *server) accept() error {
	var other sync.WaitGroup
	if srv.doorway.tlsListener != nil {
		other.Go(func() { srv.acceptOn(srv.doorway.tlsListener, srv.doorway.tlsConfig) })
	}
	if srv.doorway.web != nil {
		other.Go(srv.doorway.web.serve)
	}
	srv.acceptOn(srv.doorway.listener, nil)
	other.Wait()
	return nil
}

// acceptOn serves the connections of one listener; with TLS where a config is
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
	if refusal := srv.doorway.admission.admit(source(l.Peer()), &s.ticket); refusal != "" {
		refuse(l, refusal)
		return
	}
	srv.doorway.begin(s)
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

// endSessions ends every session for which a rule holds, with a last frame.
func (srv *server) endSessions(last *frame, which func(*session, *identity) bool) {
	srv.doorway.each(func(s *session) {
		if which(s, s.who.Load()) {
			s.end(last)
		}
	})
}
