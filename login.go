package main

import (
	"encoding/hex"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"homeroom/store"
)

// takesPlain reports whether a password in clear may come from this session: with TLS
// always, since nobody on the way can read it.
func (s *session) takesPlain() bool {
	return s.host || s.link.Private() || takesPlain(s.srv.settings().Auth.PlainPassword, s.addr)
}

// takesPlain reports whether a password in clear may come unencrypted from an address.
func takesPlain(setting string, from netip.Addr) bool {
	switch setting {
	case "lan":
		return from.IsLoopback() || from.IsPrivate() || from.IsLinkLocalUnicast()
	case "loopback":
		return from.IsLoopback()
	}
	return false
}

// cmdLogin is "#login regd <username> <password>" and "#login anon <username>".
func (s *session) cmdLogin(words []string, _ *reply) error {
	s.exchange = nil // a half done login by #auth is over
	switch {
	case len(words) == 0 || words[0] != "regd" && words[0] != "anon":
		return fail(statusNoUserType)
	case words[0] == "anon" && len(words) == 2:
		return s.loginGuest(words[1])
	case words[0] == "regd" && len(words) == 3:
		return s.noteFailure(words[1], s.loginAccount(words[1], words[2]))
	}
	return fail(statusBadArgs)
}

// loginGuest makes the session a guest with a free name.
func (s *session) loginGuest(word string) error {
	if !s.srv.settings().Auth.Guests {
		return fail(statusDisabled)
	}
	n, err := newUserName(word)
	if err != nil {
		return err
	}
	return s.become(&identity{name: n, token: "g" + hex.EncodeToString(randomBytes(tokenBytes))})
}

// loginAccount makes the session an account, if the password is right or answers the
// session's challenge.
func (s *session) loginAccount(word, password string) error {
	challenge, sum, byChallenge := s.answersChallenge(password)
	if !byChallenge && !s.takesPlain() {
		return fail(statusDisabled)
	}
	if err := s.srv.refuseAddress(s); err != nil {
		return err
	}
	i, stored, err := s.srv.candidate(word)
	if err != nil {
		return err
	}
	t := s.tryAt(word, i)
	release := s.srv.doorway.admission.hold(&s.ticket)
	err = s.srv.accounts.login(t, func() (bool, error) {
		if byChallenge {
			return stored.answers(challenge, sum) && i.outdated() == nil, nil
		}
		return s.srv.accounts.matches(s.loginPlace(t), stored.verifier, password)
	})
	release()
	if i == nil && (err == nil || isStatus(err, statusWrongPassword)) {
		return fail(statusNoAccount)
	}
	if err == nil {
		err = s.become(i)
	}
	if err == nil && !byChallenge {
		s.srv.renewLater(i.account, stored, password)
	}
	return err
}

// tryAt is the session's try at the account of a name (i is nil: nobody has it).
func (s *session) tryAt(word string, i *identity) try {
	t := try{name: word, from: s.source(), by: s}
	if i != nil {
		t.name, t.known = i.name.key, i.account.known.has(t.from)
	} else if n, err := userName(word); err == nil {
		t.name = n.key
	}
	return t
}

// hashPlace is where what the session has hashed stands in the queue, and what it counts
// against: its account, or its address where it has none.
func (s *session) hashPlace() hashPlace {
	if i := s.who.Load(); i != nil && i.account != nil {
		return hashPlace{payer: payer{account: i.account.name.key}}
	}
	return hashPlace{payer{from: s.source()}, lastRank}
}

// loginPlace is the place of a login: those from an address that is known to the account go
// first, each account by itself, and then those where other accounts have logged in lately.
func (s *session) loginPlace(t try) hashPlace {
	switch {
	case t.known:
		return hashPlace{payer{from: t.from, account: t.name}, firstRank}
	case s.srv.doorway.admission.remembers(t.from):
		return hashPlace{payer{from: t.from}, secondRank}
	}
	return hashPlace{payer{from: t.from}, lastRank}
}

// candidate finds whom a login would make a session, and what it is checked against.
// The identity of a name that nobody has is nil; then the store is read all the same
// and the verifier is made up, since an answer that comes at once would say so.
func (srv *server) candidate(word string) (*identity, *accountBody, error) {
	a := srv.findAccount(word)
	if a == nil {
		a = &account{} // the store has no number 0
	}
	i := &identity{name: a.name, account: a, changes: a.changes.Load()}
	stored, err := srv.readAccount(a)
	if errors.Is(err, store.ErrNotFound) {
		return nil, &accountBody{verifier: srv.accounts.madeUp(word)}, nil
	}
	return i, stored, err
}

