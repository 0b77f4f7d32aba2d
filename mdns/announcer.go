package mdns

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Times of RFC 6762: 8.1 to 8.3 (probes, announcements), 6 (answers).
const (
	probes        = 3
	probeEvery    = 250 * time.Millisecond
	announcements = 2
	announceEvery = time.Second
	yieldTime     = time.Second            // for a prober of the same name that has more right to it
	answerGap     = time.Second            // between two times that a record is sent to everybody
	defenceGap    = 250 * time.Millisecond // the same, where somebody wants a name that is taken
	sharedLeast   = 20 * time.Millisecond  // others may answer the same question: not all at once
	sharedSpread  = 100 * time.Millisecond
)

const (
	maxConflicts   = 15                     // with no quiet time between them; after that, names are sought slowly
	conflictQuiet  = 2 * time.Minute        // ends a row of conflicts
	slowSearch     = time.Minute            // between tries, after so many conflicts
	settleTime     = 500 * time.Millisecond // for changes of interfaces, which come in rows
	quietPause     = 24 * time.Hour
	maxDirect      = 20 // legacy unicast answers in a second
	maxDirectAsked = 4  // questions in one of their packets
)

// link is a network interface, by IPv4 or by IPv6.
type link struct {
	index int
	name  string
	v6    bool
	addrs []netip.Addr   // this machine's there, of both families, that are announced
	nets  []netip.Prefix // all its addresses there, each with the network that it is in
}

// datagram is a packet that came in over a link.
type datagram struct {
	index int // of the interface
	v6    bool
	from  netip.AddrPort
	data  []byte
}

// announcedLink is a link and the records that are announced on it.
type announcedLink struct {
	link
	records []*record
}

// announcer makes the server findable: it asks for names, announces them, answers
// for them and gives them back. One goroutine does it all.
type announcer struct {
	// fixed when it is made
	log      *slog.Logger
	services []Service
	scan     func() []link
	send     func(l link, to netip.AddrPort, packet []byte) // to everybody, where to is not valid

	// owned by run
	names     names
	links     []*announcedLink
	step      int       // probes and announcements sent
	stepAt    time.Time // of the next one; zero: there is none
	scanAt    time.Time // zero: nothing has changed
	conflicts int
	conflict  time.Time // the last one
	told      names     // those that were logged last
	directs   int       // answers to those with ports of their own
	directEnd time.Time // until then
}

// newAnnouncer makes an announcer of these services that has no network yet.
func newAnnouncer(o Options) *announcer {
	first := names{host: strings.ToLower(o.Host), instance: o.Instance, hostNumber: 1, instanceNumber: 1}
	return &announcer{log: o.Log, services: o.Services, names: first}
}

// run announces until stop is closed.
func (a *announcer) run(stop <-chan struct{}, packets <-chan datagram, changed <-chan struct{}) {
	a.relink(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			a.goodbye()
			return
		case <-changed: // several come together
			if a.scanAt.IsZero() {
				a.scanAt = time.Now().Add(settleTime)
			}
		case p := <-packets:
			a.receive(p, time.Now())
		case <-timer.C:
			a.tick(time.Now())
		}
		timer.Reset(a.pause(time.Now()))
	}
}

// pause is how long nothing is to be done.
func (a *announcer) pause(now time.Time) time.Duration {
	next := now.Add(quietPause)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	sooner(a.stepAt)
	sooner(a.scanAt)
	for _, l := range a.links {
		for _, r := range l.records {
			sooner(r.due)
		}
	}
	return next.Sub(now)
}

// tick sends whatever is due, and looks at the interfaces where they have changed.
func (a *announcer) tick(now time.Time) {
	if !a.scanAt.IsZero() && !now.Before(a.scanAt) {
		a.scanAt = time.Time{}
		a.relink(now)
	}
	if !a.stepAt.IsZero() && !now.Before(a.stepAt) {
		a.advance(now)
	}
	for _, l := range a.links {
		a.answer(l, now)
	}
}

// relink looks at the machine's interfaces. Where something has changed, the
// names have to be asked for again.
func (a *announcer) relink(now time.Time) {
	links := a.scan()
	if slices.EqualFunc(links, a.links, func(m link, l *announcedLink) bool { return reflect.DeepEqual(m, l.link) }) {
		return
	}
	a.links = nil
	for _, l := range links {
		a.links = append(a.links, &announcedLink{link: l})
	}
	a.restart(now.Add(rand.N(probeEvery)))
}

// restart asks for the names from the start.
func (a *announcer) restart(at time.Time) {
	a.step, a.stepAt = 0, at
	if len(a.links) == 0 {
		a.stepAt = time.Time{}
	}
	for _, l := range a.links {
		l.records = recordsFor(a.names, a.services, l.addrs)
	}
}

// owns reports whether the names were probed for and nobody else had them.
func (a *announcer) owns() bool { return a.step > probes }

