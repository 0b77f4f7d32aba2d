package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// savedState is the one row of the state table.
type savedState struct {
	numbers [Kinds]int64
	status  int64
	clock   int64
	wall    int64
	values  Values
	doomed  []int64 // groups that are deleted, whose messages are not yet
}

// writer is the one goroutine that changes the database: it takes all that
// waits, makes one transaction of it and tells each how it went. One bad change
// fails alone.
type writer struct {
	own    *statements
	stmts  writeStmts
	seal   sealer
	folder string
	lost   func(Record)
	failed func(error)
	done   sync.WaitGroup
	quit   chan struct{}

	// owned by the goroutine, after start
	saved   savedState
	queue   *queue
	clock   Clock
	lists   *listSet
	growth  map[int64]groupGrowth // of the running transaction
	gone    []int64               // groups it deleted
	over    []int64               // deleted groups whose last message is gone too
	changed bool                  // it has something to commit

	commits commitTimes

	crowd int           // how many changes come at once, lately
	took  time.Duration // by the last transaction

	refusal     error // why the last batch that failed could not be stored
	pages       atomic.Pointer[pages]
	broken      error // the sync that failed: since then nothing is written any more
	foldFailing bool  // the log could not be folded in the last time
}

// groupGrowth is by how much a group's counts change in a transaction.
type groupGrowth struct{ messages, tops int64 }

// writeStmts are the writer's statements, prepared once.
type writeStmts struct {
	begin, commit, rollback             *sql.Stmt
	logSize, fold, pageCount, freePages *sql.Stmt
	addAccount, addRoom, addGroup       *sql.Stmt
	addMessage, answer                  *sql.Stmt
	addBan, dropBan, seenAccount        *sql.Stmt
	setAccount, setRoom, account        *sql.Stmt
	dropAccount, dropRoom, doomGroup    *sql.Stmt
	touchRoom, touchGroup, growGroup    *sql.Stmt
	room, group                         *sql.Stmt
	thread, message, endMessage, lost   *sql.Stmt
	endedMessages, doomedMessages, next *sql.Stmt
	dropMessage, dropGroup, saveState   *sql.Stmt
}

// newWriter opens the writer's connection and reads the state.
func newWriter(db *sql.DB, o Options) (*writer, error) {
	w := &writer{folder: o.Folder, lost: o.Lost, failed: o.Failed, quit: make(chan struct{})}
	own, err := prepareOn(db, w.stmts.texts())
	if err != nil {
		return nil, explainDamage(err)
	}
	w.own = own
	if err := w.readState(context.Background()); err != nil {
		return nil, errors.Join(explainDamage(err), own.close())
	}
	return w, nil
}

