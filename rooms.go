package main

import (
	"slices"
	"time"
)

// homeName is the room that a login leads to. It is nobody's and never expires.
const homeName = "Home"

// newRooms makes the rooms' registry, with Home in it.
func newRooms(srv *server) (rooms *places, home *place) {
	home = &place{name: name{homeName, "home"}, ends: never, talk: talk{rings: srv.rings}}
	home.door.Store(&door{})
	home.number.Store(srv.store.nextNumber())
	rooms = &places{
		kind: kindRoom, store: srv.store, clock: srv.clock, exp: srv.expirer,
		limit: func() int { return srv.settings().Limits.Rooms }, order: byName, pack: packRoom, changing: newTurn(), wrong: statusRoomPassword,
		byKey: map[string]*place{home.name.key: home}, listed: []*place{home},
	}
	rooms.number.Store(srv.store.nextNumber())
	rooms.moved.Store(srv.store.nextNumber())
	return rooms, home
}

// packRoom is a room's record: shown name, key, password, who may enter, and the
// keys of the names that may not.
func packRoom(p *place, d *door) []byte {
	return packFields(append([]string{p.name.shown, p.name.key, d.lock.packed(), p.whom()}, d.banned...)...)
}

// unpackPlace reads what rooms and groups have in common.
func unpackPlace(r record, fields []string, accounts map[int64]*account) (*place, error) {
	p := &place{
		id: r.id, name: name{fields[0], fields[1]}, regdOnly: fields[3] == whomWord(true), ends: r.ends,
	}
	d := &door{owner: owner{account: accounts[r.parent]}}
	if r.kind == kindRoom {
		d.banned = fields[4:]
	}
	p.door.Store(d)
	if fields[2] == "" {
		return p, nil
	}
	lock, err := parseVerifier(fields[2])
	d.lock = lock
	return p, err
}

// loadRooms reads the stored rooms.
func (srv *server) loadRooms(accounts map[int64]*account) error {
	now := srv.clock.now()
	err := srv.store.load(kindRoom, func(r record) error {
		fields, err := unpackFields(r.head, 4)
		if err != nil {
			return err
		}
		p, err := unpackPlace(r, fields, accounts)
		if err != nil {
			return err
		}
		p.ttl, p.talk.rings = srv.settings().Expiry.Room.Duration, srv.rings
		srv.rooms.restore(p, now)
		return nil
	})
	slices.SortFunc(srv.rooms.listed, byName)
	return err
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
	p, err := s.newPlace(words, false)
	if err != nil {
		return err
	}
	p.ttl = s.srv.settings().Expiry.Room.Duration
	return s.srv.rooms.create(p)
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
		if err := s.checkLock(s.srv.rooms, lock, words[1]); err != nil {
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
	d, err := s.mayEnter(s.srv.rooms, p, words)
	if err != nil {
		return err
	}
	return s.srv.rooms.enter(p, s, d)
}

// cmdBroadcast is "#broadcast <text>".
func (s *session) cmdBroadcast(words []string, _ *reply) error {
	room := s.room()
	s.srv.counts.said(time.Since(s.srv.began))
	room.talk.say(messFrame("broadcast", s.who.Load().name.shown, words[0]))
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
	other.put(messFrame("sendto", s.who.Load().name.shown, words[1]))
	return nil
}

// cmdArchStatus, cmdRoomStatus and cmdUserStatus are the rooms' three numbers.
func (s *session) cmdArchStatus(_ []string, r *reply) error {
	r.ret("archstatus", num(s.srv.rooms.number.Load()))
	return nil
}

func (s *session) cmdRoomStatus(_ []string, r *reply) error {
	r.ret("roomstatus", num(s.srv.rooms.moved.Load()))
	return nil
}

func (s *session) cmdUserStatus(_ []string, r *reply) error {
	r.ret("userstatus", num(s.room().number.Load()))
	return nil
}

// enteredFrame and leftFrame are what a room's members with events on see.
func enteredFrame(p *place, i *identity) *frame {
	return eventFrame("entered", named(p.name.shown), named(i.name.shown), word(i.kind()))
}

func leftFrame(p *place, i *identity) *frame {
	return eventFrame("left", named(p.name.shown), named(i.name.shown))
}
