package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"homeroom/store"
)

// account is the head of an account, as memory holds it; the body is in the store.
type account struct {
	id      int64
	name    name
	pending bool         // being stored; guarded by users.mu
	admin   atomic.Bool  // its role; users.changing is taken to change it
	seen    atomic.Int64 // when it last logged in or out, Unix seconds
	deleted atomic.Bool  // what it owned has no owner
	changes atomic.Int64 // how often its password has changed
	known   knownPlaces
	size    int64 // what it takes of the disk; fixed before others see it
}

// identity is who a session is after a login, until the next one.
type identity struct {
	name    name
	account *account    // nil: a guest, or the operator
	changes int64       // account.changes when the password was checked
	host    bool        // the machine's operator: no guest, and in no room
	gone    atomic.Bool // the guest is no more; what it owned has no owner
	token   string      // a guest's mark, made at the login; "": an account's
}

// tokenBytes is how many random bytes tell one guest of a name from the next.
const tokenBytes = 8

// mark tells, in what is stored of a message, who posted it: an account, or a guest as
// long as it is there. Another guest of the same name has another one.
func (i *identity) mark() string {
	if i.account != nil {
		return strconv.FormatInt(i.account.id, 10)
	}
	return i.token
}

// hostName is the operator's name, over the control socket and at the server's own
// keyboard. Nobody else can have it (userName).
const hostName = "Host"

// hostIdentity is the operator on a connection: logged in, in no room.
func hostIdentity() *identity {
	return &identity{name: name{shown: hostName, key: "host"}, host: true}
}

// isAdmin reports whether it may administer the server: by its role, or because the
// machine is its own.
func (i *identity) isAdmin() bool {
	return i.host || i.account != nil && i.account.admin.Load() && !i.account.deleted.Load()
}

// kind is the word in lists that says whether it is a guest.
func (i *identity) kind() string { return whomWord(i.account != nil) }

// owner is the maker of a room or group: an account, or a guest while it is there.
type owner struct {
	account *account
	guest   *identity
}

// ownerOf is the owner of what an identity makes.
func ownerOf(i *identity) owner {
	if i.account != nil {
		return owner{account: i.account}
	}
	return owner{guest: i}
}

// name is the owner in lists: "-" where there is none any more.
func (o owner) name() string {
	switch {
	case o.account != nil && !o.account.deleted.Load():
		return o.account.name.shown
	case o.guest != nil && !o.guest.gone.Load():
		return o.guest.name.shown
	}
	return "-"
}

// is reports whether i is the owner.
func (o owner) is(i *identity) bool {
	return o.account != nil && o.account == i.account || o.guest != nil && o.guest == i
}

// stored is the owner as the database keeps it: a guest's things have none
// there, since no guest outlives the server.
func (o owner) stored() int64 {
	if o.account == nil {
		return 0
	}
	return o.account.id
}

// users is everybody who may be and who is on the server: accounts by name, and
// sessions by the name under which they are logged in.
type users struct {
	// fixed when it is made
	changing turn         // of whoever changes an account's password or role
	renewals chan renewal // accounts whose verifiers are to be made anew

	mu       sync.Mutex
	accounts map[string]*account
	sorted   []*account // the same, by key
	online   map[string]*session
}

// newUsers makes an empty registry.
func newUsers() *users {
	return &users{
		changing: newTurn(), renewals: make(chan renewal, maxRenewals),
		accounts: map[string]*account{}, online: map[string]*session{},
	}
}

// add enters an account. u.mu is held.
func (u *users) add(a *account) {
	u.accounts[a.name.key] = a
	i, _ := u.position(a.name.key)
	u.sorted = slices.Insert(u.sorted, i, a)
}

// remove strikes an account out. u.mu is held.
func (u *users) remove(a *account) {
	delete(u.accounts, a.name.key)
	if i, found := u.position(a.name.key); found {
		u.sorted = slices.Delete(u.sorted, i, i+1)
	}
}

// position finds where a name is, or would be, among the sorted accounts. u.mu is held.
func (u *users) position(key string) (at int, found bool) {
	return slices.BinarySearchFunc(u.sorted, key, func(a *account, key string) int { return strings.Compare(a.name.key, key) })
}

// count counts the users who are logged in, and the accounts.
func (u *users) count() (online, accounts int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.online), len(u.accounts)
}

