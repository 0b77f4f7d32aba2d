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

// account is the head of an account, as memory holds it; the rest is stored.
type account struct {
	id      int64
	name    name
	pending bool         // being stored, guarded by users.mu
	admin   atomic.Bool  // its role; users.changing is taken to change it
	seen    atomic.Int64 // when it last logged in or out, Unix seconds
	deleted atomic.Bool  // what it owned has no owner
	changes atomic.Int64 // of its password
}

// identity is who a session is after a login, until the next one.
type identity struct {
	name    name
	account *account    // nil: a guest, or the operator
	changes int64       // account.changes when the password was checked
	host    bool        // the machine's operator: no guest, and in no room
	gone    atomic.Bool // the guest is no more; what it owned has no owner
}

// isAdmin tells whether it may administer the server: by its role, or as who has
// the machine.
func (i *identity) isAdmin() bool {
	return i.host || i.account != nil && i.account.admin.Load() && !i.account.deleted.Load()
}

// kind is how lists show whether it is a guest.
func (i *identity) kind() string { return whomWord(i.account != nil) }

// owner is who made a room or group: an account, or a guest while it is there.
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

// name is how lists show the owner: "-" for what has none any more.
func (o owner) name() string {
	switch {
	case o.account != nil && !o.account.deleted.Load():
		return o.account.name.shown
	case o.guest != nil && !o.guest.gone.Load():
		return o.guest.name.shown
	}
	return "-"
}

// is tells whether i is the owner.
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

// users is who may be and who is on the server: accounts by name, and the
// sessions that are logged in by theirs.
type users struct {
	// fixed when it is made
	changing turn         // of whoever changes an account's password or role
	renewals chan renewal // accounts that wait for a new verifier

	mu       sync.Mutex
	accounts map[string]*account
	sorted   []*account // the same, by key
	online   map[string]*session
}

func newUsers() *users {
	return &users{
		changing: newTurn(), renewals: make(chan renewal, maxRenewals),
		accounts: map[string]*account{}, online: map[string]*session{},
	}
}

// add puts an account where it is found. u.mu is held.
func (u *users) add(a *account) {
	u.accounts[a.name.key] = a
	i, _ := u.position(a.name.key)
	u.sorted = slices.Insert(u.sorted, i, a)
}

// remove takes an account away again. u.mu is held.
func (u *users) remove(a *account) {
	delete(u.accounts, a.name.key)
	if i, found := u.position(a.name.key); found {
		u.sorted = slices.Delete(u.sorted, i, i+1)
	}
}

// position is where a name is, or would be, among the sorted accounts. u.mu is
// held.
func (u *users) position(key string) (at int, found bool) {
	return slices.BinarySearchFunc(u.sorted, key, func(a *account, key string) int { return strings.Compare(a.name.key, key) })
}

// accountBody is what only logging in needs of an account.
type accountBody struct {
	verifier        *verifier
	realName, email string
	recoverable     string // the password itself, for #challenge; "": it is not kept
}

// pack is a body as it is stored, before it is sealed.
func (b *accountBody) pack() []byte {
	fields := []string{b.verifier.String(), b.realName, b.email}
	if b.recoverable != "" {
		fields = append(fields, b.recoverable)
	}
	return store.Pack(fields...)
}

// parseAccountBody reads what pack wrote.
func parseAccountBody(packed []byte) (*accountBody, error) {
	fields, err := store.Unpack(packed, 3)
	if err != nil {
		return nil, err
	}
	b := &accountBody{realName: fields[1], email: fields[2]}
	if b.verifier, err = parseVerifier(fields[0]); err != nil {
		return nil, err
	}
	if len(fields) > 3 {
		b.recoverable = fields[3]
	}
	return b, nil
}

// accountRecord packs a new account: names in the head, the rest in the body.
func accountRecord(n name, b *accountBody) store.Record {
	return store.Record{Kind: store.Account, Head: accountHead(n, false), Body: b.pack()}
}

// accountHead packs names and role.
func accountHead(n name, admin bool) []byte {
	if admin {
		return store.Pack(n.shown, n.key, roleWord(true))
	}
	return store.Pack(n.shown, n.key)
}

func roleWord(admin bool) string {
	if admin {
		return "admin"
	}
	return "user"
}

// bodyRecord packs what is stored anew when a password changes.
func bodyRecord(id int64, b *accountBody) store.Record {
	return store.Record{Kind: store.Account, ID: id, Body: b.pack()}
}

