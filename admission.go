package main

import (
	"net/netip"
	"sync"
)

// admission counts connections, in all and for each address, and refuses those
// past the limits.
type admission struct {
	mu     sync.Mutex
	limits admissionLimits
	open   int
	asking int // have not logged in
	byIP   map[netip.Prefix]*ipCount
}

// admissionLimits are 0 where there is none.
type admissionLimits struct{ all, perIP, waiting, waitingPerIP int }

// ipCount is one address's share.
type ipCount struct{ open, asking int }

func newAdmission(c *config) *admission {
	a := &admission{byIP: map[netip.Prefix]*ipCount{}}
	a.configure(c)
	return a
}

// configure takes over limits, which hold for who connects from now on.
func (a *admission) configure(c *config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := &c.Limits
	a.limits = admissionLimits{l.Connections, l.ConnectionsPerIP, l.Waiting, l.WaitingPerIP}
}

// newAdmissionOf counts connections of another kind, up to so many.
func newAdmissionOf(all, perIP int) *admission {
	return &admission{limits: admissionLimits{all: all, perIP: perIP}, byIP: map[netip.Prefix]*ipCount{}}
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
	case past(a.open, a.limits.all):
		return "the server is full; try again later"
	case past(ip.open, a.limits.perIP):
		return "too many connections from your address"
	case past(a.asking, a.limits.waiting):
		return "too many connections are waiting to log in; try again later"
	case past(ip.asking, a.limits.waitingPerIP):
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
