package main

import (
	"sync/atomic"
	"time"

	"homeroom/store"
)

// group is a place where messages are kept.
type group struct {
	place
	messages atomic.Int64 // how many are stored
}

// groups is all of them.
type groups struct{ places[*group] }

// newGroups makes the groups' registry.
func newGroups(srv *server) *groups {
	gs := &groups{}
	gs.placeKind = &placeKind{
		kind: store.Group, slot: groupSlot, wrong: statusGroupPassword, order: byNumber,
		store: srv.store, saver: srv.saver, clock: srv.clock, exp: srv.expirer, space: srv,
	}
	gs.byKey = map[string]*group{}
	gs.number.Store(srv.store.NextNumber())
	return gs
}

// newGroup makes a group that has no name yet.
func (gs *groups) newGroup() *group { return &group{place: place{placeKind: gs.placeKind}} }

// enter moves a session into a group, out of the one that it is in. It fails as
// place.hold does; then it changes nothing.
func (gs *groups) enter(g *group, s *session, through *door) error {
	if err := g.hold(s.who.Load(), through); err != nil {
		return err
	}
	gs.leave(s)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(s)
	s.inGroup.Store(g)
	return nil
}

// leave takes a session out of the group that it is in, if it is in one.
func (gs *groups) leave(s *session) {
	g := s.group()
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.inGroup.Store(nil)
	g.drop(s)
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
	g := s.srv.groups.newGroup()
	g.regdOnly = true
	if err := s.setUp(&g.place, words); err != nil {
		return err
	}
	settings := s.srv.settings()
	g.ttl = s.srv.timeToLive(secs, settings.Expiry.Group.Duration)
	return s.srv.groups.create(g, settings.Limits.Groups)
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
	d, err := s.mayEnter(&p.place, words)
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

// cmdGroupStatus is "#groupstatus".
func (s *session) cmdGroupStatus(_ []string, r *reply) error {
	r.ret("groupstatus", num(s.srv.groups.number.Load()))
	return nil
}

// cmdMessageStatus is "#messagestatus".
func (s *session) cmdMessageStatus(_ []string, r *reply) error {
	g := s.group()
	if g == nil {
		return fail(statusNoGroup)
	}
	r.ret("messagestatus", num(g.number.Load()))
	return nil
}