// loadAccounts reads the heads of all accounts.
func (srv *server) loadAccounts() (byID map[int64]*account, err error) {
	byID = map[int64]*account{}
	err = srv.store.Load(store.Account, func(r store.Record) error {
		fields, err := store.Unpack(r.Head, 2)
		if err != nil {
			return err
		}
		a := &account{id: r.ID, name: name{fields[0], fields[1]}}
		a.admin.Store(len(fields) > 2 && fields[2] == roleWord(true))
		a.seen.Store(int64(r.Ends))
		srv.users.accounts[a.name.key] = a
		srv.users.sorted = append(srv.users.sorted, a)
		byID[a.id] = a
		return nil
	})
	slices.SortFunc(srv.users.sorted, func(a, b *account) int { return strings.Compare(a.name.key, b.name.key) })
	return byID, err
}

// readAccount reads what is stored of an account.
func (srv *server) readAccount(a *account) (*accountBody, error) {
	r, err := srv.store.Get(store.Account, a.id)
	if err != nil {
		return nil, err
	}
	b, err := parseAccountBody(r.Body)
	if err != nil {
		return nil, &replyError{code: statusUnknown, cause: fmt.Errorf("reading account %d: %w", a.id, err)}
	}
	return b, nil
}

// findAccount looks an account up by what a user typed; nil: there is none.
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

// cmdCreateLogin is "#createlogin <name> <password> <real name> <email id>".
func (s *session) cmdCreateLogin(words []string, _ *reply) error {
	if !s.takesPlain() {
		return fail(statusDisabled)
	}
	n, err := userName(words[0])
	if err != nil {
		return err
	}
	password, err := preparePassword(words[1])
	if err != nil {
		return err
	}
	a := &account{name: n, pending: true}
	if err := s.srv.reserveAccount(s, a); err != nil {
		return err
	}
	v, err := s.srv.accounts.make(s.source(), password)
	if err == nil {
		r := accountRecord(n, &accountBody{v, words[2], words[3], s.srv.toRecover(password)})
		r.Ends = instant(s.srv.now().Unix())
		err = s.srv.store.Add(&r)
		a.id = r.ID
		a.seen.Store(int64(r.Ends))
	}
	s.srv.users.mu.Lock()
	defer s.srv.users.mu.Unlock()
	if a.pending = false; err != nil {
		s.srv.users.remove(a)
	}
	return err
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
	password, err := preparePassword(words[0])
	if err != nil {
		return err
	}
	a := s.who.Load().account
	changes := a.changes.Load()
	stored, err := s.srv.readAccount(a)
	if err != nil {
		return err
	}
	if err := s.srv.accounts.check(s.source(), stored.verifier, words[1]); err != nil {
		return err
	}
	return s.storePassword(a, stored, password, changes)
}

// whateverChanged has storePassword store without a look at what was changed
// meanwhile: an administrator needs no old password.
const whateverChanged = -1

// storePassword gives an account a new password, which is prepared. changes is what
// account.changes was before the old one was read that was found right: where it was
// changed since, it is wrong now, and 3002.
func (s *session) storePassword(a *account, stored *accountBody, password string, changes int64) (err error) {
	srv := s.srv
	stored.recoverable = srv.toRecover(password)
	stored.verifier, err = srv.accounts.make(s.source(), password)
	if err != nil {
		return err
	}
	defer srv.users.changing.take()()
	if changes != whateverChanged && a.changes.Load() != changes {
		return fail(statusWrongPassword)
	}
	a.changes.Add(1)       // whoever checks the old one now must not get in,
	defer a.changes.Add(1) // nor who reads it before the new one is stored
	return srv.store.Replace(bodyRecord(a.id, stored))
}

// cmdRmLogin is "#rmlogin": the account goes, the connection stays.
func (s *session) cmdRmLogin(_ []string, _ *reply) error {
	if err := s.srv.removeAccount(s.who.Load().account); err != nil {
		return err
	}
	return s.logOut()
}

// removeAccount deletes an account; what it owned has no owner any more.
func (srv *server) removeAccount(a *account) error {
	if err := srv.store.Remove(store.Account, a.id); err != nil {
		return err
	}
	a.deleted.Store(true)
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

// findOnline finds who is logged in under a name; nil: nobody.
func (srv *server) findOnline(word string) *session {
	n, err := userName(word)
	if err != nil {
		return nil
	}
	srv.users.mu.Lock()
	defer srv.users.mu.Unlock()
	return srv.users.online[n.key]
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

// hostName is who speaks over the control socket and at the server's own
// keyboard. Nobody else can have that name (names.go).
const hostName = "Host"

// hostIdentity is the operator on a connection: logged in, in no room.
func hostIdentity() *identity {
	return &identity{name: name{shown: hostName, key: "host"}, host: true}
}

// count is how many are logged in, and how many accounts there are.
func (u *users) count() (online, accounts int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.online), len(u.accounts)
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