// loginFailures is what the log says of logins that fail: one line an address and
// minute, whoever guesses there, and how often.
type loginFailures struct {
	mu     sync.Mutex
	since  map[netip.Prefix]int // how many came after an address's last line, within a minute of it
	closed bool
}

// noteFailure logs a login to an account that has failed because of what was typed, and
// gives its error back. A name that nobody has is not logged: it may be a password that
// was typed too early.
func (s *session) noteFailure(word string, err error) error {
	var known *replyError
	if !errors.As(err, &known) {
		return err
	}
	switch known.code {
	case statusNoAccount, statusWrongPassword, statusBanned, statusThrottled:
	default:
		return err
	}
	if s.srv.failures.first(s.source()) {
		name := "-"
		if a := s.srv.findAccount(word); a != nil {
			name = a.name.shown
		}
		slog.Info("a login failed", "address", s.addr, "account", name, "status", known.code)
	}
	return err
}

// first counts a failure. It reports whether that is to be logged: whether an address has
// had no line for a minute.
func (f *loginFailures) first(from netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, recent := f.since[from]; recent {
		f.since[from] = n + 1
		return false
	}
	if f.closed || len(f.since) >= maxGuessers {
		return false
	}
	if f.since == nil {
		f.since = map[netip.Prefix]int{}
	}
	f.since[from] = 0
	time.AfterFunc(time.Minute, func() { f.tell(from) })
	return true
}

// tell logs how many failures came in the minute since an address's last line; where none
// did, the address is forgotten.
func (f *loginFailures) tell(from netip.Prefix) {
	f.mu.Lock()
	n := f.since[from]
	if n > 0 {
		f.since[from] = 0
	} else {
		delete(f.since, from)
	}
	f.mu.Unlock()
	if n > 0 {
		logFailures(from, n)
		time.AfterFunc(time.Minute, func() { f.tell(from) })
	}
}

// close logs what is counted and not logged yet: the server stops.
func (f *loginFailures) close() {
	f.mu.Lock()
	counted := f.since
	f.since, f.closed = nil, true
	f.mu.Unlock()
	for from, n := range counted {
		if n > 0 {
			logFailures(from, n)
		}
	}
}

// logFailures is the line about failures that had none of their own.
func logFailures(from netip.Prefix, n int) {
	slog.Info("more logins failed", "address", from, "times", n)
}

// become gives a session its new identity and puts it into Home. An account's
// earlier session is ended first; its place and its name are free when this
// one goes on.
func (s *session) become(i *identity) error {
	if err := s.mayBe(i); err != nil {
		return err
	}
	old, err := s.srv.claimName(s, i)
	if err != nil {
		return err
	}
	if old != nil {
		<-old
	}
	was := s.who.Load()
	if err := i.outdated(); err != nil { // by the session that was just ended, or meanwhile
		if was == nil || was.name.key != i.name.key {
			s.srv.releaseName(s, i)
		}
		return err
	}
	if was != nil {
		if was.account == nil && i.account == nil && was.name.key == i.name.key {
			i = was // the same guest still owns what it made, and is written as at first
		}
		s.forgetIdentity(i)
	}
	s.who.Store(i)
	if err := s.mayBe(i); err != nil { // this very moment
		return errors.Join(err, s.logOut())
	}
	if i.account != nil {
		s.srv.noteSeen(i.account)
		s.noteKnown(i.account)
	}
	s.srv.doorway.admission.loggedIn(&s.ticket)
	s.endGrace()
	s.loggedIn = true
	s.setEvents(s.person)
	return s.srv.rooms.enter(s.srv.rooms.home, s, nil)
}

// mayBe fails if the session must not have an identity, or not any more.
func (s *session) mayBe(i *identity) error {
	if err := i.outdated(); err != nil {
		return err
	}
	return s.srv.refuse(s, i)
}

