package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"homeroom/store"
)

// messages is what the server knows, without asking the store, of the messages of all
// groups.
type messages struct {
	stored     atomic.Int64 // how many
	next       expiry       // of the one that ends first
	unfinished unfinished   // those whose lines are still coming
}

// posting is a message whose lines are still coming. Once it is known that the
// answer is an error, the lines are counted and thrown away.
type posting struct {
	args postArgs
	err  error // the answer, if it is known already
	left int   // lines to come

	// guarded by unfinished.mu
	share *share // what it is counted in; nil: nothing is kept of it, and nothing will be
	lines []string
	bytes int64
	heard instant // when the last line came
}

// lineCost is what a kept line costs besides its bytes.
const lineCost = 16

// unfinished is what is kept of messages whose lines are still coming, by whom they are
// of. Past a bound, the largest one of whoever holds most is given up: a client that
// begins messages and never ends them takes nothing from those that do.
type unfinished struct {
	next expiry // of the one for which no line has come for longest

	mu    sync.Mutex
	bytes int64
	by    map[holder]*share
}

// share is the unfinished messages of one holder.
type share struct {
	of    holder
	bytes int64
	posts []*posting // those that can be given up; the first one begun first
}

// holder is whose share something is counted in: an account, or else a guest's address.
type holder struct {
	account *account
	from    netip.Prefix
}

// holder is whose share that counts in which the session takes of something.
func (s *session) holder() holder {
	if i := s.who.Load(); i != nil && i.account != nil {
		return holder{account: i.account}
	}
	return holder{from: s.source()}
}

// begin counts a message in.
func (u *unfinished) begin(p *posting, of holder, now instant) {
	u.mu.Lock()
	defer u.mu.Unlock()
	sh := u.by[of]
	if sh == nil {
		sh = &share{of: of}
		u.by[of] = sh
	}
	p.share, p.heard = sh, now
	sh.posts = append(sh.posts, p)
}

// add keeps a line of a message, and gives up what is then past the limits (0: none).
func (u *unfinished) add(p *posting, line string, now instant, all, each int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p.share == nil {
		return
	}
	mine := p.share
	p.heard = now
	p.lines = append(p.lines, line)
	u.count(p, int64(len(line)+lineCost))
	for each > 0 && mine.bytes > each && p.share != nil {
		u.drop(mine.largest())
	}
	for all > 0 && u.bytes > all && p.share != nil {
		u.drop(u.most(mine).largest())
	}
}

// count counts so many more bytes of a message. u.mu is held.
func (u *unfinished) count(p *posting, bytes int64) {
	p.bytes += bytes
	p.share.bytes += bytes
	u.bytes += bytes
}

// most is the share that holds most, of those with a message to give up; where two do, not
// mine, which has one. u.mu is held.
func (u *unfinished) most(mine *share) *share {
	most := mine
	for _, sh := range u.by {
		if len(sh.posts) > 0 && (sh.bytes > most.bytes || sh.bytes == most.bytes && most == mine) {
			most = sh
		}
	}
	return most
}

// largest is the message of a share of which most is kept, the first of several. The
// unfinished's mu is held.
func (sh *share) largest() *posting {
	return slices.MaxFunc(sh.posts, func(a, b *posting) int { return cmp.Compare(a.bytes, b.bytes) })
}

// drop forgets what is kept of a message. u.mu is held.
func (u *unfinished) drop(p *posting) {
	sh := p.share
	if sh == nil {
		return
	}
	u.count(p, -p.bytes)
	sh.remove(p)
	if sh.bytes == 0 && len(sh.posts) == 0 {
		delete(u.by, sh.of)
	}
	p.share, p.lines = nil, nil
}

// remove takes a message off those that can be given up. The unfinished's mu is held.
func (sh *share) remove(p *posting) {
	sh.posts = slices.DeleteFunc(sh.posts, func(other *posting) bool { return other == p })
}

// complete returns the lines of a message of which all have come; false: it was given up.
// What is kept of it counts until it is forgotten, but it is not given up any more.
func (u *unfinished) complete(p *posting) (lines []string, whole bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p.share == nil {
		return nil, false
	}
	p.share.remove(p)
	return p.lines, true
}