// findAccount looks an account up by a name as a user typed it; nil: there is none.
func (srv *server) findAccount(word string) *account {
	n, err := userName(word)
	if err != nil {
		return nil
	}
	srv.users.mu.Lock()
	defer srv.users.mu.Unlock()
	if a := srv.users.accounts[n.key]; a != nil && !a.pending {
		return a
	}
	return nil
}

// findOnline finds the session that is logged in under a name; nil: there is none.
func (srv *server) findOnline(word string) *session {
	n, err := userName(word)
	if err != nil {
		return nil
	}
	srv.users.mu.Lock()
	defer srv.users.mu.Unlock()
	return srv.users.online[n.key]
}

// roleWord is how records and commands spell a role.
func roleWord(admin bool) string {
	if admin {
		return "admin"
	}
	return "user"
}

// cmdCreateLogin is "#createlogin <name> <password> <real name> <email id>".
func (s *session) cmdCreateLogin(words []string, _ *reply) error {
	if !s.takesPlain() || s.srv.settings().Auth.Registration != "open" && !s.host {
		return fail(statusDisabled)
	}
	return s.createAccount(words)
}

// cmdAddUser is "#adduser <name> <password> <real name> <email id>", for administrators:
// whoever else may make accounts.
func (s *session) cmdAddUser(words []string, _ *reply) error {
	if !s.takesPlain() {
		return fail(statusDisabled)
	}
	return s.createAccount(words)
}

// createAccount stores a new account and then shows it.
func (s *session) createAccount(words []string) error {
	n, err := newUserName(words[0])
	if err != nil {
		return err
	}
	password, err := s.srv.newPassword(words[1])
	if err != nil {
		return err
	}
	a := &account{name: n, pending: true}
	if err := s.srv.reserveAccount(s, a); err != nil {
		return err
	}
	var v *verifier
	if err = s.srv.accounts.budget.spend(s.hashPlace().payer, 1); err == nil {
		v, err = s.srv.accounts.make(s.hashPlace(), password)
	}
	if err == nil {
		r := accountRecord(n, &accountBody{v, words[2], words[3], s.srv.toRecover(password)})
		r.Ends = instant(s.srv.now().Unix())
		a.size = r.Size()
		err = s.keeping(a.size, func() error { return s.srv.store.Add(&r) })
		a.id = r.ID
		a.seen.Store(int64(r.Ends))
		s.noteKnown(a)
	}
	s.srv.users.mu.Lock()
	defer s.srv.users.mu.Unlock()
	if a.pending = false; err != nil {
		s.srv.users.remove(a)
		return err
	}
	s.srv.storage.add(a.id, a.size)
	return nil
}

// keeping is storing for what counts in no share yet. Administrators may always.
func (s *session) keeping(size int64, store func() error) error {
	if s.who.Load().isAdmin() {
		return store()
	}
	return s.srv.storing(0, size, store)
}

// newPassword prepares a password that an account is to get: 3504 where it is none, or
// too short for the settings.
func (srv *server) newPassword(word string) (string, error) {
	password, err := preparePassword(word)
	if err == nil && len(password) < srv.settings().Auth.PasswordMin {
		err = fail(statusBadArgs)
	}
	return password, err
}

// reserveAccount takes the name of an account that is being created: -2 past the
// limit of the settings.
func (srv *server) reserveAccount(s *session, a *account) error {
	u := srv.users
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.accounts[a.name.key] != nil {
		return fail(statusNameTaken)
	}
	if holder := u.online[a.name.key]; holder != nil && holder != s {
		return fail(statusNameInUse)
	}
	if most := srv.settings().Limits.Accounts; most > 0 && len(u.accounts) >= most {
		return fail(statusLimit)
	}
	u.add(a)
	return nil
}

// cmdChangePass is "#changepass <new password> <old password>".
func (s *session) cmdChangePass(words []string, _ *reply) error {
	if !s.takesPlain() {
		return fail(statusDisabled)
	}
	password, err := s.srv.newPassword(words[0])
	if err != nil {
		return err
	}
	a := s.who.Load().account
	changes := a.changes.Load()
	if err := s.srv.takeSpace(0, 0); err != nil {
		return err
	}
	stored, err := s.srv.readAccount(a)
	if err != nil {
		return err
	}
	if err := s.srv.accounts.budget.spend(s.hashPlace().payer, 2); err != nil {
		return err
	}
	again := try{name: a.name.key, from: s.source(), known: true, by: s, hurry: true}
	err = s.srv.accounts.login(again, func() (bool, error) { return s.srv.accounts.matches(s.hashPlace(), stored.verifier, words[1]) })
	if err != nil {
		return err
	}
	return s.storePassword(a, stored, password, changes)
}

