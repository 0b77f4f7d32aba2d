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
	lately map[netip.Prefix]time.Time  // when somebody last logged in to an account there
	local  map[netip.Prefix]neighbours // by network
}

// neighbours is when addresses of a local network last connected.
type neighbours map[netip.Prefix]time.Time

// admissionLimits are 0 where there is none.
type admissionLimits struct{ all, perIP, waiting, waitingPerIP, local int }

// ipCount is one address's share.
type ipCount struct {
	// fixed when it is made
	key   netip.Prefix // its source
	crowd bool         // it is of a local network past its limit: of many addresses

	// guarded by the admission's mu
	open       int
	asking     []*ticket // those that have not logged in; the longest first
	known      bool      // somebody has lately logged in to an account there
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

	// guarded by the admission's mu
	asking bool      // it counts among those that have not logged in
	since  time.Time // when it began to
}

func newAdmission(c *config) *admission {
	a := &admission{byIP: map[netip.Prefix]*ipCount{}, lately: map[netip.Prefix]time.Time{}, local: map[netip.Prefix]neighbours{}}
	a.configure(c)
	return a
}

// configure takes over limits, which hold for connections from now on.
func (a *admission) configure(c *config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := &c.Limits
	a.limits = admissionLimits{l.Connections, l.ConnectionsPerIP, l.Waiting, l.WaitingPerIP, l.LocalAddresses}
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
	if ip := a.byIP[from]; ip != nil {
		ip.known = true
	}
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
	from := key
	if key = a.counted(from); a.byIP[key] == nil {
		a.byIP[key] = &ipCount{key: key, crowd: key != from}
	}
	ip := a.byIP[key]
	ip.known = a.knows(key)
	defer a.dropUnused(ip)
	past := func(n, limit int) bool { return limit > 0 && n >= limit }
	switch {
	case past(a.open, a.limits.all):
		return "the server is full; try again later", nil
	case past(ip.open, a.limits.perIP):
		return "too many connections from your address", nil
	case past(len(ip.asking), a.limits.waitingPerIP):
		old = ip.asking[0]
	case past(a.asking, a.limits.waiting):
		if old = a.toGive(ip); old == nil {
			return "too many connections are waiting to log in; try again later", nil
		}
	}
	if old != nil {
		a.setAsking(old, false)
	}
	t.since = time.Now()
	a.open++
	ip.open++
	t.share = ip
	a.setAsking(t, true)
	return "", old
}

// toGive is the connection that gives way when all places of those that have not logged in
// are taken and one comes from an address: the one that has waited longest, of the address
// with the most of them. So a client with several addresses cannot keep everybody else out.
// Half of the places are kept for addresses where somebody has lately logged in to an
// account: others take no place of theirs, and they take others' first. a.mu is held.
func (a *admission) toGive(ip *ipCount) *ticket {
	kept, others := 0, 0
	for _, other := range a.byIP {
		if other.known {
			kept += len(other.asking)
		} else {
			others += len(other.asking)
		}
	}
	ofKnown := kept > a.limits.waiting/2
	if ip.known {
		ofKnown = others == 0
	}
	var most *ipCount
	for _, other := range a.byIP {
		if len(other.asking) == 0 || other == ip || other.known != ofKnown {
			continue
		}
		if n := len(other.asking); most == nil || n > len(most.asking) ||
			n == len(most.asking) && other.asking[0].since.Before(most.asking[0].since) {
			most = other
		}
	}
	own := ip.known == ofKnown && len(ip.asking) > 0
	switch {
	case own && (most == nil || len(most.asking) <= len(ip.asking)+1):
		return ip.asking[0]
	case most != nil:
		return most.asking[0]
	}
	return nil
}

const (
	localTime   = time.Hour // that an address of a local network is remembered
	maxNetworks = 1000      // local networks
)

// counted is what a source counts as: itself, or its network, where that is a local one of
// IPv6 from which too many addresses have come within an hour. There a machine gives itself
// as many as it likes. a.mu is held.
func (a *admission) counted(from netip.Prefix) netip.Prefix {
	if a.limits.local == 0 || !from.Addr().Is6() || from.Bits() < 128 || from.Addr().IsLoopback() || a.knows(from) {
		return from
	}
	bits := 64
	if from.Addr().IsLinkLocalUnicast() {
		bits = 10
	}
	network, _ := from.Addr().Prefix(bits)
	now := time.Now()
	if a.local[network] == nil {
		if len(a.local) >= maxNetworks {
			a.forgetLocal(now)
		}
		if len(a.local) >= maxNetworks {
			return network
		}
		a.local[network] = neighbours{}
	}
	there := a.local[network]
	if len(there) >= a.limits.local {
		there.forget(now)
	}
	if _, known := there[from]; !known && len(there) >= a.limits.local {
		return network
	}
	there[from] = now
	return from
}

// forget drops the addresses that have not come for long. The admission's mu is held.
func (n neighbours) forget(now time.Time) {
	maps.DeleteFunc(n, func(_ netip.Prefix, at time.Time) bool { return now.Sub(at) > localTime })
}

// forgetLocal drops those of all local networks. a.mu is held.
func (a *admission) forgetLocal(now time.Time) {
	for network, there := range a.local {
		if there.forget(now); len(there) == 0 {
			delete(a.local, network)
		}
	}
}

// dropUnused drops the share of an address that was not let in. a.mu is held.
func (a *admission) dropUnused(ip *ipCount) {
	if ip.open == 0 && !ip.forgetting {
		a.forget(ip)
	}
}

// hold takes a connection whose password is being checked off those that may have to give
// way, until it is released.
func (a *admission) hold(t *ticket) (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !t.asking {
		return func() {}
	}
	a.setAsking(t, false)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.setAsking(t, true)
	}
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
	t.since = time.Now()
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
		i, _ := slices.BinarySearchFunc(ip.asking, t.since, func(other *ticket, since time.Time) int { return other.since.Compare(since) })
		for i < len(ip.asking) && !ip.asking[i].since.After(t.since) {
			i++
		}
		ip.asking = slices.Insert(ip.asking, i, t)
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
