package main

import (
	"net/netip"
	"slices"
	"sync"
	"time"
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
type ipCount struct {
	key netip.Prefix // its source; fixed when it is made

	// guarded by the admission's mu
	open       int
	asking     []*session // those that have not logged in; the longest first
	forgetting bool       // soon

	mu   sync.Mutex
	full time.Time // when its connections together will have all their commands again
}

// spend takes one of the commands that the connections of an address have together:
// what so many would have that stay. A new connection has all its commands, so
// without this who comes again and again would have as many as he likes.
func (c *ipCount) spend(rate, burst, connections int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	each := float64(time.Second) / float64(rate) / float64(connections)
	full := c.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(time.Duration(each))
	if float64(full.Sub(now)) > each*float64(burst)*float64(connections) {
		return false
	}
	c.full = full
	return true
}

// fullIn is the time until nothing is spent.
func (c *ipCount) fullIn() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Until(c.full)
}

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

// source is what counts as one address, of a connection from one to another: an
// IPv4 address, an IPv6 /64 of the internet. On a local network all machines share
// a /64, the server too, so there it is one address as well.
func source(from, to netip.Addr) netip.Prefix {
	bits := from.BitLen()
	if from.Is6() && from.IsGlobalUnicast() && !from.IsPrivate() {
		bits = 64
	}
	p, _ := from.Prefix(bits)
	if bits == 64 && p.Contains(to) {
		p, _ = from.Prefix(128)
	}
	return p
}

// displaced is the last that a connection hears that has given way to another one.
var displaced = warningFrame("others are waiting to log in; the connection ends")

// admit counts a new connection in, or says why not.
func (a *admission) admit(s *session) (refusal string) {
	refusal, old := a.count(s)
	if old != nil {
		old.end(displaced)
	}
	return refusal
}

// count is admit. It returns the session that is to end, if it was counted out in
// favour of the new one.
func (a *admission) count(s *session) (refusal string, old *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := source(s.addr, addressOf(s.conn.LocalAddr()))
	ip := a.byIP[key]
	if ip == nil {
		ip = &ipCount{key: key}
	}
	past := func(n, limit int) bool { return limit > 0 && n >= limit }
	switch {
	case past(a.open, a.limits.all):
		return "the server is full; try again later", nil
	case past(ip.open, a.limits.perIP):
		return "too many connections from your address", nil
	case past(len(ip.asking), a.limits.waitingPerIP):
		return "too many connections from your address are waiting to log in", nil
	case past(a.asking, a.limits.waiting):
		if old = a.longestAsking(len(ip.asking) + 1); old == nil {
			return "too many connections are waiting to log in; try again later", nil
		}
		a.setAsking(old, false)
	}
	a.byIP[key] = ip
	a.open++
	ip.open++
	s.share = ip
	a.setAsking(s, true)
	return "", old
}

// longestAsking is the session that has not logged in for longest, of the address
// with the most of them, if that has more than so many; else nil. Who has several
// addresses cannot keep everybody else out then. a.mu is held.
func (a *admission) longestAsking(most int) (s *session) {
	for _, ip := range a.byIP {
		if len(ip.asking) > most {
			s, most = ip.asking[0], len(ip.asking)
		}
	}
	return s
}

// loggedIn takes a session off those that have not logged in.
func (a *admission) loggedIn(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setAsking(s, false)
}

// loggedOut puts it back there.
func (a *admission) loggedOut(s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setAsking(s, true)
}

// setAsking counts a session among those that have not logged in, or no more. a.mu
// is held.
func (a *admission) setAsking(s *session, asking bool) {
	ip := s.share
	switch {
	case s.asking == asking:
	case asking:
		a.asking++
		ip.asking = append(ip.asking, s)
	default:
		a.asking--
		ip.asking = slices.DeleteFunc(ip.asking, func(other *session) bool { return other == s })
	}
	s.asking = asking
}

// leave counts a connection out.
func (a *admission) leave(s *session) {
	if s.host {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setAsking(s, false)
	a.open--
	if s.share.open--; s.share.open == 0 {
		a.forget(s.share)
	}
}

// forget drops the share of an address that has no connection any more, once that
// gives it nothing back. a.mu is held.
func (a *admission) forget(ip *ipCount) {
	wait := ip.fullIn()
	if wait <= 0 {
		delete(a.byIP, ip.key)
		return
	}
	if ip.forgetting {
		return
	}
	ip.forgetting = true
	time.AfterFunc(wait, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if ip.forgetting = false; ip.open == 0 && a.byIP[ip.key] == ip {
			a.forget(ip)
		}
	})
}