// texts is what each statement says.
func (s *writeStmts) texts() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&s.begin: "BEGIN IMMEDIATE", &s.commit: "COMMIT", &s.rollback: "ROLLBACK",
		&s.logSize:    "PRAGMA wal_checkpoint(NOOP)",
		&s.fold:       "PRAGMA wal_checkpoint(PASSIVE)",
		&s.addAccount: "INSERT INTO accounts (id, head, body, seen) VALUES (?, ?, ?, ?)",
		&s.pageCount:  "PRAGMA page_count",
		&s.freePages:  "PRAGMA freelist_count",
		&s.addRoom:    "INSERT INTO rooms VALUES (?, ?, ?, ?, ?)",
		&s.addGroup:   "INSERT INTO groups VALUES (?, ?, ?, 0, 0, 0, ?, ?)",
		&s.addMessage: "INSERT INTO messages VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?)",
		&s.answer:     "UPDATE messages SET replies = replies + 1 WHERE id = ? AND grp = ? AND ends > ? RETURNING ends",
		&s.addBan:     "INSERT INTO bans VALUES (?, ?, ?)",
		&s.setAccount: "UPDATE accounts SET head = coalesce(?2, head), body = coalesce(?3, body) WHERE id = ?1",
		&s.setRoom:    "UPDATE rooms SET owner = ?2, head = ?3 WHERE id = ?1",
		&s.account:    "SELECT head, body FROM accounts WHERE id = ?",
		&s.thread: "WITH RECURSIVE thread(id, parent, ends) AS (" +
			"SELECT id, parent, ends FROM messages WHERE id = ?1 AND grp = ?2 UNION ALL " +
			"SELECT m.id, m.parent, m.ends FROM thread CROSS JOIN messages m INDEXED BY messages_replies " +
			"ON m.parent = thread.id WHERE m.parent > 0) " +
			"SELECT id, ?2, parent, 0, 0 FROM thread WHERE ends > ?3 LIMIT ?4",
		&s.message:    "SELECT parent, ends, head, body FROM messages WHERE id = ?",
		&s.endMessage: "UPDATE messages SET ends = ?2, head = ?3, body = ?4 WHERE id = ?1",
		&s.lost:       "UPDATE messages SET replies = replies - 1 WHERE id = ?",
		&s.room:       "SELECT owner, ends, head FROM rooms WHERE id = ?",
		&s.group:      "SELECT owner, ends, head FROM groups WHERE id = ?",

		&s.dropAccount: "DELETE FROM accounts WHERE id = ?",
		&s.dropRoom:    "DELETE FROM rooms WHERE id = ?",
		&s.dropBan:     "DELETE FROM bans WHERE id = ?",
		&s.doomGroup:   "UPDATE groups SET deleted = 1 WHERE id = ?",
		&s.seenAccount: "UPDATE accounts SET seen = ?2 WHERE id = ?1",
		&s.touchRoom:   "UPDATE rooms SET ends = ?2, head = ?3 WHERE id = ?1",
		&s.touchGroup:  "UPDATE groups SET ends = ?2, head = ?3 WHERE id = ?1",
		&s.growGroup:   "UPDATE groups SET messages = messages + ?2, tops = tops + ?3 WHERE id = ?1",

		&s.endedMessages: "SELECT id, grp, parent, share, size FROM messages INDEXED BY messages_ends WHERE ends <= ? ORDER BY ends LIMIT ?",
		&s.doomedMessages: "SELECT id, grp, parent, share, size FROM messages INDEXED BY messages_tops WHERE parent = 0 AND grp = ?1" +
			" UNION ALL SELECT id, grp, parent, share, size FROM messages INDEXED BY messages_answers WHERE parent > 0 AND grp = ?1 LIMIT ?2",
		&s.next:        "SELECT coalesce(min(ends), 9223372036854775807) FROM messages",
		&s.dropMessage: "DELETE FROM messages WHERE id = ?",
		&s.dropGroup:   "DELETE FROM groups WHERE id = ?",
		&s.saveState: "UPDATE state SET account = ?, room = ?, grp = ?, message = ?," +
			" status = ?, clock = ?, wall = ?, rounds = ?, secret = ?, ban = ?",
	}
}

// readState reads where the last run ended.
func (w *writer) readState(ctx context.Context) error {
	s := &w.saved
	row := w.own.conn.QueryRowContext(ctx, "SELECT account, room, grp, message, status, clock, wall, rounds, secret, ban FROM state")
	err := row.Scan(&s.numbers[Account], &s.numbers[Room], &s.numbers[Group], &s.numbers[Message],
		&s.status, &s.clock, &s.wall, &s.values.Rounds, &s.values.Secret, &s.numbers[Ban])
	if err != nil {
		return fmt.Errorf("reading the state: %w", err)
	}
	rows, err := w.own.conn.QueryContext(ctx, "SELECT id FROM groups WHERE deleted = 1")
	if err != nil {
		return fmt.Errorf("reading the state: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("reading the state: %w", err)
		}
		s.doomed = append(s.doomed, id)
	}
	return rows.Err()
}

// start makes the queue continue where the last run ended, sets status numbers
// aside (which shows that the database can be written) and starts the goroutine.
func (w *writer) start(q *queue, c Clock, lists *listSet, o Options) error {
	w.queue, w.clock, w.lists = q, c, lists
	q.periodic, q.wake, q.due = o.Periodic, make(chan struct{}, 1), make(chan struct{}, 1)
	q.numbers, q.setAside = w.saved.numbers, w.saved.numbers
	q.status.Store(w.saved.status)
	q.statusMark.Store(w.saved.status + statusBlock/2)
	w.pages.Store(&pages{})
	w.measure()
	err := w.transact(batch{numbers: w.saved.numbers, statusDue: true}, w.saved.status+statusBlock)
	if isDiskFull(err) { // which is no reason not to serve what is there
		slog.Error("the disk is full: nothing is stored until there is space, or what is stored ends", "error", err)
		w.skipNumbers(q)
		err = nil
	}
	if err != nil {
		return err
	}
	w.done.Go(w.loop)
	return nil
}

