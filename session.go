package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"homeroom/store"
)

// session is one connection and its user. Its reader goroutine runs serve;
// its writer goroutine, where it needs one, runs out.write.
type session struct {
	// fixed when it is made
	srv  *server
	link link
	addr netip.Addr // of the other end
	out  *outbox
	host bool // it is the machine's operator, over the control socket

	ticket ticket // what it is counted by; the operator is not

	// owned by the reader
	lines     lineReader
	post      *posting      // a message whose lines are coming; nil: none
	greeted   bool          // the first line has come
	hinted    bool          // before that an empty one came, and was told what to type
	person    bool          // a person types, who is shown sentences
	budget    budget        // of commands
	exchange  *exchange     // a login by #auth that is half done; nil: none
	challenge string        // of #challenge, not used yet; "": none
	loggedIn  bool          // just now
	loginBy   time.Duration // since the server began: when it must have logged in; 0: it has, or need not
	watch     func()        // ends what #watchlog began; nil: nothing did

	putOut atomic.Pointer[room] // the room that its owner has put it out of; the reader obeys
	cutOff atomic.Bool          // it is to end without lingering

	unflushed *room // where it has sent something; flushed when its input is handled

	// set by the reader, read by everybody
	who     atomic.Pointer[identity] // nil: not logged in
	inRoom  atomic.Pointer[room]
	inGroup atomic.Pointer[group]
	events  atomic.Bool

	entering atomic.Pointer[room] // where it is being let in; nil: it is not on its way

	// guarded by the place's mu: the position among its members
	slots [2]int

	// guarded by users.mu
	taken bool          // another session has its name
	left  chan struct{} // closed when its name and its place are free; nil: nobody waits
}

// Where a session keeps its positions in its room and its group, in slots.
const (
	roomSlot = iota
	groupSlot
)

func (s *session) room() *room   { return s.inRoom.Load() }
func (s *session) group() *group { return s.inGroup.Load() }

// look is how lines are shown to its user.
func (s *session) look() look {
	if s.person {
		return lookPlain
	}
	return lookProgram
}

// newSession makes a session on a link.
func newSession(srv *server, l link) *session {
	s := &session{srv: srv, link: l, out: newOutbox(l, &srv.counts.bytesOut)}
	s.addr, _ = l.Peer()
	s.ticket.displace = s.giveWay
	return s
}

var (
	errQuit     = errors.New("the user has quit")
	errHTTP     = errors.New("this is no web server")
	errFlooding = fatal("too many commands; the connection ends")
	errTooLate  = fatal("you did not log in in time; the connection ends")
)

// startGrace gives the session so long to log in.
func (s *session) startGrace() {
	s.endGrace()
	if grace := s.srv.settings().Limits.LoginGrace.Duration; grace > 0 && !s.host {
		s.loginBy = time.Since(s.srv.began) + grace
		s.wakeAt(s.srv.began.Add(s.loginBy))
	}
}

// endGrace lets it take its time.
func (s *session) endGrace() {
	if s.loginBy != 0 {
		s.loginBy = 0
		s.wakeAt(time.Time{})
	}
}

// wakeAt has the reader come back at a moment. What it is to be woken for by then,
// it is woken for again: that Wake would be forgotten.
func (s *session) wakeAt(t time.Time) {
	s.link.WakeAt(t)
	if s.out.ending() || s.putOut.Load() != nil || s.cutOff.Load() {
		s.link.Wake()
	}
}

// put gives the user a frame of somebody else's, and end the last one. What its
// room has said before comes before it.
func (s *session) put(f *frame) {
	s.catchUp()
	s.out.put(f)
}

func (s *session) end(f *frame) {
	s.catchUp()
	s.out.end(f)
}

func (s *session) catchUp() {
	if room := s.room(); room != nil {
		room.talk.bringTo(s.out)
	}
}

// send stages a reply, or a piece of one, and waits for the user's socket while
// too much waits for it already.
func (s *session) send(b []byte) error {
	s.catchUp()
	for !s.out.stageOwn(b) {
		s.flush()
		if err := s.out.waitForSocket(); err != nil {
			return err
		}
	}
	return nil
}

// flush writes what the lines handled so far have for others and for the user.
func (s *session) flush() {
	if s.unflushed != nil {
		s.unflushed.talk.flush()
		s.unflushed = nil
	}
	s.out.flush()
}

