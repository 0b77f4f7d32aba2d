package main

import (
	"sync/atomic"
	"time"

	"homeroom/store"
	"homeroom/uring"
)

// homeName is the room that a login leads to. It is nobody's and never expires.
const homeName = "Home"

// room is a place whose members hear each other.
type room struct {
	place
	talk talk
}

// rooms is all of them.
type rooms struct {
	places[*room]
	home     *room
	rings    *uring.Set // for what is said in them; nil: none
	changing turn       // of whoever changes a room's door

	moved atomic.Int64 // changes when a user enters or leaves one
}

// newRooms makes the rooms' registry, with Home in it.
func newRooms(srv *server) *rooms {
	rs := &rooms{rings: srv.rings, changing: newTurn()}
	rs.placeKind = &placeKind{
		kind: store.Room, slot: roomSlot, wrong: statusRoomPassword, order: byName,
		store: srv.store, saver: srv.saver, clock: srv.clock, exp: srv.expirer, space: srv,
	}
	rs.home = rs.newRoom()
	rs.home.name, rs.home.ends = name{homeName, "home"}, never
	rs.home.door.Store(&door{})
	rs.home.number.Store(srv.store.NextNumber())
	rs.byKey, rs.listed, rs.uncounted = map[string]*room{rs.home.name.key: rs.home}, []*room{rs.home}, 1
	rs.number.Store(srv.store.NextNumber())
	rs.moved.Store(srv.store.NextNumber())
	return rs
}

// newRoom makes a room that has no name yet.
func (rs *rooms) newRoom() *room {
	return &room{place: place{placeKind: rs.placeKind}, talk: talk{rings: rs.rings}}
}

// enter moves a session into a room, out of the one that it is in. It fails as
// place.hold does; then it changes nothing.
func (rs *rooms) enter(r *room, s *session, through *door) error {
	s.entering.Store(r) // before the door is looked at, for whoever changes it
	defer s.entering.Store(nil)
	if err := r.hold(s.who.Load(), through); err != nil {
		return err
	}
	rs.leave(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell(func() *frame { return enteredFrame(r, s.who.Load()) })
	r.add(s)
	s.inRoom.Store(r)
	r.talk.join(s.out)
	rs.countMove(r)
	return nil
}

// leave takes a session out of the room that it is in, if it is in one.
func (rs *rooms) leave(s *session) {
	r := s.room()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.talk.part(s.out)
	s.inRoom.Store(nil)
	r.drop(s)
	rs.countMove(r)
	r.tell(func() *frame { return leftFrame(r, s.who.Load()) })
}

// countMove changes the numbers that change when a user enters or leaves r.
func (rs *rooms) countMove(r *room) {
	r.number.Store(rs.store.NextNumber())
	rs.moved.Store(rs.store.NextNumber())
}

// comesTo reports whether a session is in r or on its way into it. A ban calls it after
// the door has changed: a user that r.hold let in before that is found here.
func (s *session) comesTo(r *room) bool {
	return s.entering.Load() == r || s.room() == r // in this order: it goes from one to the other
}

// cmdListRooms is "#listrooms".
func (s *session) cmdListRooms(_ []string, r *reply) error {
	rooms := s.srv.rooms.all()
	r.list("listrooms", len(rooms))
	for _, p := range rooms {
		users, left := p.state(s.srv.clock.now())
		r.row(named(p.name.shown), named(p.door.Load().owner.name()), num(int64(users)), num(left), word(p.access()), word(p.whom()))
	}
	return nil
}

// cmdListUsers is "#listusers".
func (s *session) cmdListUsers(_ []string, r *reply) error {
	users := s.room().users()
	r.list("listusers", len(users))
	for _, u := range users {
		r.row(named(u.name.shown), word(u.kind()))
	}
	return nil
}

// cmdCreateRoom is "#createroom <name> [password] [anon/regd]".
func (s *session) cmdCreateRoom(words []string, _ *reply) error {
	room := s.srv.rooms.newRoom()
	if err := s.setUp(&room.place, words); err != nil {
		return err
	}
	settings := s.srv.settings()
	room.ttl = settings.Expiry.Room.Duration
	return s.srv.rooms.create(room, settings.Limits.Rooms)
}

// cmdRmRoom is "#rmroom <name> [password]".
func (s *session) cmdRmRoom(words []string, _ *reply) error {
	p := s.srv.rooms.find(words[0])
	switch {
	case p == nil:
		return fail(statusNoRoom)
	case p.isDeleting():
		return fail(statusDeleting)
	case !p.door.Load().owner.is(s.who.Load()):
		return fail(statusNotOwner)
	}
	if lock := p.door.Load().lock; len(words) > 1 && words[1] != "" && lock != nil {
		if err := s.checkLock(&p.place, lock, words[1]); err != nil {
			return err
		}
	}
	if err := p.doom(); err != nil {
		return err
	}
	return s.srv.rooms.remove(p)
}

// cmdChangeRoom is "#changeroom <name> [password] [anon/regd]".
func (s *session) cmdChangeRoom(words []string, _ *reply) error {
	p := s.srv.rooms.find(words[0])
	if p == nil {
		return fail(statusNoRoom)
	}
	if p == s.room() {
		return nil
	}
	d, err := s.mayEnter(&p.place, words)
	if err != nil {
		return err
	}
	return s.srv.rooms.enter(p, s, d)
}

// cmdBroadcast is "#broadcast <text>".
func (s *session) cmdBroadcast(words []string, _ *reply) error {
	room := s.room()
	s.srv.counts.said(time.Since(s.srv.began))
	f := messFrame("broadcast", s.who.Load().name.shown, words[0])
	f.at = s.srv.now()
	room.talk.say(f)
	s.unflushed = room
	return nil
}

// cmdSendTo is "#sendto <uname> <text>", within the room.
func (s *session) cmdSendTo(words []string, _ *reply) error {
	other := s.srv.findOnline(words[0])
	if other == nil || other.room() != s.room() {
		return fail(statusNotFound)
	}
	s.srv.counts.said(time.Since(s.srv.began))
	f := messFrame("sendto", s.who.Load().name.shown, words[1])
	f.at = s.srv.now()
	other.put(f)
	return nil
}

// cmdArchStatus is "#archstatus".
func (s *session) cmdArchStatus(_ []string, r *reply) error {
	r.ret("archstatus", num(s.srv.rooms.number.Load()))
	return nil
}

// cmdRoomStatus is "#roomstatus".
func (s *session) cmdRoomStatus(_ []string, r *reply) error {
	r.ret("roomstatus", num(s.srv.rooms.moved.Load()))
	return nil
}

// cmdUserStatus is "#userstatus".
func (s *session) cmdUserStatus(_ []string, r *reply) error {
	r.ret("userstatus", num(s.room().number.Load()))
	return nil
}

// enteredFrame announces a user to the members that want events.
func enteredFrame(r *room, i *identity) *frame {
	return eventFrame("entered", named(r.name.shown), named(i.name.shown), word(i.kind()))
}

// leftFrame announces that a user has left.
func leftFrame(r *room, i *identity) *frame {
	return eventFrame("left", named(r.name.shown), named(i.name.shown))
}
