package main

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/store"
)

// retryExpiry is how long, in ms, until a failed deletion is retried.
const retryExpiry = 10_000

// place is what a room and a message group have in common: members, a door, and an
// end once nobody is in it.
type place struct {
	// fixed when it is made
	*placeKind
	id       int64
	name     name
	regdOnly bool
	ttl      time.Duration // how long it lives with nobody in it; 0: for ever
	share    int64         // what it takes of the disk counts in this share

	size int64                // what it takes; of whoever has the door's turn
	door atomic.Pointer[door] // replaced, not changed, by one at a time (rooms.changing)

	// guarded by places.mu
	pending bool // it is being stored; nobody sees it yet

	mu        sync.Mutex
	members   []*session // as they entered; nil where one has left
	live      int        // how many of them are not nil
	listeners int        // how many of them want events
	deleting  bool
	ends      instant

	number atomic.Int64 // the status number: of a room's users, of a group's messages
	expiry expiry
}

// placeKind is what all rooms, or all groups, share.
type placeKind struct {
	kind  store.Kind
	slot  int                   // where a session keeps its position among the members
	wrong status                // what a wrong password is
	order func(a, b *place) int // how they are listed
	store store.Store
	saver *saver
	clock *clock
	exp   *expirer
	space *server // for what they take of the disk
}

// base is the place that a room or a group is.
func (p *place) base() *place { return p }

// placed is a *room or a *group.
type placed interface {
	comparable
	base() *place
	pack(*door) []byte // as it is stored, with that door
}

// places is all rooms, or all groups.
type places[P placed] struct {
	*placeKind
	uncounted int    // how many the limit does not concern: Home
	removed   func() // runs after one was deleted; nil: nothing does

	mu     sync.Mutex
	byKey  map[string]P
	listed []P // in order; replaced, not changed, so that readers need no lock

	number atomic.Int64 // changes when a place is added or deleted
}

// byName lists Home first and the others by name.
func byName(a, b *place) int {
	if a.id == 0 || b.id == 0 {
		return cmp.Compare(a.id, b.id)
	}
	return strings.Compare(a.name.key, b.name.key)
}

// byNumber lists places in the order in which they were made.
func byNumber(a, b *place) int { return cmp.Compare(a.id, b.id) }

// find looks a place up by what a user typed; nil: there is none.
func (ps *places[P]) find(word string) (found P) {
	n, err := placeName(word)
	if err != nil {
		return found
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p, ok := ps.byKey[n.key]; ok && !p.base().pending {
		return p
	}
	return found
}

// all returns every place, in the order of listing.
func (ps *places[P]) all() []P {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.listed
}

// create stores a new place and then shows it. It fails with 3102 where the
// name is used, and -2 where there are most already (0: no limit).
func (ps *places[P]) create(p P, most int) error {
	if err := ps.reserve(p, most); err != nil {
		return err
	}
	b := p.base()
	b.ends = after(ps.clock.now(), b.ttl)
	d := b.door.Load()
	r := store.Record{Kind: ps.kind, Parent: d.owner.stored(), Ends: b.ends, Share: b.share, Head: p.pack(d)}
	b.size = r.Size()
	err := ps.space.storing(b.share, b.size, func() error { return ps.store.Add(&r) })
	ps.mu.Lock()
	if err != nil {
		delete(ps.byKey, b.name.key)
		ps.mu.Unlock()
		return err
	}
	b.id, b.pending = r.ID, false
	b.number.Store(ps.store.NextNumber())
	ps.show(p)
	ps.exp.set(&b.expiry, b.ends)
	ps.mu.Unlock()
	ps.number.Store(ps.store.NextNumber())
	return nil
}

// reserve takes a new place's name, so that nobody else gets it meanwhile.
func (ps *places[P]) reserve(p P, most int) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	b := p.base()
	if old, ok := ps.byKey[b.name.key]; ok {
		if old.base().isDeleting() {
			return fail(statusDeleting)
		}
		return fail(statusRoomNameUsed)
	}
	if most > 0 && len(ps.byKey)-ps.uncounted >= most {
		return fail(statusLimit)
	}
	b.pending = true
	b.expiry.run = func() { ps.expire(p) }
	ps.byKey[b.name.key] = p
	return nil
}

// show puts a place where listings see it. ps.mu is held.
func (ps *places[P]) show(p P) {
	i, _ := slices.BinarySearchFunc(ps.listed, p, ps.compare)
	ps.listed = slices.Insert(slices.Clone(ps.listed), i, p)
}

// compare says which of two is listed first.
func (ps *places[P]) compare(a, b P) int { return ps.order(a.base(), b.base()) }

// restore puts a stored place back, at start; sort follows.
func (ps *places[P]) restore(p P, now instant) {
	b := p.base()
	fresh := after(now, b.ttl)
	if b.ends == never && fresh != never { // it was occupied when the server stopped
		ps.saver.touch(ps.kind, b.id, fresh)
	}
	if b.ends = min(b.ends, fresh); b.ttl == 0 {
		b.ends = never
	}
	b.expiry.run = func() { ps.expire(p) }
	b.number.Store(ps.store.NextNumber())
	ps.space.storage.add(b.share, b.size)
	ps.byKey[b.name.key] = p
	ps.listed = append(ps.listed, p)
	ps.exp.set(&b.expiry, b.ends)
}

// sort puts restored places in the order of listing.
func (ps *places[P]) sort() { slices.SortFunc(ps.listed, ps.compare) }

// isDeleting reports whether p is between the two moments of its deletion.
func (p *place) isDeleting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deleting
}

