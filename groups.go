package main

import (
	"strconv"
	"time"
)

// newGroups makes the groups' registry.
func newGroups(srv *server) *places {
	groups := &places{
		kind: kindGroup, store: srv.store, clock: srv.clock, exp: srv.expirer,
		limit: func() int { return srv.settings().Limits.Groups }, order: byNumber, pack: packGroup, changing: newTurn(), wrong: statusGroupPassword,
		byKey: map[string]*place{},
	}
	groups.number.Store(srv.store.nextNumber())
	return groups
}

// packGroup is a group's record: as a room's, and its time to live in ms.
func packGroup(p *place, d *door) []byte {
	return packFields(p.name.shown, p.name.key, d.lock.packed(), p.whom(), strconv.FormatInt(p.ttl.Milliseconds(), 10))
}

// loadGroups reads the stored groups.
func (srv *server) loadGroups(accounts map[int64]*account) error {
	now := srv.clock.now()
	return srv.store.load(kindGroup, func(r record) error {
		srv.messages.Add(r.total)
		if r.head == nil {
			return nil
		}
		fields, err := unpackFields(r.head, 5)
		if err != nil {
			return err
		}
		p, err := unpackPlace(r, fields, accounts)
		if err != nil {
			return err
		}
		ms, err := strconv.ParseInt(fields[4], 10, 64)
		if err != nil {
			return errBadRecord
		}
		p.ttl = time.Duration(ms) * time.Millisecond
		p.messages.Store(r.total)
		srv.groups.restore(p, now)
		return nil
	})
}

// secondsAt reads the word that says how many seconds something lives; 0: there is none.
func secondsAt(words []string, at int) (int64, error) {
	if len(words) <= at {
		return 0, nil
	}
	n, ok := parseNumber(words[at])
	if !ok || n < 0 {
		return 0, fail(statusBadArgs)
	}
	return n, nil
}

// timeToLive is how long something lives: as many seconds as its maker has asked for,
// or as usual (secs 0); a setting caps both.
func (srv *server) timeToLive(secs int64, usual time.Duration) time.Duration {
	ttl := usual
	if secs > 0 {
		ttl = seconds(secs)
	}
	if most := srv.settings().Expiry.Max.Duration; most > 0 && (ttl > most || ttl == 0) {
		ttl = most
	}
	return ttl
}

// cmdListGroups is "#listgroups".
func (s *session) cmdListGroups(_ []string, r *reply) error {
	groups := s.srv.groups.all()
	r.list("listgroups", len(groups))
	for _, p := range groups {
		users, left := p.state(s.srv.clock.now())
		r.row(named(p.name.shown), named(p.door.Load().owner.name()), num(p.id), num(p.messages.Load()),
			num(int64(users)), num(left), word(p.access()), word(p.whom()))
	}
	return nil
}

// cmdCreateGroup is "#creategroup <name> [password] [anon/regd] [secs]".
func (s *session) cmdCreateGroup(words []string, _ *reply) error {
	secs, err := secondsAt(words, 3)
	if err != nil {
		return err
	}
	p, err := s.newPlace(words, true)
	if err != nil {
		return err
	}
	p.ttl = s.srv.timeToLive(secs, s.srv.settings().Expiry.Group.Duration)
	return s.srv.groups.create(p)
}

// cmdJoinGroup is "#joingroup <name> [password]", also called "#changegroup".
func (s *session) cmdJoinGroup(words []string, _ *reply) error {
	p := s.srv.groups.find(words[0])
	if p == nil {
		return fail(statusNotFound)
	}
	if p == s.group() {
		return nil
	}
	d, err := s.mayEnter(s.srv.groups, p, words)
	if err != nil {
		return err
	}
	return s.srv.groups.enter(p, s, d)
}

// cmdRmGroup is "#rmgroup <name>": -5 while somebody is in it.
func (s *session) cmdRmGroup(words []string, _ *reply) error {
	p := s.srv.groups.find(words[0])
	if p == nil {
		return fail(statusNotFound)
	}
	if err := p.doom(); err != nil {
		return err
	}
	return s.srv.groups.remove(p)
}

// cmdLeaveGroup is "#leavegroup".
func (s *session) cmdLeaveGroup(_ []string, _ *reply) error {
	s.srv.groups.leave(s)
	return nil
}

// cmdGroupStatus and cmdMessageStatus are the groups' two numbers.
func (s *session) cmdGroupStatus(_ []string, r *reply) error {
	r.ret("groupstatus", num(s.srv.groups.number.Load()))
	return nil
}

func (s *session) cmdMessageStatus(_ []string, r *reply) error {
	g := s.group()
	if g == nil {
		return fail(statusNoGroup)
	}
	r.ret("messagestatus", num(g.number.Load()))
	return nil
}