// forget counts a message out; nil: there is none.
func (u *unfinished) forget(p *posting) {
	if p == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.drop(p)
}

// giveUpSilent gives up the messages of which no line has come since a moment, and
// returns when the last line of the next one came; never: there is none.
func (u *unfinished) giveUpSilent(since instant) (next instant) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next = never
	for _, sh := range u.by {
		for _, p := range slices.Clone(sh.posts) {
			if p.heard <= since {
				u.drop(p)
			} else {
				next = min(next, p.heard)
			}
		}
	}
	return next
}

// held is how many bytes are kept.
func (u *unfinished) held() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bytes
}

// expireUnfinished gives up the messages whose lines do not come any more. One expiry
// runs it for all of them.
func (srv *server) expireUnfinished() {
	wait := srv.settings().Limits.UnfinishedTime.Duration
	if wait == 0 {
		return
	}
	if next := srv.messages.unfinished.giveUpSilent(srv.clock.now() - wait.Milliseconds()); next != never {
		srv.expirer.sooner(&srv.messages.unfinished.next, after(next, wait))
	}
}

// beginPost counts a message in, and sets its time.
func (s *session) beginPost(p *posting) {
	srv := s.srv
	now := srv.clock.now()
	srv.messages.unfinished.begin(p, s.holder(), now)
	if wait := srv.settings().Limits.UnfinishedTime.Duration; wait > 0 {
		srv.expirer.sooner(&srv.messages.unfinished.next, after(now, wait))
	}
}

// partsOf is how many lines follow a "#postmessage"; 0 where the command is
// wrong in a way that no lines follow.
func (srv *server) partsOf(words []string) int {
	if len(words) == 0 {
		return 0
	}
	if len(words) < 3 {
		return 1
	}
	most := int64(srv.settings().Limits.MessageParts)
	n, ok := parseNumber(words[2])
	if !ok || n < 1 || n > maxParts || most > 0 && n > most {
		return 0
	}
	return int(n)
}

// maxParts bounds a message where the settings do not: its lines are kept in memory
// until the last one has come.
const maxParts = 10_000

// startPost begins to take a message's lines. early is the answer if that is known
// already; it is sent after the lines all the same.
func (s *session) startPost(words []string, early error) error {
	parts := s.srv.partsOf(words)
	if parts == 0 {
		if early == nil {
			early = fail(statusBadArgs)
		}
		return early
	}
	s.post = &posting{err: early, left: parts}
	if early == nil {
		s.post.args, s.post.err = s.checkPost(words)
	}
	if s.post.err == nil {
		s.beginPost(s.post)
	}
	return nil
}

// takePart takes one line of a message; the last one brings the answer.
func (s *session) takePart(line string, r *reply) error {
	p, u := s.post, &s.srv.messages.unfinished
	if p.err == nil {
		limits := &s.srv.settings().Limits
		u.add(p, store.Compact(line), s.srv.clock.now(), int64(limits.UnfinishedKiB)<<10, int64(limits.UnfinishedKiBEach)<<10)
	}
	if p.left--; p.left > 0 {
		return nil
	}
	s.post = nil
	defer u.forget(p)
	lines, whole := u.complete(p)
	err := p.err
	if err == nil && !whole {
		err = fail(statusLimit)
	}
	if err == nil {
		s.flush()
		err = s.storePost(p, lines)
	}
	return s.answer(err, r)
}

// postArgs is the words of a "#postmessage", read.
type postArgs struct {
	heading string
	parent  int64 // 0: it is at the top
	secs    int64 // to live; 0: the setting's time
}

// parsePost checks the words of "#postmessage <heading> [parent] [parts] [secs]".
func parsePost(words []string) (a postArgs, err error) {
	if len(words) > 4 {
		return a, fail(statusBadArgs)
	}
	if len(words) > 1 {
		var ok bool
		if a.parent, ok = parseNumber(words[1]); !ok {
			return a, fail(statusBadArgs)
		}
	}
	if a.secs, err = secondsAt(words, 3); err != nil || a.parent != 0 && a.secs != 0 {
		return a, fail(statusBadArgs)
	}
	heading, err := placeName(words[0])
	a.heading = heading.shown
	return a, err
}