// doom begins a deletion: from now on p answers 3503. It fails with -5 while
// users are in it.
func (p *place) doom() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deleting {
		return fail(statusDeleting)
	}
	if p.live > 0 {
		return fail(statusNotEmpty)
	}
	p.deleting = true
	return nil
}

// remove ends the deletion of a doomed place: it is deleted on disk, then out
// of sight.
func (ps *places[P]) remove(p P) error {
	b := p.base()
	if err := ps.store.Remove(ps.kind, b.id); err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.deleting = false
		ps.exp.set(&b.expiry, max(b.ends, ps.clock.now()+retryExpiry))
		return err
	}
	ps.exp.set(&b.expiry, never)
	ps.space.storage.add(b.share, -b.size)
	ps.mu.Lock()
	delete(ps.byKey, b.name.key)
	ps.listed = slices.DeleteFunc(slices.Clone(ps.listed), func(other P) bool { return other == p })
	ps.mu.Unlock()
	ps.number.Store(ps.store.NextNumber())
	if ps.removed != nil {
		ps.removed()
	}
	return nil
}

// expire deletes a place whose time is over, unless somebody is in it.
func (ps *places[P]) expire(p P) {
	if !p.base().doomExpired() {
		return
	}
	if err := ps.remove(p); err != nil {
		slog.Error("deleting an expired place failed; it is retried", "kind", ps.kind.String(), "id", p.base().id, "error", err)
	}
}

// doomExpired begins the deletion of p if its time is over and nobody is in it.
func (p *place) doomExpired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live > 0 || p.deleting {
		return false
	}
	if p.ends > p.clock.now() {
		p.exp.set(&p.expiry, p.ends)
		return false
	}
	p.deleting = true
	return true
}

// hold counts a user in before it enters, so that p cannot be deleted meanwhile. It is
// the moment at which the user has come in, so the door is looked at for the last time:
// hold fails with 3503 while p is deleted, and as mayEnter does where p has another
// door by now than the one that has let the user in (nil: nobody is kept out).
func (p *place) hold(i *identity, through *door) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deleting {
		return fail(statusDeleting)
	}
	switch d := p.door.Load(); {
	case through == nil || d == through:
	case d.keepsOut(i):
		return fail(statusBanned)
	case d.lock != nil && d.lock != through.lock:
		return fail(p.wrong)
	}
	if p.live++; p.live == 1 {
		p.setEnd(never)
	}
	return nil
}

// add makes a user that is counted in already a member. p.mu is held.
func (p *place) add(s *session) {
	s.slots[p.slot] = len(p.members)
	p.members = append(p.members, s)
	if s.events.Load() {
		p.listeners++
	}
}

// drop takes a member off the list. p.mu is held.
func (p *place) drop(s *session) {
	p.members[s.slots[p.slot]] = nil
	if s.events.Load() {
		p.listeners--
	}
	if p.live--; p.live == 0 {
		p.setEnd(after(p.clock.now(), p.ttl))
	}
	if len(p.members) >= 16 && p.live <= len(p.members)/2 || p.live == 0 {
		p.closeGaps()
	}
}

// closeGaps moves the members together, over the gaps that those who left have made.
// p.mu is held.
func (p *place) closeGaps() {
	kept := make([]*session, 0, p.live+p.live/4)
	for _, m := range p.members {
		if m != nil {
			m.slots[p.slot] = len(kept)
			kept = append(kept, m)
		}
	}
	p.members = kept
}

// setEnd says when p expires if nothing happens before; Home never does. p.mu is held.
func (p *place) setEnd(at instant) {
	if p.ttl == 0 || p.id == 0 {
		return
	}
	p.ends = at
	p.exp.set(&p.expiry, at)
	p.saver.touch(p.kind, p.id, at)
}

// tell gives the members that want events a frame. p.mu is held.
func (p *place) tell(encode func() *frame) {
	if p.listeners == 0 {
		return
	}
	f := encode()
	for _, m := range p.members {
		if m != nil && m.events.Load() {
			m.put(f)
		}
	}
}

// countListener notes that a member wants events from now on, or no more.
func (p *place) countListener(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.listeners++
	} else {
		p.listeners--
	}
}

// state returns what listings show of a place: its users, and the seconds until it
// expires, 0 while users are in it.
func (p *place) state(now instant) (users int, left int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live > 0 {
		return p.live, 0
	}
	return 0, secondsUntil(p.ends, now)
}

// users lists who is in p, in the order in which they entered.
func (p *place) users() []*identity {
	p.mu.Lock()
	defer p.mu.Unlock()
	users := make([]*identity, 0, p.live)
	for _, m := range p.members {
		if m != nil {
			users = append(users, m.who.Load())
		}
	}
	return users
}

// whomWord is the protocol's word for accounts only, or for guests too.
func whomWord(regd bool) string {
	if regd {
		return "regd"
	}
	return "anon"
}

// setUp takes a new place's name, password and who may enter from the words of its
// command. Where they do not say who may, p.regdOnly stays as it is.
func (s *session) setUp(p *place, words []string) (err error) {
	if len(words) > 2 {
		if words[2] != whomWord(false) && words[2] != whomWord(true) {
			return fail(statusBadArgs)
		}
		p.regdOnly = words[2] == whomWord(true)
	}
	if p.name, err = placeName(words[0]); err != nil {
		return err
	}
	p.share = s.stores()
	d := &door{owner: ownerOf(s.who.Load())}
	if len(words) > 1 && words[1] != "" {
		if d.lock, err = s.newLock(words[1]); err != nil {
			return err
		}
	}
	p.door.Store(d)
	return nil
}