// whateverChanged has storePassword ignore other changes: an administrator needs no
// old password.
const whateverChanged = -1

// storePassword gives an account a new, prepared password. changes is account.changes
// from before the old password was read and found right: if it has changed since, the
// old password is wrong now, which is 3002.
func (s *session) storePassword(a *account, stored *accountBody, password string, changes int64) (err error) {
	srv := s.srv
	stored.recoverable = srv.toRecover(password)
	stored.verifier, err = srv.accounts.make(s.hashPlace(), password)
	if err != nil {
		return err
	}
	defer srv.users.changing.take()()
	if changes != whateverChanged && a.changes.Load() != changes {
		return fail(statusWrongPassword)
	}
	a.changes.Add(1)       // a login that is checking the old one must fail,
	defer a.changes.Add(1) // and so must one that reads it before the new one is stored
	return srv.store.Replace(bodyRecord(a.id, stored))
}

// cmdRmLogin is "#rmlogin": the account goes, the connection stays.
func (s *session) cmdRmLogin(_ []string, _ *reply) error {
	if err := s.srv.removeAccount(s.who.Load().account); err != nil {
		return err
	}
	return s.logOut()
}

// removeAccount deletes an account. Its rooms and groups have no owner from then on.
func (srv *server) removeAccount(a *account) error {
	if err := srv.store.Remove(store.Account, a.id); err != nil {
		return err
	}
	a.deleted.Store(true)
	srv.storage.add(a.id, -a.size)
	srv.users.mu.Lock()
	defer srv.users.mu.Unlock()
	if srv.users.accounts[a.name.key] == a {
		srv.users.remove(a)
	}
	return nil
}

// cmdWhoami is "#whoami".
func (s *session) cmdWhoami(_ []string, r *reply) error {
	here, count := "-", 0
	if room := s.room(); room != nil {
		here = room.name.shown
		count, _ = room.state(0)
	}
	group, id := "-", int64(0)
	if g := s.group(); g != nil {
		group, id = g.name.shown, g.id
	}
	r.ret("whoami", named(s.who.Load().name.shown), named(here), num(int64(count)), named(group), num(id))
	return nil
}

// cmdPeer2Peer is "#peer2peer <uname> <port> <ip>", anywhere on the server.
func (s *session) cmdPeer2Peer(words []string, _ *reply) error {
	port, ok := parseNumber(words[1])
	addr, err := netip.ParseAddr(words[2])
	if !ok || port < 1 || port > 65535 || err != nil || addr.Zone() != "" {
		return fail(statusBadArgs)
	}
	other := s.srv.findOnline(words[0])
	if other == nil {
		return fail(statusNotFound)
	}
	text := fmt.Sprintf("%s %s", strconv.FormatInt(port, 10), words[2])
	other.put(messFrame("peer2peer", s.who.Load().name.shown, text))
	return nil
}

// setRole stores an account's role and then has it hold. One change at a time:
// what is stored last must be what holds.
func (srv *server) setRole(a *account, admin bool) error {
	defer srv.users.changing.take()()
	err := srv.store.Replace(store.Record{Kind: store.Account, ID: a.id, Head: accountHead(a.name, admin)})
	if err == nil {
		a.admin.Store(admin)
	}
	return err
}

// accountLine is what #accounts shows of an account.
type accountLine struct {
	account *account
	online  *session // nil: nobody is logged in to it
}

// page returns the next accounts after a name, in order.
func (u *users) page(after string, n int) (page []accountLine) {
	u.mu.Lock()
	defer u.mu.Unlock()
	i, found := u.position(after)
	if found {
		i++
	}
	for ; i < len(u.sorted) && len(page) < n; i++ {
		if a := u.sorted[i]; !a.pending {
			page = append(page, accountLine{a, u.online[a.name.key]})
		}
	}
	return page
}

// onlineUser is a session and its user.
type onlineUser struct {
	session *session
	who     *identity
}

// everybody lists the users that are logged in, by name.
func (u *users) everybody() (online []*onlineUser) {
	u.mu.Lock()
	for _, s := range u.online {
		if i := s.who.Load(); i != nil {
			online = append(online, &onlineUser{s, i})
		}
	}
	u.mu.Unlock()
	slices.SortFunc(online, func(a, b *onlineUser) int { return strings.Compare(a.who.name.key, b.who.name.key) })
	return online
}
