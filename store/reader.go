package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// listPage is how many messages one look into the database takes off a list:
// few enough that nobody else waits long for the reader.
const listPage = 200

// reader is a connection that only reads, with its statements prepared,
// and the goroutine that has it. (Readers of their own keep SQLite's deep call
// stacks off the sessions' goroutines.)
type reader struct {
	own                *statements
	seal               sealer
	begin, end         *sql.Stmt
	account, message   *sql.Stmt
	count, ended, top  *sql.Stmt
	all, tops, replies *sql.Stmt
}

// readJob is something to read; done gets its outcome.
type readJob struct {
	read func(*reader) error
	done chan error
}

// newReader opens a connection for reading and prepares its statements.
func newReader(db *sql.DB) (*reader, error) {
	r := &reader{}
	own, err := prepareOn(db, r.texts())
	if err != nil {
		return nil, err
	}
	r.own = own
	if _, err := own.conn.ExecContext(context.Background(), "PRAGMA query_only = 1"); err != nil {
		return nil, errors.Join(fmt.Errorf("opening a reader: %w", err), own.close())
	}
	return r, nil
}

// texts is what each statement says.
func (r *reader) texts() map[**sql.Stmt]string {
	const page = "SELECT id, parent, replies, ends, head FROM messages INDEXED BY "
	const part = " = ?1 AND id > ?2 AND id <= ?3 AND ends > ?4"
	const next = " ORDER BY id LIMIT ?5"
	const tops = page + "messages_tops WHERE parent = 0 AND grp" + part
	return map[**sql.Stmt]string{
		&r.begin: "BEGIN", &r.end: "COMMIT",
		&r.account: "SELECT head, body FROM accounts WHERE id = ?",
		&r.message: "SELECT grp, parent, replies, ends, head, body FROM messages WHERE id = ?",
		&r.count: "SELECT messages, tops, max(" +
			"coalesce((SELECT max(id) FROM messages INDEXED BY messages_tops WHERE parent = 0 AND grp = ?1), 0), " +
			"coalesce((SELECT max(id) FROM messages INDEXED BY messages_answers WHERE parent > 0 AND grp = ?1), 0))" +
			" FROM groups WHERE id = ?1",
		&r.ended:   "SELECT count(*), coalesce(sum(parent = 0), 0) FROM messages INDEXED BY messages_ends WHERE ends <= ? AND grp = ?",
		&r.top:     "SELECT replies FROM messages WHERE id = ? AND grp = ? AND ends > ?",
		&r.all:     tops + " UNION ALL " + page + "messages_answers WHERE parent > 0 AND grp" + part + next,
		&r.tops:    tops + next,
		&r.replies: page + "messages_replies WHERE parent > 0 AND parent" + part + next,
	}
}

// loop serves jobs until there are no more.
func (r *reader) loop(jobs <-chan readJob) {
	for job := range jobs {
		job.done <- job.read(r)
	}
	_ = r.own.close() // it has only read
}

// read runs a job on the next free reader. In periodic mode it sees what was
// done before it because that is saved first.
func (st *SQLite) read(doing string, read func(*reader) error) error {
	st.queue.settle()
	job := readJob{read, make(chan error, 1)}
	st.reads <- job
	return explain(doing, <-job.done)
}

// Get reads one account or message.
func (st *SQLite) Get(k Kind, id int64) (Record, error) {
	rec := Record{Kind: k, ID: id}
	err := st.read(fmt.Sprintf("reading %s %d", k, id), func(r *reader) error {
		var err error
		if k == Account {
			err = r.account.QueryRow(id).Scan(&rec.Head, &rec.Body)
		} else {
			err = r.message.QueryRow(id).Scan(&rec.Group, &rec.Parent, &rec.Replies, &rec.Ends, &rec.Head, &rec.Body)
		}
		if errors.Is(err, sql.ErrNoRows) {
			return st.queue.notThere()
		}
		if err != nil {
			return err
		}
		return r.seal.open(&rec)
	})
	return rec, err
}

// List counts what is on a list, in the same look in which it fixes its end.
func (st *SQLite) List(group, parent int64) (*List, error) {
	l := &List{group: group, parent: parent}
	st.lists.add(l, st.clock)
	err := st.read(fmt.Sprintf("listing group %d", group), func(r *reader) error { return r.fix(l) })
	if err != nil {
		st.lists.remove(l)
	}
	return l, err
}

// fix fills in a list's count and end, from one snapshot of the database.
func (r *reader) fix(l *List) error {
	if _, err := r.begin.Exec(); err != nil {
		return err
	}
	defer r.end.Exec()
	var all, tops, ended, endedTops int64
	err := r.count.QueryRow(l.group).Scan(&all, &tops, &l.upTo)
	if err != nil {
		return err
	}
	if l.parent > 0 {
		err = r.top.QueryRow(l.parent, l.group, l.At).Scan(&l.Count)
		if errors.Is(err, sql.ErrNoRows) {
			return ErrNotFound
		}
		return err
	}
	if err := r.ended.QueryRow(l.At, l.group).Scan(&ended, &endedTops); err != nil {
		return err
	}
	l.Count = all - ended
	if l.parent == 0 {
		l.Count = tops - endedTops
	}
	return nil
}

// Page reads on where the last page ended.
func (st *SQLite) Page(l *List) (page []Record, err error) {
	err = st.read(fmt.Sprintf("listing group %d", l.group), func(r *reader) error {
		stmt, key := r.replies, l.parent
		switch l.parent {
		case All:
			stmt, key = r.all, l.group
		case 0:
			stmt, key = r.tops, l.group
		}
		rows, err := stmt.Query(key, l.after, l.upTo, l.At, listPage)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			rec := Record{Kind: Message, Group: l.group}
			if err := rows.Scan(&rec.ID, &rec.Parent, &rec.Replies, &rec.Ends, &rec.Head); err != nil {
				return err
			}
			if err := r.seal.open(&rec); err != nil {
				return err
			}
			page, l.after = append(page, rec), rec.ID
		}
		l.Done = len(page) < listPage
		return rows.Err()
	})
	return page, err
}

func (st *SQLite) EndList(l *List) { st.lists.remove(l) }

// listSet is the lists that are being read: what ended after the oldest of them
// began is not deleted yet.
type listSet struct {
	mu   sync.Mutex
	open map[*List]bool
}

// add gives a list its moment. It is read under the lock, so that no purge can
// have looked for open lists later than that and missed this one.
func (s *listSet) add(l *List, c Clock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.At = c.Now()
	if s.open == nil {
		s.open = map[*List]bool{}
	}
	s.open[l] = true
}

func (s *listSet) remove(l *List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, l)
}

// oldest is the moment of the oldest open list, or now.
func (s *listSet) oldest(c Clock) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.Now()
	for l := range s.open {
		now = min(now, l.At)
	}
	return now
}