// loop writes whenever something waits, and once more before it ends.
func (w *writer) loop() {
	for {
		select {
		case <-w.queue.wake:
		case <-w.quit:
			w.drain()
			return
		}
		w.gather()
		w.drain()
	}
}

// drain writes until nothing waits any more.
func (w *writer) drain() {
	for b, ok := w.queue.next(); ok; b, ok = w.queue.next() {
		began := time.Now()
		w.write(b)
		w.took = time.Since(began)
		w.fold(foldFrames)
		w.crowd = max(len(b.changes)+w.queue.length(), w.crowd*7/8)
		w.gather()
	}
}

const (
	leastCrowd    = 8                    // changes at once that make it worth it to wait for more
	longestGather = 2 * time.Millisecond // what a change may wait for company
)

// gather waits a little for company: where many changes came at once lately, as
// many will come again, and in one transaction each of them costs less. Alone,
// nobody waits.
func (w *writer) gather() {
	if w.crowd < leastCrowd {
		return
	}
	timer := time.NewTimer(min(2*w.took, longestGather))
	defer timer.Stop()
	enough := w.enough()
	for w.queue.length() < enough {
		select {
		case <-w.queue.wake:
		case <-timer.C:
			return
		case <-w.quit:
			return
		}
	}
}

// enough is how many changes make a transaction. Where the disk takes its time,
// nearly all that will come: it is written less then. Where it is quick, half of
// them: the others are answered and ask again meanwhile.
func (w *writer) enough() int {
	if w.took < longestGather {
		return w.crowd / 2
	}
	return w.crowd * 15 / 16
}

// stop saves what waits, then the exact numbers and time, and ends.
func (w *writer) stop() error {
	w.queue.hurry()
	close(w.quit)
	w.done.Wait()
	unsaved := w.saveRest()
	b := batch{numbers: w.queue.numbers, statusDue: true}
	err := w.transact(b, w.queue.status.Load())
	if err != nil {
		err = fmt.Errorf("saving the state at the end: %w", err)
	}
	w.fold(0)
	if err == nil && w.broken != nil {
		err = fmt.Errorf("folding the log into the database at the end: %w", w.broken)
	}
	return errors.Join(unsaved, err, w.own.close())
}

// saveRest tries once more to write what a batch that failed gave back: nobody else
// will, and it was acknowledged. It fails while something is not saved.
func (w *writer) saveRest() error {
	w.queue.hurry()
	w.drain()
	if n := w.queue.giveUp(); n > 0 {
		return fmt.Errorf("saving the last changes (%d, which are lost): %w", n, w.refusal)
	}
	return nil
}

// write brings a batch into the database and tells everyone. A change that
// fails is taken out, told, and the rest is tried again without it.
func (w *writer) write(b batch) {
	for {
		status := w.queue.status.Load() + statusBlock
		began := time.Now()
		err := w.transact(b, status)
		if err == nil {
			if w.changed {
				w.commits.add(time.Since(began))
			}
			w.finish(b, status)
			return
		}
		var bad *badChange
		if !errors.As(err, &bad) {
			w.refuse(b, err)
			return
		}
		b.changes = slices.DeleteFunc(slices.Clone(b.changes), func(c *change) bool { return c == bad.change })
		w.drop(bad)
	}
}

// drop tells whoever waits for a bad change that it failed. One that was already
// acknowledged is lost: a reply whose parent has ended meanwhile, say.
func (w *writer) drop(bad *badChange) {
	w.queue.waiting.Add(-bad.change.size())
	if bad.change.done != nil {
		bad.change.finish(bad.err)
		return
	}
	w.queue.forget()
	if !errors.Is(bad.err, ErrNotFound) {
		slog.Error("a change cannot be stored and is lost", "error", bad.err)
	}
	w.lost(bad.change.rec)
}

