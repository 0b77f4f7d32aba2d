package main

import (
	"slices"
	"strings"

	"homeroom/store"
)

// door is the part of a room or group that decides who may enter. It is never changed:
// an owner's command puts a new one in its place.
type door struct {
	owner  owner
	lock   *verifier // its password; nil: it is public
	banned []string  // keys of the names that may not enter
}

// keepsOut reports whether the owner has banned somebody.
func (d *door) keepsOut(i *identity) bool { return slices.Contains(d.banned, i.name.key) }

// newLock makes a door's verifier of a password.
func (s *session) newLock(word string) (*verifier, error) {
	password, err := preparePassword(word)
	if err != nil {
		return nil, err
	}
	if err := s.srv.doors.budget.spend(s.hashPlace().payer, 1); err != nil {
		return nil, err
	}
	return s.srv.doors.make(s.hashPlace(), password)
}

// changeDoor stores what change makes of a room's door, and then puts it in place. It
// fails with 3103 unless the session's user owns the room.
func (s *session) changeDoor(r *room, change func(*door) error) error {
	defer s.srv.rooms.changing.take()()
	d := *r.door.Load()
	if !d.owner.is(s.who.Load()) {
		return fail(statusNotOwner)
	}
	if r.isDeleting() {
		return fail(statusDeleting)
	}
	if err := change(&d); err != nil {
		return err
	}
	changed := store.Record{Kind: r.kind, ID: r.id, Parent: d.owner.stored(), Head: r.pack(&d)}
	more := changed.Size() - r.size
	err := s.srv.storing(r.share, more, func() error { return r.store.Replace(changed) })
	if err == nil {
		r.size += more
		r.door.Store(&d)
	}
	return err
}

// dismiss puts a member out of a room and says why. Only its own reader moves a
// session, so that reader is woken to do it.
func (s *session) dismiss(other *session, r *room, why string, words []string) {
	other.putOut.Store(r)
	other.put(warningFrame(why + " " + r.name.shown + " by " + s.shownName() + because(strings.Join(words, " "))))
	other.link.Wake()
}

// cmdRoomKick is `#roomkick <user> ["reason"]`, for the owner of the room.
func (s *session) cmdRoomKick(words []string, _ *reply) error {
	room := s.room()
	if !room.door.Load().owner.is(s.who.Load()) {
		return fail(statusNotOwner)
	}
	other := s.srv.findOnline(words[0])
	if other == nil || other == s || other.room() != room {
		return fail(statusNotFound)
	}
	s.dismiss(other, room, "you were put out of", words[1:])
	return nil
}

// cmdRoomBan is `#roomban <user> ["reason"]`: the name stays out of the room as
// long as there is one. It fails with -3 for names that nobody has or uses.
func (s *session) cmdRoomBan(words []string, _ *reply) error {
	room := s.room()
	n, err := userName(words[0])
	if err != nil || s.srv.findOnline(words[0]) == nil && s.srv.findAccount(words[0]) == nil || n.key == s.who.Load().name.key {
		if !room.door.Load().owner.is(s.who.Load()) {
			return fail(statusNotOwner)
		}
		return fail(statusNotFound)
	}
	err = s.changeDoor(room, func(d *door) error {
		if slices.Contains(d.banned, n.key) {
			return nil
		}
		if most := s.srv.settings().Limits.RoomBans; most > 0 && len(d.banned) >= most {
			return fail(statusLimit)
		}
		d.banned = append(slices.Clone(d.banned), n.key)
		return nil
	})
	if err != nil {
		return err
	}
	if other := s.srv.findOnline(words[0]); other != nil && other.comesTo(room) {
		s.dismiss(other, room, "you were banned from", words[1:])
	}
	return nil
}

// cmdRoomUnban is "#roomunban <user>": -3 where the name is not banned.
func (s *session) cmdRoomUnban(words []string, _ *reply) error {
	n, _ := userName(words[0])
	return s.changeDoor(s.room(), func(d *door) error {
		i := slices.Index(d.banned, n.key)
		if i < 0 {
			return fail(statusNotFound)
		}
		d.banned = slices.Delete(slices.Clone(d.banned), i, i+1)
		return nil
	})
}

// cmdRoomBans is "#roombans", for the owner of the room.
func (s *session) cmdRoomBans(_ []string, r *reply) error {
	d := s.room().door.Load()
	if !d.owner.is(s.who.Load()) {
		return fail(statusNotOwner)
	}
	r.list("roombans", len(d.banned))
	for _, key := range d.banned {
		r.row(named(key))
	}
	return nil
}

// cmdRoomPass is `#roompass <new>`; "" makes the room public.
func (s *session) cmdRoomPass(words []string, _ *reply) error {
	return s.changeDoor(s.room(), func(d *door) (err error) {
		if d.lock = nil; words[0] != "" {
			d.lock, err = s.newLock(words[0])
		}
		return err
	})
}

// cmdRoomGive is "#roomgive <user>": whoever is logged in under that name owns the
// room from now on.
func (s *session) cmdRoomGive(words []string, _ *reply) error {
	room, other := s.room(), s.srv.findOnline(words[0])
	err := s.changeDoor(room, func(d *door) error {
		if other == nil {
			return fail(statusNotFound)
		}
		i := other.who.Load()
		if i == nil || room.regdOnly && i.account == nil {
			return fail(statusNotFound)
		}
		d.owner = ownerOf(i)
		return nil
	})
	if err == nil && other != s {
		other.put(warningFrame(s.shownName() + " has given you the room " + room.name.shown))
	}
	return err
}

// mayEnter checks a place's door and returns it. It fails with 3501 for guests where
// only accounts may enter, 3005 for users whom the owner has banned, and p.wrong for a
// wrong password.
func (s *session) mayEnter(p *place, words []string) (*door, error) {
	if p.isDeleting() {
		return nil, fail(statusDeleting)
	}
	if p.regdOnly && s.who.Load().account == nil {
		return nil, fail(statusNoGuests)
	}
	d := p.door.Load()
	if d.keepsOut(s.who.Load()) {
		return nil, fail(statusBanned)
	}
	if d.lock == nil {
		return d, nil
	}
	if len(words) < 2 || words[1] == "" { // no guess
		return nil, fail(p.wrong)
	}
	return d, s.checkLock(p, d.lock, words[1])
}

// checkLock compares what a user typed with the password of a room or group. It fails
// with p.wrong, or with 3006 as passwords.check does.
func (s *session) checkLock(p *place, lock *verifier, typed string) error {
	err := s.srv.doors.check(s.source(), s.hashPlace(), lock, typed)
	if isStatus(err, statusWrongPassword) {
		return fail(p.wrong)
	}
	return err
}

// access is how listings show whether there is a password.
func (p *place) access() string {
	if p.door.Load().lock != nil {
		return "priv"
	}
	return "pub"
}

// whom is the word for those who may enter, as lists show it.
func (p *place) whom() string { return whomWord(p.regdOnly) }
