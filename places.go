package main

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// retryExpiry is when what could not be deleted is tried again, in ms.
const retryExpiry = 10_000

// place is where users are: a room or a message group.
type place struct {
	// fixed when it is made
	id       int64
	name     name
	regdOnly bool
	ttl      time.Duration // how long it lives with nobody in it; 0: for ever

	door atomic.Pointer[door] // replaced, not changed, by one at a time (places.changing)

	// guarded by places.mu
	pending bool // it is being stored; nobody sees it yet

	mu        sync.Mutex
	members   []*session // as they entered; nil where one left
	live      int        // how many of them are not nil
	listeners int        // how many of them want events
	deleting  bool
	ends      instant

	talk talk // a room's

	number   atomic.Int64 // the status number: of a room's users, of a group's messages
	messages atomic.Int64 // a group's
	expiry   expiry
}

// places is all rooms, or all groups.
type places struct {
	// fixed when it is made
	kind     kind
	store    store
	clock    *clock
	exp      *expirer
	limit    func() int                 // 0: none
	order    func(a, b *place) int      // how they are listed
	pack     func(*place, *door) []byte // a place as it is stored
	changing turn                       // of whoever changes a door
	wrong    status                     // what a wrong password is

	removed func() // runs after one was deleted; nil: nothing does

	mu     sync.Mutex
	byKey  map[string]*place
	listed []*place // in order; replaced, not changed, so that readers need no lock

	number atomic.Int64 // changes when a place is added or deleted
	moved  atomic.Int64 // changes when a user enters or leaves one
}

// slot is where a session keeps its place of this kind.
func (ps *places) slot() int {
	if ps.kind == kindRoom {
		return roomSlot
	}
	return groupSlot
}

// byName lists Home first and the others by name; byNumber by number.
func byName(a, b *place) int {
	if a.id == 0 || b.id == 0 {
		return cmp.Compare(a.id, b.id)
	}
	return strings.Compare(a.name.key, b.name.key)
}

func byNumber(a, b *place) int { return cmp.Compare(a.id, b.id) }

// find looks a place up by what a user typed; nil: there is none.
func (ps *places) find(word string) *place {
	n, err := placeName(word)
	if err != nil {
		return nil
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.byKey[n.key]; p != nil && !p.pending {
		return p
	}
	return nil
}

// all is every place, in the order of listing.
func (ps *places) all() []*place {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.listed
}

// create stores a new place and then shows it. It fails with 3102 where the
// name is used, and -2 past the limit.
func (ps *places) create(p *place) error {
	if err := ps.reserve(p); err != nil {
		return err
	}
	p.ends = after(ps.clock.now(), p.ttl)
	r := record{kind: ps.kind, parent: p.door.Load().owner.stored(), ends: p.ends, head: ps.pack(p, p.door.Load())}
	err := ps.store.add(&r)
	ps.mu.Lock()
	if err != nil {
		delete(ps.byKey, p.name.key)
		ps.mu.Unlock()
		return err
	}
	p.id, p.pending = r.id, false
	p.number.Store(ps.store.nextNumber())
	ps.show(p)
	ps.exp.set(&p.expiry, p.ends)
	ps.mu.Unlock()
	ps.number.Store(ps.store.nextNumber())
	return nil
}

// reserve takes a new place's name, so that nobody else gets it meanwhile.
func (ps *places) reserve(p *place) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if old := ps.byKey[p.name.key]; old != nil {
		if old.isDeleting() {
			return fail(statusDeleting)
		}
		return fail(statusRoomNameUsed)
	}
	if most := ps.limit(); most > 0 && len(ps.byKey)-ps.permanent() >= most {
		return fail(statusLimit)
	}
	p.pending = true
	p.expiry.run = func() { ps.expire(p) }
	ps.byKey[p.name.key] = p
	return nil
}

// permanent is how many places do not count against the limit: Home.
func (ps *places) permanent() int {
	if ps.kind == kindRoom {
		return 1
	}
	return 0
}

// show puts a place where listings see it. ps.mu is held.
func (ps *places) show(p *place) {
	i, _ := slices.BinarySearchFunc(ps.listed, p, ps.order)
	ps.listed = slices.Insert(slices.Clone(ps.listed), i, p)
}

// restore puts a stored place back, at start.
func (ps *places) restore(p *place, now instant) {
	fresh := after(now, p.ttl)
	if p.ends == never && fresh != never { // it was occupied when the server stopped
		ps.store.touch(ps.kind, p.id, fresh)
	}
	if p.ends = min(p.ends, fresh); p.ttl == 0 {
		p.ends = never
	}
	p.expiry.run = func() { ps.expire(p) }
	p.number.Store(ps.store.nextNumber())
	ps.byKey[p.name.key] = p
	ps.listed = append(ps.listed, p)
	ps.exp.set(&p.expiry, p.ends)
}

// isDeleting tells whether p is between the two moments of its deletion.
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
func (ps *places) remove(p *place) error {
	if err := ps.store.remove(ps.kind, p.id); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.deleting = false
		ps.exp.set(&p.expiry, max(p.ends, ps.clock.now()+retryExpiry))
		return err
	}
	ps.exp.set(&p.expiry, never)
	ps.mu.Lock()
	delete(ps.byKey, p.name.key)
	ps.listed = slices.DeleteFunc(slices.Clone(ps.listed), func(other *place) bool { return other == p })
	ps.mu.Unlock()
	ps.number.Store(ps.store.nextNumber())
	if ps.removed != nil {
		ps.removed()
	}
	return nil
}