// checkPost reads the words of a post and finds early what is wrong with it.
func (s *session) checkPost(words []string) (postArgs, error) {
	a, err := parsePost(words)
	switch {
	case isStatus(err, statusBadArgs):
		return a, err
	case s.group() == nil:
		return a, fail(statusNoGroup)
	case err == nil && a.parent != 0:
		s.flush()
		_, err = s.findMessage(a.parent)
	}
	return a, err
}

// storePost stores a message and tells the group. The store looks for the parent again:
// it may have expired while the lines came.
func (s *session) storePost(p *posting, lines []string) error {
	srv, group, who := s.srv, s.group(), s.who.Load()
	r := packMessage(group.id, p.args, who, lines)
	if r.Parent == 0 {
		r.Ends = after(srv.clock.now(), srv.timeToLive(p.args.secs, srv.settings().Expiry.Message.Duration))
	}
	if most := int64(srv.settings().Limits.Messages); srv.messages.stored.Add(1) > most && most > 0 {
		srv.messages.stored.Add(-1)
		return fail(statusLimit)
	}
	r.Share = s.stores()
	if err := srv.storing(r.Share, r.Size(), func() error { return srv.store.Add(&r) }); err != nil {
		srv.messages.stored.Add(-1)
		return err
	}
	srv.counts.said(time.Since(srv.began))
	group.messages.Add(1)
	srv.expirer.sooner(&srv.messages.next, r.Ends)
	group.changed(func() *frame { return postedFrame(group, r.ID, p.args, who) })
	return nil
}

// changed gives a group a new status number and tells the members that want
// events why.
func (g *group) changed(encode func() *frame) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.number.Store(g.store.NextNumber())
	g.tell(encode)
}

// findMessage reads a message of the session's group that has not expired.
func (s *session) findMessage(id int64) (store.Record, error) {
	r, err := s.srv.store.Get(store.Message, id)
	if err == nil && (r.Group != s.group().id || r.Ends <= s.srv.clock.now()) {
		err = fail(statusNotFound)
	}
	return r, err
}

// showMessage adds the row of a list that shows a message, without its parts.
func showMessage(r *reply, m store.Record, now instant) error {
	fields, err := store.Unpack(m.Head, 2)
	if err != nil {
		return fmt.Errorf("reading message %d: %w", m.ID, err)
	}
	r.row(named(fields[0]), named(fields[1]), num(m.ID), num(m.Parent), num(m.Replies), num(secondsLeft(m, now)))
	return nil
}

// secondsLeft is a message's time as lists show it: 0 for a reply, which expires with
// its parent.
func secondsLeft(r store.Record, now instant) int64 {
	if r.Parent != 0 {
		return 0
	}
	return secondsUntil(r.Ends, now)
}

// cmdListMessages is "#listmessages [parent]". The list comes off the database
// page by page, as fast as the user's connection takes it.
func (s *session) cmdListMessages(words []string, r *reply) error {
	parent := int64(store.All)
	if len(words) > 0 {
		var ok bool
		if parent, ok = parseNumber(words[0]); !ok {
			return fail(statusBadArgs)
		}
	}
	g := s.group()
	if g == nil {
		return fail(statusNoGroup)
	}
	if len(words) > 0 && parent < 0 {
		return fail(statusNotFound)
	}
	list, err := s.srv.store.List(g.id, parent)
	if err != nil {
		return err
	}
	defer s.srv.store.EndList(list)
	r.list("listmessages", int(list.Count))
	return s.listPages(list, r)
}

// listPages sends the lines of a list.
func (s *session) listPages(list *store.List, r *reply) error {
	for {
		page, err := s.srv.store.Page(list)
		if err != nil || len(page) == 0 {
			return err
		}
		now := s.srv.clock.now()
		for _, m := range page {
			if err := showMessage(r, m, now); err != nil {
				return err
			}
		}
		if list.Done || r.err != nil {
			return nil
		}
		if now > list.At+longestList {
			return fatal("you read the list too slowly; the connection ends")
		}
	}
}