// finish tells everyone in a batch that it is stored.
func (w *writer) finish(b batch, status int64) {
	w.saved.doomed = append(w.saved.doomed, w.gone...)
	w.saved.doomed = slices.DeleteFunc(w.saved.doomed, func(id int64) bool { return slices.Contains(w.over, id) })
	w.queue.saved(b, w.setAside(b), status-statusBlock/2)
	for _, c := range b.changes {
		w.queue.waiting.Add(-c.size())
		c.finish(nil)
	}
}

// refuse tells everyone who waits that a batch could not be stored.
func (w *writer) refuse(b batch, err error) {
	if w.broken != nil {
		err = ErrBroken // those who wait need no lines in the log of their own
	}
	w.refusal = err
	if w.queue.giveBack(b, err) && w.broken == nil {
		slog.Error("cannot store what changed", "error", err)
	}
	for _, c := range b.changes {
		if c.done != nil {
			w.queue.waiting.Add(-c.size())
		}
		c.finish(err)
	}
}

// setAside is what the database gets as the last number of each kind: in
// periodic mode more than were given.
func (w *writer) setAside(b batch) [Kinds]int64 {
	numbers := b.numbers
	if b.reserved {
		for k := range numbers {
			numbers[k] += numberBlock
		}
	}
	return numbers
}

// badChange is the one change on which a transaction failed.
type badChange struct {
	change *change
	err    error
}

// isChangesFault reports whether err is about one change, and not about the disk
// or the database, which the next change would meet too.
func isChangesFault(err error) bool {
	var e *sqlite.Error
	if errors.Is(err, ErrNotFound) {
		return true
	}
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code() & 0xff
	return code == sqlite3.SQLITE_CONSTRAINT || code == sqlite3.SQLITE_TOOBIG || code == sqlite3.SQLITE_MISMATCH
}

func (e *badChange) Error() string { return e.err.Error() }

// transact makes one transaction of a batch: all of it, or nothing.
func (w *writer) transact(b batch, status int64) error {
	if w.broken != nil {
		return fmt.Errorf("nothing is saved since the disk failed: %w", w.broken)
	}
	err := w.transaction(b, status)
	if isDiskFull(err) {
		err = w.again(b, status)
	}
	return w.judge(err)
}

func (w *writer) transaction(b batch, status int64) error {
	w.growth, w.gone, w.over, w.changed = map[int64]groupGrowth{}, nil, nil, false
	if b.changesNothing() { // an empty transaction would still write to the log's index
		return nil
	}
	if _, err := w.stmts.begin.Exec(); err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	err := w.apply(b, status)
	if err == nil && w.changed {
		if _, err = w.stmts.commit.Exec(); err == nil {
			w.measure()
			return nil
		}
		err = fmt.Errorf("committing a transaction: %w", err)
	}
	// SQLite rolls back by itself after some errors; then this one fails, which
	// changes nothing.
	_, _ = w.stmts.rollback.Exec()
	return err
}

// apply does what a batch says, inside the transaction.
func (w *writer) apply(b batch, status int64) error {
	w.changed = b.statusDue
	for _, c := range b.changes {
		if err := w.change(c); err != nil {
			if isChangesFault(err) {
				return &badChange{c, err}
			}
			return err
		}
	}
	for id, g := range w.growth {
		if _, err := w.stmts.growGroup.Exec(id, g.messages, g.tops); err != nil {
			return fmt.Errorf("counting messages: %w", err)
		}
	}
	if !w.changed {
		return nil
	}
	n := w.setAside(b)
	_, err := w.stmts.saveState.Exec(n[Account], n[Room], n[Group], n[Message],
		status, w.clock.Now(), w.clock.Wall(), w.saved.values.Rounds, w.saved.values.Secret, n[Ban])
	if err != nil {
		return fmt.Errorf("storing the state: %w", err)
	}
	return nil
}

// change applies one change.
func (w *writer) change(c *change) error {
	w.changed = w.changed || c.verb < verbPurge
	switch c.verb {
	case verbAdd:
		return w.add(&c.rec)
	case verbReplace:
		return w.replace(&c.rec)
	case verbSwap:
		return w.swap(c)
	case verbRemove:
		return w.remove(c.rec.Kind, c.rec.ID)
	case verbSave:
		return w.saveEnds(c.ends)
	case verbThread:
		return w.endThread(c)
	case verbPurge:
		return w.purge(&c.purged)
	}
	return nil
}