// answer sends a command's one reply: what it wrote, or its status. It is the
// one place where a failure becomes a line, and where its cause is logged.
func (s *session) answer(err error, r *reply) error {
	var known *replyError
	switch {
	case err == nil:
		return r.finish()
	case errors.Is(err, errQuit):
		return errors.Join(r.status(statusOK), errQuit)
	case errors.Is(err, errEnded):
		r.abandon()
		return err
	case !errors.As(err, &known):
		known = statusOf(err)
	}
	if known.cause != nil {
		slog.Error("a command failed", "user", s.shownName(), "error", known.cause)
	}
	if r.abandon() {
		return fatal("the server could not complete its reply; the connection ends")
	}
	if known.fatal {
		return err
	}
	return r.status(known.code)
}

// statusOf gives a failure of the store a status. Failures that belong in the log keep
// their cause.
func statusOf(err error) *replyError {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &replyError{code: statusNotFound}
	case errors.Is(err, store.ErrFull):
		return &replyError{code: statusLimit, cause: err}
	case errors.Is(err, store.ErrBroken): // which is in the log already
		return &replyError{code: statusUnknown}
	}
	return &replyError{code: statusUnknown, cause: err}
}

// source is what counts as the session's address.
func (s *session) source() netip.Prefix {
	if s.ticket.share == nil {
		return netip.Prefix{}
	}
	return s.ticket.share.key
}

// noteKnown notes that the session's address is known to an account: one that is others' as
// well never is.
func (s *session) noteKnown(a *account) {
	if ip := s.ticket.share; ip != nil && !ip.crowd {
		a.known.note(ip.key)
		s.srv.doorway.admission.remember(ip.key)
	}
}

// shownName is the session's name for the log.
func (s *session) shownName() string {
	if i := s.who.Load(); i != nil {
		return i.name.shown
	}
	return "-"
}

// giveWay ends the session in favour of another one that wants to log in.
func (s *session) giveWay() { s.end(displaced) }

// cut has the session end at once, whatever it waits for. The link is left for its
// reader to close: until then the outbox uses the socket's number.
func (s *session) cut() {
	s.cutOff.Store(true)
	s.link.EndBy(time.Unix(1, 0))
	s.link.Wake()
}

// lingerTime is how long an ended connection may stay half open.
const lingerTime = 2 * time.Second

// isFatal reports whether a failure ends the connection.
func isFatal(err error) bool {
	var known *replyError
	return errors.As(err, &known) && known.fatal
}

// busyConnections is how many connections of one address can send commands at full speed
// all the time. More of them share that.
const busyConnections = 64

// budget is how many commands a session has left: a token bucket, kept as the
// moment when it will be full again.
type budget struct {
	full    time.Duration // since the server began; past: it is
	refused int           // in a row
}

// spend takes a token for one command: 3505 where there is none, and the end of sessions
// that go on all the same.
func (s *session) spend() error {
	limits := &s.srv.settings().Limits
	rate, burst := limits.CommandsPerSecond, limits.CommandBurst
	if rate == 0 || s.host {
		return nil
	}
	b, now := &s.budget, time.Since(s.srv.began)
	each := time.Second / time.Duration(rate)
	if full := max(b.full, now) + each; float64(full-now) <= float64(burst)*float64(each) {
		b.full, b.refused = full, 0
		if all := min(limits.ConnectionsPerIP, busyConnections); all > 0 && !s.ticket.share.spend(rate, burst, all) {
			return fail(statusFlood)
		}
		return nil
	}
	if b.refused++; b.refused > burst {
		return errFlooding
	}
	return fail(statusFlood)
}

// goHome leads the session out of the room that its owner has put it out of, if it
// has not gone yet. Only its reader calls it.
func (s *session) goHome() error {
	p := s.putOut.Swap(nil)
	s.flush() // what it has said there
	if p != nil && s.room() == p {
		if err := s.srv.rooms.enter(s.srv.rooms.home, s, nil); err != nil {
			return err
		}
	}
	return nil
}

// setEvents notes whether the session wants events, also where it is counted.
func (s *session) setEvents(on bool) {
	if s.events.Load() == on {
		return
	}
	s.events.Store(on)
	if r := s.room(); r != nil {
		r.countListener(on)
	}
	if g := s.group(); g != nil {
		g.countListener(on)
	}
}