// cmdGetMessage is "#getmessage <id>".
func (s *session) cmdGetMessage(words []string, r *reply) error {
	id, ok := parseNumber(words[0])
	switch {
	case !ok:
		return fail(statusBadArgs)
	case s.group() == nil:
		return fail(statusNoGroup)
	}
	m, err := s.findMessage(id)
	if err != nil {
		return err
	}
	head, err1 := store.Unpack(m.Head, 2)
	parts, err2 := store.Unpack(m.Body, 1)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("reading message %d: %w", id, store.ErrDamaged)
	}
	r.ret("getmessage", named(head[0]), num(int64(len(parts))), num(m.ID), num(m.Parent), num(m.Replies), num(secondsLeft(m, s.srv.clock.now())))
	for _, part := range parts {
		r.text(part)
	}
	return nil
}

// longestList is how long, in ms, the reading of a list may take: messages that expire
// meanwhile cannot be deleted until it is done.
const longestList = 5 * 60 * 1000

// postedFrame announces a message to the members that want events.
func postedFrame(g *group, id int64, a postArgs, who *identity) *frame {
	return eventFrame("posted", named(g.name.shown), num(id), num(a.parent), named(who.name.shown), quoted(a.heading))
}

// cmdRmMessage is "#rmmessage <id>": a message goes with its replies. Its poster may
// delete it, the group's owner, and an administrator, which is logged.
func (s *session) cmdRmMessage(words []string, _ *reply) error {
	id, ok := parseNumber(words[0])
	if !ok {
		return fail(statusBadArgs)
	}
	g, who := s.group(), s.who.Load()
	if g == nil {
		return fail(statusNoGroup)
	}
	m, err := s.findMessage(id)
	if err != nil {
		return err
	}
	head, err := store.Unpack(m.Head, 2)
	if err != nil {
		return fmt.Errorf("reading message %d: %w", id, err)
	}
	poster := len(head) > 2 && head[2] == who.mark()
	if !poster && !g.door.Load().owner.is(who) {
		if !who.isAdmin() {
			return fail(statusNotOwner)
		}
		s.auditLine(s.shownName(), fmt.Sprintf("#rmmessage %d, by %s in %s", id, head[1], g.name.shown))
	}
	if err := s.srv.store.EndThread(g.id, id); err != nil {
		return err
	}
	s.srv.expirer.set(&s.srv.messages.next, s.srv.clock.now())
	return nil
}

// expireMessages deletes messages that have expired, some at a time, and tells the
// groups. The messages' one expiry runs it.
func (srv *server) expireMessages() {
	p, err := srv.store.Purge()
	if err != nil {
		slog.Error("deleting expired messages failed; it is retried", "error", err)
		srv.expirer.set(&srv.messages.next, srv.clock.now()+retryExpiry)
		return
	}
	groups := map[int64]*group{}
	for _, g := range srv.groups.all() {
		groups[g.id] = g
	}
	for _, m := range p.Gone {
		srv.messages.stored.Add(-1)
		srv.storage.add(m.Share, -m.Stored)
		if g := groups[m.Group]; g != nil {
			g.messages.Add(-1)
			g.changed(func() *frame { return eventFrame("deleted", named(g.name.shown), num(m.ID)) })
		}
	}
	switch {
	case p.More:
		srv.expirer.set(&srv.messages.next, srv.clock.now())
	case p.Held: // a list is being read
		srv.expirer.set(&srv.messages.next, srv.clock.now()+heldRetry)
	default:
		srv.expirer.sooner(&srv.messages.next, p.Next)
	}
}

// lostRecord uncounts a message that was acknowledged in periodic mode and could not
// be stored: the message that it answers had expired.
func (srv *server) lostRecord(r store.Record) {
	if r.Kind != store.Message {
		return
	}
	srv.messages.stored.Add(-1)
	srv.storage.add(r.Share, -r.Size())
	for _, g := range srv.groups.all() {
		if g.id == r.Group {
			g.messages.Add(-1)
		}
	}
}

// heldRetry is how soon, in ms, deletion looks again whether a list is done.
const heldRetry = 1000
