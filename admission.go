package main

import (
	"maps"
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
	lately map[netip.Prefix]time.Time // when somebody last logged in to an account there
}

// admissionLimits are 0 where there is none.
type admissionLimits struct{ all, perIP, waiting, waitingPerIP int }

// ipCount is one address's share.
type ipCount struct {
	key netip.Prefix // its source; fixed when it is made

	// guarded by the admission's mu
	open       int
	asking     []*ticket // those that have not logged in; the longest first
	forgetting bool      // soon

	mu   sync.Mutex
	full time.Time // when its connections together will have all their commands again
}

// spend takes a token out of the bucket that the connections of an address share, which
// is as large as those of so many connections that stay. A new connection has a full
// bucket of its own, so without this reconnecting would make commands unlimited.
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

// ticket is what a connection is counted by.
type ticket struct {
	share    *ipCount // what the connections of its address have together; nil: it is not counted
	displace func()   // ends it in favour of another one; nil: it is never asked to log in
	asking   bool     // it counts among those that have not logged in; guarded by the admission's mu
}

func newAdmission(c *config) *admission {
	a := &admission{byIP: map[netip.Prefix]*ipCount{}, lately: map[netip.Prefix]time.Time{}}
	a.configure(c)
	return a
}

// configure takes over limits, which hold for connections from now on.
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

const (
	latelyTime = 7 * 24 * time.Hour // that an address is remembered where somebody logged in to an account
	maxLately  = 10_000             // such addresses
)

// remember notes that somebody has logged in to an account at an address.
func (a *admission) remember(from netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if _, there := a.lately[from]; !there && len(a.lately) >= maxLately {
		a.forgetLately(now)
	}
	a.lately[from] = now
}

// forgetLately makes room: addresses that are long ago go, or else the oldest tenth. a.mu is
// held.
func (a *admission) forgetLately(now time.Time) {
	oldest := slices.SortedFunc(maps.Keys(a.lately), func(x, y netip.Prefix) int { return a.lately[x].Compare(a.lately[y]) })
	for i, from := range oldest {
		if i < maxLately/10 || now.Sub(a.lately[from]) > latelyTime {
			delete(a.lately, from)
		}
	}
}

// remembers reports whether somebody has lately logged in to an account at an address.
func (a *admission) remembers(from netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.knows(from)
}

// knows is remembers. a.mu is held.
func (a *admission) knows(from netip.Prefix) bool {
	at, there := a.lately[from]
	return there && time.Since(at) <= latelyTime
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
func (a *admission) admit(from netip.Prefix, t *ticket) (refusal string) {
	refusal, old := a.count(from, t)
	if old != nil {
		old.displace()
	}
	return refusal
}

// count is admit. It returns the connection that is to end, if it was counted out in
// favour of the new one.
func (a *admission) count(key netip.Prefix, t *ticket) (refusal string, old *ticket) {
	a.mu.Lock()
	defer a.mu.Unlock()
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
	t.share = ip
	a.setAsking(t, true)
	return "", old
}

// longestAsking is the connection that has not logged in for longest, of the address
// with the most of them, if that has more than so many; else nil. So a client with
// several addresses cannot keep everybody else out. a.mu is held.
func (a *admission) longestAsking(most int) (t *ticket) {
	for _, ip := range a.byIP {
		if len(ip.asking) > most {
			t, most = ip.asking[0], len(ip.asking)
		}
	}
	return t
}

// loggedIn takes a connection off those that have not logged in.
func (a *admission) loggedIn(t *ticket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setAsking(t, false)
}

// loggedOut puts it back there.
func (a *admission) loggedOut(t *ticket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setAsking(t, true)
}

// setAsking counts a connection among those that have not logged in, or no more. a.mu
// is held.
func (a *admission) setAsking(t *ticket, asking bool) {
	ip := t.share
	switch {
	case t.asking == asking:
	case asking:
		a.asking++
		ip.asking = append(ip.asking, t)
	default:
		a.asking--
		ip.asking = slices.DeleteFunc(ip.asking, func(other *ticket) bool { return other == t })
	}
	t.asking = asking
}

// leave counts a connection out.
func (a *admission) leave(t *ticket) {
	if t.share == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setAsking(t, false)
	a.open--
	if t.share.open--; t.share.open == 0 {
		a.forget(t.share)
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

// connections is how many are open.
func (a *admission) connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open
}
