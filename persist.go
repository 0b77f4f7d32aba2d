package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/store"
)

// What of the chat outlives the server, and how it gets to the disk: the opening of the
// store, the saver, and how accounts, rooms, groups, messages and bans are packed into
// records. Sealing them is crypto.go's, storing them the package store's.

// openStore opens the store of the data folder, and sets the server's clock by what is
// saved there.
func (srv *server) openStore(ask store.Asker) (store.Values, error) {
	cfg := &srv.cfg
	st, err := store.OpenSQLite(store.Options{
		Folder: cfg.Server.Data, Key: store.NewKeySource(cfg.Server.Key, cfg.Server.Data, ask, newGCM),
		Periodic: cfg.Persist.Mode == "periodic",
		Readers:  max(2, min(runtime.NumCPU(), runtime.GOMAXPROCS(0))),
		Clock: func(saved, savedWall int64) store.Clock {
			srv.clock = newClock(saved, savedWall, time.Now())
			return store.Clock{Now: srv.clock.now, Wall: srv.clock.wall}
		},
		Fill:   func(v *store.Values) { fillValues(v, cfg.Auth.Iterations == 0) },
		Lost:   srv.lostRecord,
		Failed: func(err error) { srv.life.diskFailed <- err },
	})
	if err != nil {
		return store.Values{}, err
	}
	srv.store, srv.saver = st, newSaver(st, cfg.Persist.Every.Duration)
	return st.Values, nil
}

// storage counts what users have stored, in bytes, by share: an account's, or that of all
// guests at an address.
type storage struct {
	secret []byte // what the numbers of addresses come from
	full   atomic.Bool

	mu     sync.Mutex
	shares map[int64]int64
	coming int64 // bytes that are being stored
}

// loadShares reads how much the messages of each share take.
func (srv *server) loadShares() (err error) {
	srv.storage.shares, err = srv.store.Shares()
	return err
}

// addressShares is how many numbers there are for the shares of addresses: so few that a
// number does not tell an address to whoever gets hold of the database, and enough that
// two addresses hardly ever have the same one.
const addressShares = 1 << 20

// stores is the number of the share in which what the session stores counts; 0: none, for
// the operator.
func (s *session) stores() int64 {
	of := s.holder()
	switch {
	case of.account != nil:
		return of.account.id
	case !of.from.IsValid():
		return 0
	}
	sum := hmac.New(sha256.New, s.srv.storage.secret)
	sum.Write([]byte("share " + of.from.String()))
	return -1 - int64(binary.BigEndian.Uint64(sum.Sum(nil))%addressShares)
}

// storing runs store, which stores so many bytes in a share. It fails with -2 past what
// the settings allow in all and for each share, and while the disk is nearly full: what
// is left of it is for administrators, for deletion, and for the next start.
func (srv *server) storing(share, size int64, store func() error) error {
	if err := srv.takeSpace(share, size); err != nil {
		return err
	}
	err := store()
	st := &srv.storage
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.coming -= size; err != nil {
		st.count(share, -size)
	}
	return err
}

// takeSpace counts bytes in that are to be stored, or fails.
func (srv *server) takeSpace(share, size int64) error {
	limits, space, st := &srv.settings().Limits, srv.store.Space(), &srv.storage
	st.mu.Lock()
	defer st.mu.Unlock()
	reserve := min(int64(limits.ReserveMiB)<<20, space.Disk/10)
	full := limits.ReserveMiB > 0 && space.Free-st.coming-size < reserve
	srv.noteFull(full)
	past := func(n int64, mib int) bool { return mib > 0 && n+size > int64(mib)<<20 }
	if full || past(space.Used+st.coming, limits.StoreMiB) || share != 0 && past(st.shares[share], limits.StoreMiBEach) {
		return fail(statusLimit)
	}
	st.coming += size
	st.count(share, size)
	return nil
}

