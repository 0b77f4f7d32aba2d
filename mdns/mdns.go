// Package mdns announces services on the local network, and finds them, by
// multicast DNS (RFC 6762) with service discovery (RFC 6763), so that people need
// no addresses: a host has a name under .local, a service a name of its own.
//
// Announce probes for the names first and takes others where they are in use, as in
// homeroom-2.local; then it answers for them on every network that the machine is
// on, follows changes of the interfaces, and gives the names back at Close. While
// nobody asks, it sleeps. Browse asks the network for services of one type.
package mdns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
)

// Port is the UDP port of multicast DNS, of responders and of those who ask.
const Port = 5353

// MaxLabel is how many bytes a part of a name can have.
const MaxLabel = 63

// Service is a service as others see it.
type Service struct {
	Type string // such as _http._tcp
	Port uint16
	Text []string // key=value
}

// Options is what to announce.
type Options struct {
	Host     string // the machine's name, without .local
	Instance string // the services' name
	Services []Service
	Reach    func(netip.Addr) bool // reports whether the services can be reached at an address of this machine
	Log      *slog.Logger
}

// Responder announces services until it is closed.
type Responder struct {
	stop  chan struct{}
	tasks sync.WaitGroup
}

// Announce starts a responder. It fails where the port cannot be had.
func Announce(o Options) (*Responder, error) {
	s, err := openSockets(o.Log)
	if err != nil {
		return nil, fmt.Errorf("announcing on the network: %w", err)
	}
	kernel, err := watchInterfaces()
	if err != nil {
		s.close()
		return nil, fmt.Errorf("announcing on the network: %w", err)
	}
	a := newAnnouncer(o)
	a.scan = func() []link { return s.links(o.Reach) }
	a.send = s.send
	r := &Responder{stop: make(chan struct{})}
	changed := make(chan struct{}, 1)
	r.tasks.Go(func() { tellChanges(kernel, changed) })
	r.tasks.Go(func() {
		a.run(r.stop, s.packets, changed)
		kernel.Close()
		s.close()
	})
	return r, nil
}

// Close takes back what was announced, and returns when nothing of the responder
// runs any more.
func (r *Responder) Close() {
	close(r.stop)
	r.tasks.Wait()
}