// advance sends the next probe or announcement.
func (a *announcer) advance(now time.Time) {
	if a.step == probes {
		a.tell()
	}
	for _, l := range a.links {
		if a.step < probes {
			a.sendAll(l, a.packed(packProbe(l.records)))
			continue
		}
		for _, r := range l.records {
			r.sent = now
		}
		a.sendAll(l, a.packed(packResponse(l.records, nil, math.MaxUint32)))
	}
	a.step++
	switch {
	case a.step <= probes:
		a.stepAt = now.Add(probeEvery)
	case a.step < probes+announcements:
		a.stepAt = now.Add(announceEvery)
	default:
		a.stepAt = time.Time{}
	}
}

// tell logs the names, where the log does not know them yet.
func (a *announcer) tell() {
	if a.names == a.told {
		return
	}
	host, first := shownName(a.names.hostName()), names{host: a.names.host}
	if a.names.hostNumber > 1 {
		a.log.Warn("another machine on this network has the name, so this one takes another", "taken", shownName(first.hostName()), "name", host)
	}
	a.log.Info("found by name on this network: "+host, "service", a.names.instanceName())
	a.told = a.names
}

// shownName is a host's name as people write it.
func shownName(n dnsmessage.Name) string {
	s := n.String()
	return s[:max(0, len(s)-1)]
}

// answer sends the records that are due on a link.
func (a *announcer) answer(l *announcedLink, now time.Time) {
	var due []*record
	for _, r := range l.records {
		if !r.due.IsZero() && !now.Before(r.due) {
			r.due, r.sent = time.Time{}, now
			due = append(due, r)
		}
	}
	if len(due) > 0 {
		a.sendAll(l, a.packed(packResponse(due, besides(due, l.records), math.MaxUint32)))
	}
}

// goodbye withdraws the records (RFC 6762, 10.1).
func (a *announcer) goodbye() {
	if !a.owns() {
		return
	}
	for _, l := range a.links {
		a.sendAll(l, a.packed(packResponse(l.records, nil, 0)))
	}
}

// sendAll sends a packet to everybody on a link.
func (a *announcer) sendAll(l *announcedLink, packet []byte) {
	if packet != nil {
		a.send(l.link, netip.AddrPort{}, packet)
	}
}

// packed is a packet; nil, and a line in the log, where it cannot be made.
func (a *announcer) packed(packet []byte, err error) []byte {
	if err != nil {
		a.log.Warn("cannot announce the server on the network", "error", err)
	}
	return packet
}

// receive handles a packet. It drops packets that do not come from the link itself,
// so that nobody can have answers sent elsewhere.
func (a *announcer) receive(p datagram, now time.Time) {
	i := slices.IndexFunc(a.links, func(l *announcedLink) bool { return l.index == p.index && l.v6 == p.v6 })
	if i < 0 || !a.links[i].isNear(p.from.Addr()) {
		return
	}
	m, err := parse(p.data)
	switch l := a.links[i]; {
	case err != nil: // others' errors are not worth a line
	case m.response && p.from.Port() == Port:
		a.heard(m.records(), l, now)
	case m.response: // no responder sends from another port
	case p.from.Port() != Port:
		a.askedDirect(l, m, p.from, now)
	default:
		a.asked(l, m, now)
	}
}