// expire deletes a place whose time is over, unless somebody is in it.
func (ps *places) expire(p *place) {
	p.mu.Lock()
	empty := p.live == 0 && !p.deleting
	over := empty && p.ends <= ps.clock.now()
	if p.deleting = p.deleting || over; empty && !over {
		ps.exp.set(&p.expiry, p.ends)
	}
	p.mu.Unlock()
	if !over {
		return
	}
	if err := ps.remove(p); err != nil {
		slog.Error("an expired place could not be deleted; it is tried again", "kind", ps.kind.String(), "id", p.id, "error", err)
	}
}

// enter moves a session into a place, out of the one that it is in. It fails
// with 3503 while p is deleted, and as mayEnter does where p has another door by now
// than the one that has let the session in; then it changes nothing. Where nobody is
// kept out, that door is nil.
func (ps *places) enter(p *place, s *session, through *door) error {
	s.entering.Store(p) // before the door is looked at, for who changes it
	defer s.entering.Store(nil)
	if err := ps.hold(p, s, through); err != nil {
		return err
	}
	ps.leave(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	if ps.kind == kindRoom {
		p.tell(func() *frame { return enteredFrame(p, s.who.Load()) })
	}
	s.slots[ps.slot()] = len(p.members)
	p.members = append(p.members, s)
	if s.events.Load() {
		p.listeners++
	}
	s.at[ps.slot()].Store(p)
	if ps.kind == kindRoom {
		p.talk.join(s.out)
	}
	ps.countMove(p)
	return nil
}

// hold counts a user in before it enters, so that p cannot be deleted meanwhile. It is
// the moment at which the user has come in: the door is looked at for the last time.
func (ps *places) hold(p *place, s *session, through *door) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deleting {
		return fail(statusDeleting)
	}
	switch d := p.door.Load(); {
	case through == nil || d == through:
	case d.keepsOut(s.who.Load()):
		return fail(statusBanned)
	case d.lock != nil && d.lock != through.lock:
		return fail(ps.wrong)
	}
	if p.live++; p.live == 1 {
		ps.setEnd(p, never)
	}
	return nil
}

// comesTo tells whether a session is in p or on its way into it. Who has let nobody
// more into p asks this afterwards: whom p.hold has let in before is found here.
func (s *session) comesTo(p *place) bool {
	return s.entering.Load() == p || s.room() == p // in this order: it goes from one to the other
}

// leave takes a session out of the place that it is in, if it is in one.
func (ps *places) leave(s *session) {
	p := s.at[ps.slot()].Load()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ps.kind == kindRoom {
		p.talk.part(s.out)
	}
	s.at[ps.slot()].Store(nil)
	p.drop(s, ps.slot())
	ps.countMove(p)
	if ps.kind == kindRoom {
		p.tell(func() *frame { return leftFrame(p, s.who.Load()) })
	}
	if p.live == 0 {
		ps.setEnd(p, after(ps.clock.now(), p.ttl))
	}
}

// drop takes a member off the list and closes the gaps now and then. p.mu is
// held.
func (p *place) drop(s *session, slot int) {
	p.members[s.slots[slot]] = nil
	p.live--
	if s.events.Load() {
		p.listeners--
	}
	if len(p.members) < 16 && p.live > 0 || p.live > len(p.members)/2 {
		return
	}
	kept := make([]*session, 0, p.live+p.live/4)
	for _, m := range p.members {
		if m != nil {
			m.slots[slot] = len(kept)
			kept = append(kept, m)
		}
	}
	p.members = kept
}

// setEnd says when p expires if nothing happens before. p.mu is held.
func (ps *places) setEnd(p *place, at instant) {
	if p.ttl == 0 || p.id == 0 {
		return
	}
	p.ends = at
	ps.exp.set(&p.expiry, at)
	ps.store.touch(ps.kind, p.id, at)
}

// countMove changes the numbers that change when a user enters or leaves p.
func (ps *places) countMove(p *place) {
	if ps.kind == kindRoom {
		p.number.Store(ps.store.nextNumber())
		ps.moved.Store(ps.store.nextNumber())
	}
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

// setEvents notes whether a member wants events.
func (p *place) setEvents(s *session, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.listeners++
	} else {
		p.listeners--
	}
}

// state is what a listing shows of a place: its users, and the seconds until it
// expires, 0 while users are in it.
func (p *place) state(now instant) (users int, left int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live > 0 {
		return p.live, 0
	}
	return 0, secondsUntil(p.ends, now)
}

// users is who is in p, as they entered.
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

func whomWord(regd bool) string {
	if regd {
		return "regd"
	}
	return "anon"
}

// newPlace makes a place out of the words that create one: name, password and
// who may enter.
func (s *session) newPlace(words []string, regdOnly bool) (*place, error) {
	if len(words) > 2 {
		if words[2] != "anon" && words[2] != "regd" {
			return nil, fail(statusBadArgs)
		}
		regdOnly = words[2] == "regd"
	}
	n, err := placeName(words[0])
	if err != nil {
		return nil, err
	}
	d := &door{owner: ownerOf(s.who.Load())}
	if len(words) > 1 && words[1] != "" {
		if d.lock, err = s.newLock(words[1]); err != nil {
			return nil, err
		}
	}
	p := &place{name: n, regdOnly: regdOnly, talk: talk{rings: s.srv.rings}}
	p.door.Store(d)
	return p, nil
}
