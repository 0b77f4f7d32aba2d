// Package mdns announces services on the local network, and finds them, by
// multicast DNS (RFC 6762) with service discovery (RFC 6763), so that people need
// no addresses: a host has a name under .local, a service a name of its own.
//
// Announce starts a Responder, and Close takes back what it has announced. Browse
// asks the network for services of one type.
//
// # The responder
//
// One goroutine has all the state. It waits for packets, for one timer, and for word
// from the kernel (netlink) that interfaces have changed; while nobody asks, it
// sleeps. A link is an interface by IPv4 or IPv6, with records of its own.
//
// On each link the responder probes three times whether its names are free (0.75 s),
// announces them twice, and then answers. If two hosts probe at once, the one whose
// records sort later wins. A name that is taken gets a number: homeroom-2.local,
// Homeroom (2). After 15 conflicts without a quiet time in between it tries once a
// minute. When interfaces change, it looks at them again and, if something is
// different, starts over. Addresses of this machine's own interfaces never conflict:
// two of them may be on one network, and another responder here (Avahi, say) may
// announce the same; the port is shared with it.
//
// # Strangers
//
// Packets from addresses that are not on the link are dropped, and of each socket
// 500 are read in a second. A record goes to everybody at most once a second, an answer
// to a single asker at most 20 times a second. Unknown or broken records are
// skipped.
//
// # Limits
//
// The instance name of a service cannot hold a dot, because of the DNS library: it
// becomes a hyphen. Known answers that are spread over several packets are not
// understood, and a unicast answer that is asked for is sent by multicast.
package mdns

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
)

// Port is the UDP port of multicast DNS, for questions and answers.
const Port = 5353

// MaxLabel is how many bytes a part of a name can have.
const MaxLabel = 63

// Service is a service as others see it.
type Service struct {
	Type string // such as _http._tcp
	Port uint16
	Text []string // key=value
}

// Options says what to announce, and where.
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

// Close withdraws the announcement, and returns when the responder has ended.
func (r *Responder) Close() {
	close(r.stop)
	r.tasks.Wait()
}