// noteFull logs that the disk is nearly full, and that it is not any more.
func (srv *server) noteFull(full bool) {
	switch {
	case srv.storage.full.Swap(full) == full:
	case full:
		slog.Warn("the disk is nearly full: what users send is not stored (limits.reserve_mib)", "folder", srv.cfg.Server.Data)
	default:
		slog.Info("there is space on the disk again")
	}
}

// count counts so many more bytes of a share. st.mu is held.
func (st *storage) count(share, size int64) {
	if share == 0 {
		return
	}
	if st.shares[share] += size; st.shares[share] == 0 {
		delete(st.shares, share)
	}
}

// add counts bytes that are stored already, or (if negative) not any more.
func (st *storage) add(share, size int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.count(share, size)
}

// saver saves what changed and need not be stored at once: when empty rooms and groups
// end, when accounts were last here, the clock, and in periodic mode everything.
type saver struct {
	// fixed when it is made
	store store.Store
	every time.Duration
	due   chan struct{} // something is to be saved

	mu   sync.Mutex
	ends store.Ends // what the store does not know yet
}

// longestRetry is the time after which what could not be saved is tried again, at the
// latest.
const longestRetry = 5 * time.Second

func newSaver(st store.Store, every time.Duration) *saver {
	return &saver{store: st, every: every, due: make(chan struct{}, 1), ends: store.Ends{}}
}

// touch notes when an empty room or group ends, or when an account was last here.
func (sv *saver) touch(k store.Kind, id int64, ends int64) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	sv.ends[store.Ref{Kind: k, ID: id}] = ends
	sv.keepTime()
}

// keepTime has the clock saved, which goes with every save.
func (sv *saver) keepTime() {
	select {
	case sv.due <- struct{}{}:
	default:
	}
}

// run is the savers' loop: it wakes every period and saves what changed since. While
// nothing changes it does not even wake, so that a small machine can sleep.
func (sv *saver) run(stop <-chan struct{}) {
	pause := sv.every
	for {
		select {
		case <-sv.due:
		case <-sv.store.Due():
		case <-stop:
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return
		}
		if pause = sv.every; sv.save() != nil { // the store has logged why
			pause = min(pause, longestRetry)
		}
	}
}

// save saves what is to be saved now. What cannot be saved is to be saved later.
func (sv *saver) save() error {
	sv.mu.Lock()
	ends := sv.ends
	sv.ends = store.Ends{}
	select { // what was due is in ends
	case <-sv.due:
	default:
	}
	sv.mu.Unlock()
	err := sv.store.Save(ends)
	if err == nil {
		return nil
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for ref, end := range ends {
		if _, newer := sv.ends[ref]; !newer {
			sv.ends[ref] = end
		}
	}
	sv.keepTime()
	return err
}

// stop saves what is left, if there is something: run has ended.
func (sv *saver) stop() error {
	if len(sv.ends) == 0 {
		return nil // the store saves the rest when it is closed
	}
	return sv.save()
}

// fillValues makes what a database lacks at its first start: the secret, and how many
// rounds a password is hashed, where the settings leave that to this machine.
func fillValues(v *store.Values, calibrate bool) {
	if v.Rounds == 0 && calibrate {
		v.Rounds = int64(calibrateRounds())
	}
	if len(v.Secret) == 0 {
		v.Secret = randomBytes(secretBytes)
	}
}

// accountBody is the part of an account that only logging in needs.
type accountBody struct {
	verifier        *verifier
	realName, email string
	recoverable     string // the password itself, for #challenge; "": not kept
}

// pack makes a body's record, before it is sealed.
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

// bodyRecord packs a body that takes the place of another one.
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
		a.size = r.Stored
		srv.storage.add(a.id, a.size)
		srv.users.accounts[a.name.key] = a
		srv.users.sorted = append(srv.users.sorted, a)
		byID[a.id] = a
		return nil
	})
	slices.SortFunc(srv.users.sorted, func(a, b *account) int { return strings.Compare(a.name.key, b.name.key) })
	return byID, err
}

// readAccount reads an account's body.
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

