package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// openPorts is where a server listens; not valid: not there.
type openPorts struct{ plain, tls, web netip.AddrPort }

// portsOf is where this server listens.
func (srv *server) portsOf() openPorts {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	ports := openPorts{plain: listenedAt(srv.listener), tls: listenedAt(srv.tlsListener)}
	if srv.web != nil {
		ports.web = listenedAt(srv.web.listener)
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

// reach tells whether one of the ports is open on an address.
func (p openPorts) reach(ip netip.Addr) bool {
	for _, at := range []netip.AddrPort{p.plain, p.tls, p.web} {
		open := at.Addr()
		if open == netip.IPv6Unspecified() || open == netip.IPv4Unspecified() && ip.Is4() || open.IsValid() && open.WithZone("") == ip {
			return true
		}
	}
	return false
}

// services is what is announced: where to chat, and the web page. Where only the
// port for TLS is open to the network, that is where to chat.
func (p openPorts) services() (all []netService) {
	if p.plain.IsValid() || p.tls.IsValid() {
		chat := netService{kind: chatService, port: p.plain.Port(), text: []string{"txtvers=1", "protocol=" + protocolVersion, "version=" + version}}
		if p.tls.IsValid() {
			chat.text = append(chat.text, fmt.Sprintf("tls=%d", p.tls.Port()))
		}
		if !p.plain.IsValid() {
			chat.port = p.tls.Port()
		}
		all = append(all, chat)
	}
	if p.web.IsValid() {
		all = append(all, netService{kind: webService, port: p.web.Port(), text: []string{"txtvers=1", "path=/"}})
	}
	return all
}

// foundHost is the host name that the settings ask for, such as homeroom.local; "":
// none.
func (c *config) foundHost() string {
	if !c.Find.Announce || c.Find.Name == "" {
		return ""
	}
	return strings.ToLower(c.Find.Name) + ".local"
}

// beFound announces the server on the network, until it stops. Where that cannot be
// done, all else works.
func (srv *server) beFound(ctx context.Context) {
	ports := srv.portsOf()
	if srv.cfg.foundHost() == "" || len(ports.services()) == 0 {
		return
	}
	sockets, err := openMDNS(ctx)
	if err == nil {
		kernel, watchErr := watchInterfaces()
		if err = watchErr; err == nil {
			a := newAnnouncer(srv.cfg.Server.Name, srv.cfg.Find.Name, ports, sockets)
			srv.background.Go(func() { a.serve(sockets, kernel, srv.stopBackground) })
			return
		}
		sockets.close()
	}
	slog.Warn("the server cannot be found by name on the network; all else works", "error", err)
}

// newAnnouncer makes what announces a server of this name with these ports.
func newAnnouncer(name, host string, ports openPorts, sockets *mdnsSockets) *announcer {
	return &announcer{
		services: ports.services(),
		scan:     func() []mdnsLink { return sockets.links(ports.reach) },
		send:     sockets.send,
		names:    netNames{host: strings.ToLower(host), instance: name, hostNumber: 1, instanceNumber: 1},
	}
}

// serve announces until stop is closed, then closes what it was given.
func (a *announcer) serve(sockets *mdnsSockets, kernel *os.File, stop <-chan struct{}) {
	changed := make(chan struct{}, 1)
	var watcher sync.WaitGroup
	watcher.Go(func() { tellChanges(kernel, changed) })
	a.run(stop, sockets.packets, changed)
	kernel.Close()
	sockets.close()
	watcher.Wait()
}