// claimName gives a session a name, if it may have it. If another session of the
// account has it, that one is ended, and is gone when the channel is closed.
func (srv *server) claimName(s *session, i *identity) (gone <-chan struct{}, err error) {
	u := srv.users
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.taken { // this session was itself taken over; it must not take over any more
		return nil, errEnded
	}
	holder, taken := u.online[i.name.key], u.accounts[i.name.key]
	switch {
	case i.account != nil && taken != i.account: // deleted while the password was checked
		return nil, fail(statusNoAccount)
	case i.account == nil && taken != nil:
		return nil, fail(statusNameTaken)
	case i.account == nil && holder != nil && holder != s:
		return nil, fail(statusNameInUse)
	}
	u.online[i.name.key] = s
	if holder == nil || holder == s {
		return nil, nil
	}
	if holder.taken = true; holder.left == nil {
		holder.left = make(chan struct{})
	}
	holder.end(elsewhere)
	return holder.left, nil
}

// elsewhere is the last line of an account's earlier session.
var elsewhere = warningFrame("logged in from another place")

// forgetIdentity ends the session's identity, but for what it shares with the next one
// (nil: there is none). The session is in no room and no group afterwards, and without
// events.
func (s *session) forgetIdentity(next *identity) {
	s.srv.groups.leave(s)
	s.srv.rooms.leave(s)
	s.setEvents(false)
	i := s.who.Load()
	if i == nil || i == next {
		return
	}
	i.gone.Store(true)
	s.endWatch()
	if i.account != nil {
		s.srv.noteSeen(i.account)
	}
	s.who.Store(nil)
	if next == nil || i.name.key != next.name.key {
		s.srv.releaseName(s, i)
	}
}

// releaseName gives a name back if the session has it.
func (srv *server) releaseName(s *session, i *identity) {
	u := srv.users
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.online[i.name.key] == s {
		delete(u.online, i.name.key)
	}
}

// outdated fails with 3001 or 3002 if an account was deleted, or got another password,
// since a login looked at it. Whoever does that ends the account's session afterwards,
// so a login that checks once it can be seen is either ended or refused here.
func (i *identity) outdated() error {
	switch {
	case i.account == nil:
		return nil
	case i.account.deleted.Load():
		return fail(statusNoAccount)
	case i.account.changes.Load() != i.changes:
		return fail(statusWrongPassword)
	}
	return nil
}

// logOut leaves the session connected, with the time to log in running again.
func (s *session) logOut() error {
	s.forgetIdentity(nil)
	s.srv.doorway.admission.loggedOut(&s.ticket)
	s.startGrace()
	return nil
}

// maxRenewals bounds how many verifiers wait to be renewed.
const maxRenewals = 64

// renewal is an account that is to be stored anew, with the password that was just
// found right.
type renewal struct {
	account  *account
	stored   *accountBody // as it was found
	password string
}

// renewLater queues an account for a new verifier if the one it has is of too few
// rounds: the database may come from a slower machine. A recoverable password that the
// settings no longer allow goes with the old one. Where too many wait already, the
// account's next login will do.
func (srv *server) renewLater(a *account, stored *accountBody, typed string) {
	keeps := stored.recoverable != "" && !srv.settings().Auth.ChallengeMD5
	if stored.verifier.rounds >= srv.accounts.rounds && !keeps {
		return
	}
	password, err := preparePassword(typed)
	if err != nil {
		return
	}
	select {
	case srv.users.renewals <- renewal{a, stored, password}:
	default:
	}
}

// renewVerifiers works off the queue one by one, so that it takes little from those who
// are logging in.
func (srv *server) renewVerifiers(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		select {
		case <-stop:
			return
		case r := <-srv.users.renewals:
			if err := srv.renew(r); err != nil && !isStatus(err, statusThrottled) && !errors.Is(err, store.ErrNotFound) {
				slog.Warn("cannot renew the password verifier of an account; its next login will try again",
					"account", r.account.id, "error", err)
			}
		}
	}
}

// renew stores an account with a new verifier of the same password, unless the
// account has been changed or deleted meanwhile.
func (srv *server) renew(r renewal) error {
	renewed := *r.stored
	var err error
	if renewed.verifier, err = srv.accounts.make(hashPlace{rank: lastRank}, r.password); err != nil {
		return err
	}
	if !srv.settings().Auth.ChallengeMD5 {
		renewed.recoverable = ""
	}
	return srv.store.Swap(bodyRecord(r.account.id, &renewed), r.stored.pack())
}

// noteSeen notes that an account logs in or out now.
func (srv *server) noteSeen(a *account) {
	now := srv.now().Unix()
	if a.seen.Swap(now) != now && !a.deleted.Load() {
		srv.saver.touch(store.Account, a.id, instant(now))
	}
}