// pack is a room's record: shown name, key, password, who may enter, and the keys of
// the names that may not.
func (r *room) pack(d *door) []byte {
	return store.Pack(append([]string{r.name.shown, r.name.key, d.lock.packed(), r.whom()}, d.banned...)...)
}

// unpack reads what the records of rooms and groups have in common.
func (p *place) unpack(r store.Record, fields []string, accounts map[int64]*account, banned []string) (err error) {
	p.share, p.size = r.Share, r.Stored
	p.id, p.name, p.regdOnly, p.ends = r.ID, name{fields[0], fields[1]}, fields[3] == whomWord(true), r.Ends
	d := &door{owner: owner{account: accounts[r.Parent]}, banned: banned}
	if fields[2] != "" {
		d.lock, err = parseVerifier(fields[2])
	}
	p.door.Store(d)
	return err
}

// loadRooms reads the stored rooms.
func (srv *server) loadRooms(accounts map[int64]*account) error {
	now := srv.clock.now()
	err := srv.store.Load(store.Room, func(rec store.Record) error {
		fields, err := store.Unpack(rec.Head, 4)
		if err != nil {
			return err
		}
		r := srv.rooms.newRoom()
		if err := r.unpack(rec, fields, accounts, fields[4:]); err != nil {
			return err
		}
		r.ttl = srv.settings().Expiry.Room.Duration
		srv.rooms.restore(r, now)
		return nil
	})
	srv.rooms.sort()
	return err
}

// pack is a group's record: as a room's, and its time to live in ms.
func (g *group) pack(d *door) []byte {
	return store.Pack(g.name.shown, g.name.key, d.lock.packed(), g.whom(), strconv.FormatInt(g.ttl.Milliseconds(), 10))
}

// loadGroups reads the stored groups.
func (srv *server) loadGroups(accounts map[int64]*account) error {
	now := srv.clock.now()
	err := srv.store.Load(store.Group, func(r store.Record) error {
		srv.messages.stored.Add(r.Total)
		if r.Head == nil {
			return nil
		}
		fields, err := store.Unpack(r.Head, 5)
		if err != nil {
			return err
		}
		g := srv.groups.newGroup()
		if err := g.unpack(r, fields, accounts, nil); err != nil {
			return err
		}
		ms, err := strconv.ParseInt(fields[4], 10, 64)
		if err != nil {
			return store.ErrDamaged
		}
		g.ttl = time.Duration(ms) * time.Millisecond
		g.messages.Store(r.Total)
		srv.groups.restore(g, now)
		return nil
	})
	srv.groups.sort()
	return err
}

// pack returns a ban as it is stored.
func (b *ban) pack() []byte {
	against := b.key.name
	if b.key.what == banNet {
		against = b.key.net.String()
	}
	return store.Pack(string(b.key.what), against, b.target, b.by, b.reason)
}

// unpackBan reads what pack wrote.
func unpackBan(r store.Record) (*ban, error) {
	fields, err := store.Unpack(r.Head, 5)
	if err != nil {
		return nil, err
	}
	b := &ban{id: r.ID, target: fields[2], by: fields[3], reason: fields[4], ends: r.Ends}
	if b.key.what = banKind(fields[0]); b.key.what != banNet {
		b.key.name = fields[1]
		return b, nil
	}
	if b.key.net, err = netip.ParsePrefix(fields[1]); err != nil {
		return nil, store.ErrDamaged
	}
	return b, nil
}

// packMessage is a message's record: heading and author in the head, its lines in the
// body.
func packMessage(group int64, a postArgs, author *identity, lines []string) store.Record {
	return store.Record{
		Kind: store.Message, Group: group, Parent: a.parent, Ends: never,
		Head: store.Pack(a.heading, author.name.shown, author.mark()), Body: store.Pack(lines...),
	}
}

// turn is held by one goroutine at a time, like a mutex, and unlike one for as long
// as the store works: it keeps changes of one kind in order, and no lock that
// others wait for is held meanwhile.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn and returns what gives it on: defer t.take()().
func (t turn) take() (release func()) {
	t <- struct{}{}
	return func() { <-t }
}
