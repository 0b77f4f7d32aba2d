package main

import (
	"cmp"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/store"
)

// ban keeps a name, an address or a network out; or, as the suspension,
// everybody but the administrators.
type ban struct {
	id     int64
	key    banKey
	target string // as lists show it
	by     string
	reason string
	ends   instant
	expiry expiry

	before []int64 // earlier ones of the same key that are still stored; guarded by bans.changing
}

// banKey says whom a ban is against.
type banKey struct {
	what banKind
	name string       // its key; "": it is against no name
	net  netip.Prefix // invalid: it is against no addresses
}

type banKind string

const (
	banName banKind = "name"
	banNet  banKind = "net"
	banAll  banKind = "all" // the suspension
)

// bans keeps users, addresses and networks out.
type bans struct {
	// fixed when it is made
	store  store.Store
	clock  *clock
	exp    *expirer
	lifted func(*ban) // runs after one has ended by itself

	changing turn // of whoever adds or drops a ban

	suspended atomic.Pointer[ban] // nil: the server is open to all

	mu    sync.Mutex
	byKey map[banKey]*ban
	nets  int // how many are against addresses
}

// newBans reads the stored bans.
func newBans(srv *server) (*bans, error) {
	bs := &bans{
		store: srv.store, clock: srv.clock, exp: srv.expirer, lifted: srv.banLifted,
		byKey: map[banKey]*ban{}, changing: newTurn(),
	}
	var stored []*ban
	err := srv.store.Load(store.Ban, func(r store.Record) error {
		b, err := unpackBan(r)
		stored = append(stored, b)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(a, b *ban) int { return cmp.Compare(a.id, b.id) })
	for _, b := range stored {
		bs.show(b)
	}
	for _, b := range bs.byKey {
		bs.dropBefore(b)
	}
	return bs, nil
}

// nameBan makes a ban of a name.
func nameBan(n name) *ban { return &ban{key: banKey{what: banName, name: n.key}, target: n.shown} }

// netBan makes a ban of a network, or of one address.
func netBan(p netip.Prefix) *ban {
	p = p.Masked()
	b := &ban{key: banKey{what: banNet, net: p}, target: p.String()}
	if p.IsSingleIP() {
		b.target = p.Addr().String()
	}
	return b
}

// add stores a ban and then puts it in force, in place of an earlier one of the same
// target. It fails with -2 where there are most already (0: no limit).
func (bs *bans) add(b *ban, most int) error {
	defer bs.changing.take()()
	bs.mu.Lock()
	full := bs.byKey[b.key] == nil && b.key.what != banAll && most > 0 && len(bs.byKey) >= most
	bs.mu.Unlock()
	if full {
		return fail(statusLimit)
	}
	r := store.Record{Kind: store.Ban, Ends: b.ends, Head: b.pack()}
	if err := bs.store.Add(&r); err != nil {
		return err
	}
	b.id = r.ID
	bs.show(b)
	bs.dropBefore(b)
	return nil
}

// show puts a stored ban in force, in place of an earlier one.
func (bs *bans) show(b *ban) {
	b.expiry.run = func() { bs.expire(b) }
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if old := bs.byKey[b.key]; old != nil {
		b.before = append(old.before, old.id)
		bs.forget(old)
	}
	bs.byKey[b.key] = b
	if b.key.what == banNet {
		bs.nets++
	}
	if b.key.what == banAll {
		bs.suspended.Store(b)
	}
	bs.exp.set(&b.expiry, b.ends)
}

// forget takes a ban out of memory. bs.mu is held.
func (bs *bans) forget(b *ban) {
	delete(bs.byKey, b.key)
	if b.key.what == banNet {
		bs.nets--
	}
	bs.suspended.CompareAndSwap(b, nil)
	bs.exp.set(&b.expiry, never)
}

// dropBefore deletes on disk what a ban has taken the place of. Where that fails, or the
// power is cut before, it is done at the next start, or before the ban itself is dropped:
// an earlier ban must not outlive it.
func (bs *bans) dropBefore(b *ban) {
	if err := bs.removeBefore(b); err != nil {
		slog.Error("deleting a ban that was replaced failed; it is retried", "id", b.before[0], "error", err)
	}
}

// removeBefore deletes them until one cannot be deleted.
func (bs *bans) removeBefore(b *ban) error {
	for ; len(b.before) > 0; b.before = b.before[1:] {
		if err := bs.store.Remove(store.Ban, b.before[0]); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// lift ends the ban of a key: -3 where there is none.
func (bs *bans) lift(key banKey) error {
	defer bs.changing.take()()
	b := bs.find(key)
	if b == nil {
		return fail(statusNotFound)
	}
	return bs.drop(b)
}

// drop deletes a ban, on disk first. While that fails, it holds. bs.changing is taken.
func (bs *bans) drop(b *ban) error {
	if err := bs.removeBefore(b); err != nil {
		return err
	}
	if err := bs.store.Remove(store.Ban, b.id); err != nil {
		return err
	}
	bs.mu.Lock()
	defer bs.mu.Unlock()
	bs.forget(b)
	return nil
}

// expire ends a ban whose time is over, unless it was lifted or replaced this moment.
func (bs *bans) expire(b *ban) {
	release := bs.changing.take()
	over := bs.find(b.key) == b
	var err error
	if over {
		err = bs.drop(b)
	}
	release()
	if err != nil {
		slog.Error("deleting a ban that is over failed; it is retried", "id", b.id, "error", err)
		bs.exp.set(&b.expiry, bs.clock.now()+retryExpiry)
	} else if over {
		bs.lifted(b)
	}
}

// find looks a ban up by its key; nil: there is none.
func (bs *bans) find(key banKey) *ban {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	return bs.byKey[key]
}

// ofName looks up the ban of a name that somebody typed; nil: there is none.
func (bs *bans) ofName(word string) *ban {
	n, err := userName(word)
	if err != nil {
		return nil
	}
	return bs.find(nameBan(n).key)
}

// against finds the ban that keeps a name or an address out; nil: none does.
func (bs *bans) against(key string, from netip.Addr) *ban {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b := bs.byKey[banKey{what: banName, name: key}]; b != nil {
		return b
	}
	if bs.nets == 0 || !from.IsValid() {
		return nil
	}
	for bits := from.BitLen(); bits >= 0; bits-- {
		p, _ := from.Prefix(bits)
		if b := bs.byKey[banKey{what: banNet, net: p}]; b != nil {
			return b
		}
	}
	return nil
}

// all lists every ban but the suspension, in order.
func (bs *bans) all() []*ban {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	list := make([]*ban, 0, len(bs.byKey))
	for _, b := range bs.byKey {
		if b.key.what != banAll {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b *ban) int {
		return cmp.Or(cmp.Compare(a.key.what, b.key.what), cmp.Compare(a.key.name, b.key.name), cmp.Compare(a.target, b.target))
	})
	return list
}

// until returns when a ban ends, in Unix seconds of the time of day now; 0: never.
func (b *ban) until(c *clock, now time.Time) int64 {
	if b.ends == never {
		return 0
	}
	return now.Unix() + secondsUntil(b.ends, c.now())
}

// text says why somebody is kept out, and until when.
func (b *ban) text(c *clock, now time.Time) string {
	text := "you are banned"
	if b.key.what == banAll {
		text = "the server is suspended"
	}
	if b.ends != never {
		text += ", until " + time.Unix(b.until(c, now), 0).Format("2006-01-02 15:04 MST")
	}
	return text + because(b.reason)
}

// refuse fails with 3005 if a ban keeps out a user who logs in, and with 3507 while the
// server is suspended; a warning gives the reason.
func (srv *server) refuse(s *session, i *identity) error {
	if i.host {
		return nil
	}
	code, b := statusBanned, srv.bans.against(i.name.key, s.addr)
	if b == nil {
		code, b = statusSuspended, srv.bans.suspended.Load()
	}
	if b == nil || code == statusSuspended && i.isAdmin() {
		return nil
	}
	return s.keptOut(b, code)
}

// refuseAddress fails with 3005 if a ban keeps out a session's address, whoever logs in.
// It is asked before a password is looked at, so that a banned address can neither guess
// nor have anything hashed.
func (srv *server) refuseAddress(s *session) error {
	if b := srv.bans.against("", s.addr); b != nil && !s.host {
		return s.keptOut(b, statusBanned)
	}
	return nil
}

// keptOut warns a user with the reason of a ban, and is its status.
func (s *session) keptOut(b *ban, code status) error {
	s.put(warningFrame(b.text(s.srv.clock, s.srv.now())))
	return fail(code)
}

// banLifted logs the end of a ban, and announces the end of the suspension.
func (srv *server) banLifted(b *ban) {
	if b.key.what != banAll {
		slog.Info("a ban is over", "of", b.target, "by", b.by)
	} else {
		slog.Info("the suspension is over", "by", b.by)
		srv.announce(messFrame("announce", b.by, "the server is open again"))
	}
}

// banWords takes apart what follows the target of #ban: a time, and a reason. A time
// that is no number of seconds, such as 1h, is refused: as a reason it would make the
// ban one for ever.
func banWords(words []string) (secs int64, reason string, err error) {
	if len(words) > 0 && strings.IndexAny(words[0], "0123456789+-") == 0 {
		n, ok := parseNumber(words[0])
		if secs, words = n, words[1:]; !ok || n < 1 {
			return 0, "", fail(statusBadArgs)
		}
	}
	return min(secs, longestBan), strings.Join(words, " "), nil
}

// longestBan is the longest time that a ban can be given, in seconds: a hundred
// years. Longer is for ever, which is no number.
const longestBan = 100 * 365 * 86400

// banTarget reads the target of a ban: an address or a network, or the name of an
// account or of a user who is logged in.
func (srv *server) banTarget(word string) (*ban, error) {
	if p, ok := parseNetwork(word); ok {
		return netBan(p), nil
	}
	if a := srv.findAccount(word); a != nil {
		return nameBan(a.name), nil
	}
	if s := srv.findOnline(word); s != nil {
		n, err := userName(word)
		if i := s.who.Load(); i != nil && i.name.key == n.key { // else it is still logging in
			n = i.name
		}
		return nameBan(n), err
	}
	return nil, fail(statusNotFound)
}

// cmdBan is `#ban <uname or ip or ip/len> [secs] ["reason"]`.
func (s *session) cmdBan(words []string, _ *reply) error {
	b, err := s.srv.banTarget(words[0])
	if err != nil {
		return err
	}
	secs, reason, err := banWords(words[1:])
	me := s.who.Load()
	if err != nil || !me.host && b.hits(me, s.addr) {
		return fail(statusBadArgs) // nobody could take a ban of themselves back
	}
	b.by, b.reason, b.ends = me.name.shown, reason, after(s.srv.clock.now(), time.Duration(secs)*time.Second)
	if err := s.srv.bans.add(b, s.srv.settings().Limits.Bans); err != nil {
		return err
	}
	s.srv.endSessions(warningFrame(b.text(s.srv.clock, s.srv.now())), func(other *session, i *identity) bool {
		return other != s && !other.host && b.hits(i, other.addr)
	})
	return nil
}

// hits reports whether a ban keeps out a user with that identity (nil: none yet) and
// address.
func (b *ban) hits(i *identity, from netip.Addr) bool {
	return b.key.net.Contains(from) || b.key.what == banName && i != nil && i.name.key == b.key.name
}

// cmdUnban is "#unban <uname or ip or ip/len>". A banned name may read as an address, of
// an account that has long had it.
func (s *session) cmdUnban(words []string, _ *reply) error {
	if p, ok := parseNetwork(words[0]); ok && s.srv.bans.find(netBan(p).key) != nil {
		return s.srv.bans.lift(netBan(p).key)
	}
	b := s.srv.bans.ofName(words[0])
	if b == nil {
		return fail(statusNotFound)
	}
	return s.srv.bans.lift(b.key)
}

// cmdListBans is "#listbans".
func (s *session) cmdListBans(_ []string, r *reply) error {
	list := s.srv.bans.all()
	r.list("listbans", len(list))
	for _, b := range list {
		r.row(named(b.target), num(b.until(s.srv.clock, s.srv.now())), named(b.by), quoted(b.reason))
	}
	return nil
}

// cmdSuspend is `#suspend <minutes> ["reason"]`.
func (s *session) cmdSuspend(words []string, _ *reply) error {
	minutes, ok := parseNumber(words[0])
	if !ok || minutes < 1 {
		return fail(statusBadArgs)
	}
	minutes = min(minutes, longestBan/60)
	b := &ban{
		key: banKey{what: banAll}, by: s.who.Load().name.shown, reason: strings.Join(words[1:], " "),
		ends: after(s.srv.clock.now(), time.Duration(minutes)*time.Minute),
	}
	if err := s.srv.bans.add(b, s.srv.settings().Limits.Bans); err != nil {
		return err
	}
	text := "the server is suspended for " + strconv.FormatInt(minutes, 10) + " min" + because(b.reason)
	s.srv.announce(messFrame("announce", b.by, text))
	return nil
}

// cmdResume is "#resume": -3 where nothing is suspended.
func (s *session) cmdResume(_ []string, _ *reply) error {
	if err := s.srv.bans.lift(banKey{what: banAll}); err != nil {
		return err
	}
	s.srv.announce(messFrame("announce", s.who.Load().name.shown, "the server is open again"))
	return nil
}
