package main

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"homeroom/store"
)

// messages is what the server knows, without asking the store, of the messages of all
// groups.
type messages struct {
	stored     atomic.Int64 // how many
	unfinished atomic.Int64 // bytes of those whose lines are still coming
	next       expiry       // of the one that ends first
}

// posting is a message whose lines are still coming. Once it is known that the
// answer is an error, the lines are counted and thrown away.
type posting struct {
	args  postArgs
	err   error // the answer, if it is known already
	left  int   // lines to come
	lines []string
	bytes int64 // counted in messages.unfinished
}

// lineCost is what a kept line costs besides its bytes.
const lineCost = 16

// addPart adds a line to an unfinished message. Past what the settings allow for all
// unfinished ones together, its lines are dropped, and the answer will be -2.
func (srv *server) addPart(p *posting, line string) {
	cost := int64(len(line) + lineCost)
	p.bytes += cost
	p.lines = append(p.lines, line)
	if most := int64(srv.settings().Limits.UnfinishedKiB) << 10; srv.messages.unfinished.Add(cost) > most && most > 0 {
		srv.dropParts(p)
		p.err = fail(statusLimit)
	}
}

// dropParts forgets the lines of a message; nil: there is none.
func (srv *server) dropParts(p *posting) {
	if p != nil {
		srv.messages.unfinished.Add(-p.bytes)
		p.bytes, p.lines = 0, nil
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
	return nil
}

// takePart takes one line of a message; the last one brings the answer.
func (s *session) takePart(line string, r *reply) error {
	p := s.post
	if p.err == nil {
		s.srv.addPart(p, line)
	}
	if p.left--; p.left > 0 {
		return nil
	}
	s.post = nil
	defer s.srv.dropParts(p)
	err := p.err
	if err == nil {
		s.flush()
		err = s.storePost(p)
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
func (s *session) storePost(p *posting) error {
	srv, group, who := s.srv, s.group(), s.who.Load()
	r := packMessage(group.id, p.args, who.name.shown, p.lines)
	if r.Parent == 0 {
		r.Ends = after(srv.clock.now(), srv.timeToLive(p.args.secs, srv.settings().Expiry.Message.Duration))
	}
	if most := int64(srv.settings().Limits.Messages); srv.messages.stored.Add(1) > most && most > 0 {
		srv.messages.stored.Add(-1)
		return fail(statusLimit)
	}
	if err := srv.store.Add(&r); err != nil {
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
	for _, g := range srv.groups.all() {
		if g.id == r.Group {
			g.messages.Add(-1)
		}
	}
}

// heldRetry is how soon, in ms, deletion looks again whether a list is done.
const heldRetry = 1000
