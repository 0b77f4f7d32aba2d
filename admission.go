package main

import (
	"net/netip"
	"sync"
)

// admission counts connections, in all and for each address, and refuses those
// past the limits.
type admission struct {
	all, perIP, waiting, waitingPerIP int // limits; 0: none

	mu     sync.Mutex
	open   int
	asking int // have not logged in
	byIP   map[netip.Prefix]*ipCount
}

// ipCount is one address's share.
type ipCount struct{ open, asking int }

func newAdmission(c *config) *admission {
	l := &c.Limits
	return &admission{
		all: l.Connections, perIP: l.ConnectionsPerIP, waiting: l.Waiting, waitingPerIP: l.WaitingPerIP,
		byIP: map[netip.Prefix]*ipCount{},
	}
}

// newAdmissionOf counts connections of another kind, up to so many.
func newAdmissionOf(all, perIP int) *admission {
	return &admission{all: all, perIP: perIP, byIP: map[netip.Prefix]*ipCount{}}
}

// source is what counts as one address: an IPv4 address, an IPv6 /64 of the
// internet. On a local network all machines share a /64, so there it is one
// address too.
func source(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && a.IsGlobalUnicast() && !a.IsPrivate() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// admit counts a new connection in, or says why not.
func (a *admission) admit(from netip.Addr) (refusal string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := source(from)
	ip := a.byIP[key]
	if ip == nil {
		ip = new(ipCount)
	}
	past := func(n, limit int) bool { return limit > 0 && n >= limit }
	switch {
	case past(a.open, a.all):
		return "the server is full; try again later"
	case past(ip.open, a.perIP):
		return "too many connections from your address"
	case past(a.asking, a.waiting):
		return "too many connections are waiting to log in; try again later"
	case past(ip.asking, a.waitingPerIP):
		return "too many connections from your address are waiting to log in"
	}
	a.byIP[key] = ip
	a.open++
	a.asking++
	ip.open++
	ip.asking++
	return ""
}

// loggedIn takes a session off those that have not logged in.
func (a *admission) loggedIn(s *session) { a.setWaiting(s, false, -1) }

// loggedOut puts it back there.
func (a *admission) loggedOut(s *session) { a.setWaiting(s, true, 1) }

func (a *admission) setWaiting(s *session, waiting bool, change int) {
	if s.waiting == waiting {
		return
	}
	s.waiting = waiting
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asking += change
	a.byIP[source(s.addr)].asking += change
}

// leave counts a connection out.
func (a *admission) leave(s *session) {
	if s.host {
		return
	}
	a.loggedIn(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
	key := source(s.addr)
	if ip := a.byIP[key]; ip.open > 1 {
		ip.open--
	} else {
		delete(a.byIP, key)
	}
}
