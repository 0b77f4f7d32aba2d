package main

import (
	"cmp"
	"errors"
	"log/slog"
	"net/netip"
)

// takesPlain tells whether a password in clear may come from this session: with
// TLS always, since nobody on the way can read it.
func (s *session) takesPlain() bool {
	return s.host || s.link.Private() || takesPlain(s.srv.settings().Auth.PlainPassword, s.addr)
}

// takesPlain tells whether a password in clear may come unencrypted from an
// address.
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
	if len(words) == 0 || words[0] != "regd" && words[0] != "anon" {
		return fail(statusNoUserType)
	}
	guest := words[0] == "anon"
	if guest && len(words) != 2 || !guest && len(words) != 3 {
		return fail(statusBadArgs)
	}
	if guest {
		return s.loginGuest(words[1])
	}
	if challenge, sum, ok := s.answersChallenge(words[2]); ok {
		return s.loginByChallenge(words[1], challenge, sum)
	}
	return s.loginAccount(words[1], words[2])
}

// loginGuest makes the session a guest with a free name.
func (s *session) loginGuest(word string) error {
	n, err := userName(word)
	if err != nil {
		return err
	}
	return s.become(&identity{name: n})
}

// loginAccount checks the password and makes the session that account. For a
// name that nobody has, it reads and hashes all the same: an answer that comes
// at once would say so.
func (s *session) loginAccount(word, password string) error {
	if !s.takesPlain() {
		return fail(statusDisabled)
	}
	a := s.srv.findAccount(word)
	if a == nil {
		s.srv.readNobody()
		if err := s.srv.accounts.check(s.source(), s.srv.accounts.madeUp(word), password); err != nil && !isStatus(err, statusWrongPassword) {
			return err
		}
		return fail(statusNoAccount)
	}
	changes := a.changes.Load()
	stored, err := s.srv.readAccount(a)
	if errors.Is(err, errNotFound) {
		return fail(statusNoAccount)
	}
	if err != nil {
		return err
	}
	if err := s.srv.accounts.check(s.source(), stored.verifier, password); err != nil {
		return err
	}
	if a.changes.Load() != changes { // by its owner, while this was being checked
		return fail(statusWrongPassword)
	}
	if err := s.become(&identity{name: a.name, account: a, changes: changes}); err != nil {
		return err
	}
	s.srv.renewLater(a, stored, password)
	return nil
}

// become gives a session its new identity and puts it into Home. An account's
// earlier session is ended first; its place and its name are free when this
// one goes on.
func (s *session) become(i *identity) error {
	if err := s.srv.refuse(s, i); err != nil {
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
	if was != nil && was.account == nil && i.account == nil && was.name.key == i.name.key {
		i = was // the same guest still owns what it made, and is written as at first
	}
	s.forgetIdentity(i)
	s.setEvents(false)
	s.who.Store(i)
	if err := cmp.Or(s.srv.refuse(s, i), i.outdated()); err != nil { // this very moment
		return errors.Join(err, s.logOut())
	}
	if i.account != nil {
		s.srv.noteSeen(i.account)
	}
	s.srv.admission.loggedIn(&s.ticket)
	s.endGrace()
	s.loggedIn = true
	return s.srv.rooms.enter(s.srv.rooms.home, s, nil)
}

// claimName gives a session a name, if it may have it. Where another session
// has it, that one is ended, and gone when the channel is closed.
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

// elsewhere is what the earlier session of an account hears.
var elsewhere = warningFrame("logged in from another place")

// forgetIdentity ends who the session was, but for what it has in common with
// who it becomes (nil: nobody). It is in no room and no group afterwards.
func (s *session) forgetIdentity(next *identity) {
	s.srv.groups.leave(s)
	s.srv.rooms.leave(s)
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

// outdated fails with 3001 or 3002 if an account was deleted, or has another
// password, since a login looked at it. Whoever does that ends the account's session
// afterwards, so a login that asks after it can be seen is either ended or told here.
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
	s.srv.admission.loggedOut(&s.ticket)
	s.startGrace()
	return nil
}

// maxRenewals bounds how many verifiers wait to be renewed.
const maxRenewals = 64

// renewal is an account that is to be stored anew, with the password that was
// just found right.
type renewal struct {
	account  *account
	stored   *accountBody // as it was found
	password string
}

// renewLater has an account's verifier made anew if it has too few rounds: the
// database may come from a slower machine. It also has a recoverable password
// forgotten that the settings allow no more. Nobody waits for it, and where too
// many wait already, the account's next login will do.
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

// renewVerifiers works off what waits, one after the other, so that it takes
// little from those who are logging in.
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
			if err := srv.renew(r); err != nil && !isStatus(err, statusThrottled) && !errors.Is(err, errNotFound) {
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
	if renewed.verifier, err = srv.accounts.make(netip.Prefix{}, r.password); err != nil {
		return err
	}
	if !srv.settings().Auth.ChallengeMD5 {
		renewed.recoverable = ""
	}
	return srv.store.swap(bodyRecord(r.account.id, &renewed), r.stored.pack())
}