func (w *writer) replace(r *Record) error {
	if r.Kind == Account {
		head, body := w.seal.record(r)
		_, err := w.stmts.setAccount.Exec(r.ID, head, body)
		return err
	}
	var was Record // the end stays as it is, and is sealed with the rest
	err := w.stmts.room.QueryRow(r.ID).Scan(&was.Parent, &was.Ends, &was.Head)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		r.Ends = was.Ends
		head, _ := w.seal.record(r)
		_, err = w.stmts.setRoom.Exec(r.ID, r.Parent, head)
	}
	return err
}

// saveEnds stores when things end. What was removed meanwhile has no row any more.
func (w *writer) saveEnds(ends Ends) (err error) {
	for ref, end := range ends {
		switch ref.Kind {
		case Account:
			_, err = w.stmts.seenAccount.Exec(ref.ID, end)
		case Room:
			err = w.saveEnd(ref, end, w.stmts.room, w.stmts.touchRoom)
		case Group:
			err = w.saveEnd(ref, end, w.stmts.group, w.stmts.touchGroup)
		}
		if err != nil {
			return fmt.Errorf("storing an end: %w", err)
		}
	}
	return nil
}

// saveEnd stores when a room or group ends, and seals its head with that. A head that
// does not open stays as it is: the next start says so.
func (w *writer) saveEnd(ref Ref, end int64, find, set *sql.Stmt) error {
	r := Record{Kind: ref.Kind, ID: ref.ID}
	err := find.QueryRow(ref.ID).Scan(&r.Parent, &r.Ends, &r.Head)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.seal.open(&r); err != nil {
		slog.Error("an end cannot be stored", "error", err)
		return nil
	}
	r.Ends = end
	head, _ := w.seal.record(&r)
	_, err = set.Exec(ref.ID, end, head)
	return err
}

// swap replaces an account if its body is still what it was. The bodies are
// compared as they are in clear: sealed, the same one differs every time.
func (w *writer) swap(c *change) error {
	now := Record{Kind: c.rec.Kind, ID: c.rec.ID}
	err := w.stmts.account.QueryRow(now.ID).Scan(&now.Head, &now.Body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = w.seal.open(&now)
	}
	if err != nil || !bytes.Equal(now.Body, c.was) {
		return err
	}
	return w.replace(&c.rec)
}

func (w *writer) add(r *Record) (err error) {
	if r.Kind == Message {
		return w.addMessage(r)
	}
	head, body := w.seal.record(r)
	switch r.Kind {
	case Account:
		_, err = w.stmts.addAccount.Exec(r.ID, head, body, r.Ends)
	case Ban:
		_, err = w.stmts.addBan.Exec(r.ID, r.Ends, head)
	case Room:
		_, err = w.stmts.addRoom.Exec(r.ID, r.Parent, r.Ends, head, r.Share)
	case Group:
		_, err = w.stmts.addGroup.Exec(r.ID, r.Parent, r.Ends, head, r.Share)
	}
	return err
}

// addMessage stores a message; a reply counts at its parent and ends with it, so it is
// sealed when its end is known.
func (w *writer) addMessage(r *Record) error {
	growth := w.growth[r.Group]
	growth.messages++
	if r.Parent == 0 {
		growth.tops++
	} else {
		err := w.stmts.answer.QueryRow(r.Parent, r.Group, w.clock.Now()).Scan(&r.Ends)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
	}
	head, body := w.seal.record(r)
	if _, err := w.stmts.addMessage.Exec(r.ID, r.Group, r.Parent, r.Ends, head, body, r.Share, r.Size()); err != nil {
		return err
	}
	w.growth[r.Group] = growth
	return nil
}

func (w *writer) remove(k Kind, id int64) (err error) {
	switch k {
	case Account:
		_, err = w.stmts.dropAccount.Exec(id)
	case Room:
		_, err = w.stmts.dropRoom.Exec(id)
	case Ban:
		_, err = w.stmts.dropBan.Exec(id)
	case Group:
		_, err = w.stmts.doomGroup.Exec(id)
		w.gone = append(w.gone, id)
	}
	return err
}