// isNear reports whether an address is on the link.
func (l *link) isNear(ip netip.Addr) bool {
	ip = ip.WithZone("")
	return ip.IsLinkLocalUnicast() || slices.ContainsFunc(l.nets, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// asked schedules the answers to a question. A probe for a name that is taken is
// answered as well, which defends the name.
func (a *announcer) asked(l *announcedLink, m *message, now time.Time) {
	if !a.owns() {
		if a.yieldsTo(l, m.claims) {
			a.clash(now, yieldTime)
		}
		return
	}
	gap := answerGap
	if len(m.claims) > 0 {
		gap = defenceGap
	}
	for _, r := range answersToAll(m.questions, l.records) { // each once, however often it is asked for
		if m.knows(r) {
			continue
		}
		at := now
		if r.shared {
			at = now.Add(sharedLeast + rand.N(sharedSpread))
		}
		r.sendAt(at, gap)
	}
}

// sendAt has a record sent at a time; later, where it was sent a moment ago, and
// sooner, where it was to be sent later.
func (r *record) sendAt(at time.Time, gap time.Duration) {
	if free := r.sent.Add(gap); at.Before(free) {
		at = free
	}
	if r.due.IsZero() || at.Before(r.due) {
		r.due = at
	}
}

// askedDirect answers a program that asks from a port of its own, to that port only
// (RFC 6762, 6.7: a legacy unicast response).
func (a *announcer) askedDirect(l *announcedLink, m *message, from netip.AddrPort, now time.Time) {
	if now.After(a.directEnd) {
		a.directs, a.directEnd = 0, now.Add(time.Second)
	}
	if !a.owns() || a.directs >= maxDirect || len(m.questions) > maxDirectAsked {
		return
	}
	answers := answersToAll(m.questions, l.records)
	if len(answers) == 0 {
		return
	}
	a.directs++
	if packet := a.packed(packDirect(m, answers, besides(answers, l.records))); packet != nil {
		a.send(l.link, from, packet)
	}
}

// heard looks through others' records for conflicts with this responder's names.
func (a *announcer) heard(said []dnsmessage.Resource, l *announcedLink, now time.Time) {
	host, instance := false, false
	for _, s := range said {
		if s.Header.TTL == 0 && !a.isOurs(s, l) {
			continue // somebody gives a name back
		}
		if a.clashes(s, l) {
			host = host || sameName(s.Header.Name, a.names.hostName())
			instance = instance || !sameName(s.Header.Name, a.names.hostName())
			continue
		}
		for _, r := range l.records { // another responder here withdraws a record that both have
			if s.Header.TTL < r.Header.TTL/2 && a.owns() && sameName(s.Header.Name, r.Header.Name) && sameData(s, r.Resource) {
				r.sendAt(now.Add(sharedLeast), answerGap)
			}
		}
	}
	if !host && !instance {
		return
	}
	if !a.owns() { // whoever answers a probe has the name
		if host {
			a.names.hostNumber++
		}
		if instance {
			a.names.instanceNumber++
		}
	}
	a.clash(now, 0)
}

// clash asks for the names again, after a row of clashes slowly.
func (a *announcer) clash(now time.Time, wait time.Duration) {
	if now.Sub(a.conflict) > conflictQuiet {
		a.conflicts = 0
	}
	a.conflict = now
	a.conflicts++
	if a.conflicts == maxConflicts {
		a.log.Warn("others on this network claim every name that this server tries; it goes on trying, slowly")
	}
	if a.conflicts >= maxConflicts {
		wait = slowSearch
	}
	a.restart(now.Add(wait))
}

// clashes reports whether a record of somebody else's contradicts one of this
// responder's names.
func (a *announcer) clashes(s dnsmessage.Resource, l *announcedLink) bool {
	return inNet(s.Header.Class) && slices.ContainsFunc(l.records, func(r *record) bool {
		return r.isClaimed() && sameName(r.Header.Name, s.Header.Name) && sameFamily(r, s)
	}) && !a.isOurs(s, l)
}

// sameFamily reports whether two records of one name are of one kind; addresses
// are, of either family.
func sameFamily(r *record, s dnsmessage.Resource) bool {
	address := s.Header.Type == dnsmessage.TypeA || s.Header.Type == dnsmessage.TypeAAAA
	return address && isOfHost(r) || r.Header.Type == s.Header.Type
}

// isOurs reports whether this responder announces the same record. Of its host it
// may be any address of this machine: two of its interfaces may be on one network.
func (a *announcer) isOurs(s dnsmessage.Resource, l *announcedLink) bool {
	if ip, ok := addressIn(s.Body); ok {
		isIP := func(p netip.Prefix) bool { return p.Addr() == ip }
		return slices.ContainsFunc(a.links, func(other *announcedLink) bool { return slices.ContainsFunc(other.nets, isIP) })
	}
	return slices.ContainsFunc(l.records, func(r *record) bool {
		return sameName(r.Header.Name, s.Header.Name) && sameData(s, r.Resource)
	})
}

// addressIn is the address that a record holds.
func addressIn(body dnsmessage.ResourceBody) (ip netip.Addr, ok bool) {
	switch body := body.(type) {
	case *dnsmessage.AResource:
		return netip.AddrFrom4(body.A), true
	case *dnsmessage.AAAAResource:
		return netip.AddrFrom16(body.AAAA), true
	}
	return ip, false
}

// yieldsTo reports whether a prober of the same names at the same time has more
// right to one of them (RFC 6762, 8.2). Each name is compared once, however many claims to it
// a packet holds.
func (a *announcer) yieldsTo(l *announcedLink, claims []dnsmessage.Resource) bool {
	compared := map[dnsmessage.Name]bool{}
	for _, r := range l.records {
		if name := r.Header.Name; r.isClaimed() && !compared[name] {
			compared[name] = true
			if a.yields(name, l, claims) {
				return true
			}
		}
	}
	return false
}

// yields reports whether others have more right to a name: those whose records
// sort later.
func (a *announcer) yields(name dnsmessage.Name, l *announcedLink, claims []dnsmessage.Resource) bool {
	var ours, theirs []dnsmessage.Resource
	clash := false
	for _, c := range claims {
		if sameName(c.Header.Name, name) {
			theirs = append(theirs, c)
			clash = clash || a.clashes(c, l)
		}
	}
	if !clash {
		return false
	}
	for _, r := range l.records {
		if r.isClaimed() && sameName(r.Header.Name, name) {
			ours = append(ours, r.Resource)
		}
	}
	slices.SortFunc(ours, compareRecords)
	slices.SortFunc(theirs, compareRecords)
	return slices.CompareFunc(ours, theirs, compareRecords) < 0
}
