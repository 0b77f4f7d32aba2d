package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"homeroom/mdns"
)

// The types of services that are announced.
const (
	chatService = "_homeroom._tcp"
	webService  = "_http._tcp"
)

// openPorts are the addresses at which a server listens; not valid: not there.
type openPorts struct{ plain, tls, web netip.AddrPort }

// portsOf is where this server listens.
func (srv *server) portsOf() openPorts {
	srv.doorway.mu.Lock()
	defer srv.doorway.mu.Unlock()
	ports := openPorts{plain: listenedAt(srv.doorway.listener), tls: listenedAt(srv.doorway.tlsListener)}
	if srv.doorway.web != nil {
		ports.web = listenedAt(srv.doorway.web.listener)
	}
	return ports
}

// listenedAt is where a listener can be reached over a network.
func listenedAt(l net.Listener) netip.AddrPort {
	if l == nil {
		return netip.AddrPort{}
	}
	return publicAddress(l.Addr())
}

// reach reports whether one of the ports is open on an address.
func (p openPorts) reach(ip netip.Addr) bool {
	for _, at := range []netip.AddrPort{p.plain, p.tls, p.web} {
		open := at.Addr()
		if open == netip.IPv6Unspecified() || open == netip.IPv4Unspecified() && ip.Is4() || open.IsValid() && open.WithZone("") == ip {
			return true
		}
	}
	return false
}

// services are announced: the chat, and the web page. Where only the
// port for TLS is open to the network, that is where to chat.
func (p openPorts) services() (all []mdns.Service) {
	if p.plain.IsValid() || p.tls.IsValid() {
		chat := mdns.Service{Type: chatService, Port: p.plain.Port(), Text: []string{"txtvers=1", "protocol=" + protocolVersion, "version=" + version}}
		if p.tls.IsValid() {
			chat.Text = append(chat.Text, fmt.Sprintf("tls=%d", p.tls.Port()))
		}
		if !p.plain.IsValid() {
			chat.Port = p.tls.Port()
		}
		all = append(all, chat)
	}
	if p.web.IsValid() {
		all = append(all, mdns.Service{Type: webService, Port: p.web.Port(), Text: []string{"txtvers=1", "path=/"}})
	}
	return all
}

// beFound announces the server on the network, until it stops. Where that cannot be
// done, all else works.
func (srv *server) beFound() {
	ports := srv.portsOf()
	if srv.cfg.foundHost() == "" || len(ports.services()) == 0 {
		return
	}
	responder, err := mdns.Announce(mdns.Options{
		Host: srv.cfg.Find.Name, Instance: srv.cfg.Server.Name, Services: ports.services(), Reach: ports.reach, Log: slog.Default(),
	})
	if err != nil {
		slog.Warn("the server cannot be found by name on the network; all else works", "error", err)
		return
	}
	srv.life.run(func(stop <-chan struct{}) {
		<-stop
		responder.Close()
	})
}
