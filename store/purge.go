package store

import "database/sql"

// purgeSize is how many messages one change deletes: few enough that posts do
// not wait long behind it.
const purgeSize = 500

// purge deletes messages of deleted groups and messages that have ended.
func (w *writer) purge(p *Purged) error {
	*p = Purged{}
	now := w.clock.Now()
	bound := w.lists.oldest(w.clock)
	if err := w.dropFound(p, w.stmts.endedMessages, bound); err != nil {
		return err
	}
	for _, id := range w.saved.doomed {
		if len(p.Gone) >= purgeSize {
			break
		}
		before := len(p.Gone)
		if err := w.dropFound(p, w.stmts.doomedMessages, id); err != nil {
			return err
		}
		if len(p.Gone) == before {
			if _, err := w.stmts.dropGroup.Exec(id); err != nil {
				return err
			}
			w.over = append(w.over, id)
		}
	}
	if err := w.stmts.next.QueryRow().Scan(&p.Next); err != nil {
		return err
	}
	w.changed = w.changed || len(p.Gone) > 0 || len(w.over) > 0
	p.More = len(p.Gone) > 0 && (p.Next <= bound || len(w.saved.doomed) > len(w.over))
	p.Held = p.Next > bound && p.Next <= now
	return nil
}

// dropFound deletes the messages that a statement finds, up to purgeSize in one
// purge, and notes them.
func (w *writer) dropFound(p *Purged, find *sql.Stmt, key int64) error {
	found, err := w.collect(find, key, purgeSize-len(p.Gone))
	if err != nil {
		return err
	}
	for _, m := range found {
		if _, err := w.stmts.dropMessage.Exec(m.ID); err != nil {
			return err
		}
		growth := w.growth[m.Group]
		growth.messages--
		if m.Parent == 0 {
			growth.tops--
		}
		w.growth[m.Group] = growth
	}
	p.Gone = append(p.Gone, found...)
	return nil
}

// collect reads the messages that a statement finds.
func (w *writer) collect(find *sql.Stmt, args ...any) (found []Record, err error) {
	rows, err := find.Query(args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m := Record{Kind: Message}
		if err := rows.Scan(&m.ID, &m.Group, &m.Parent, &m.Share, &m.Stored); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}

// endThread ends some of a message and of those that answer it, from the top: nobody can
// answer what has ended. ErrNotFound: none of it is left. They are deleted by a purge,
// which lets lists that were begun before come to their end.
func (w *writer) endThread(c *change) error {
	now := w.clock.Now()
	found, err := w.collect(w.stmts.thread, c.rec.ID, c.rec.Group, now, purgeSize)
	if err == nil && len(found) == 0 {
		err = ErrNotFound
	}
	for i := range found {
		if err == nil {
			err = w.endMessage(&found[i], now)
		}
	}
	if err != nil {
		return err
	}
	if top := found[0]; top.ID == c.rec.ID && top.Parent > 0 {
		if _, err := w.stmts.lost.Exec(top.Parent); err != nil {
			return err
		}
	}
	c.more = len(found) == purgeSize
	return nil
}

// endMessage has a message end now, and seals it with that.
func (w *writer) endMessage(r *Record, now int64) error {
	if err := w.stmts.message.QueryRow(r.ID).Scan(&r.Parent, &r.Ends, &r.Head, &r.Body); err != nil {
		return err
	}
	if err := w.seal.open(r); err != nil {
		return err
	}
	r.Ends = now
	head, body := w.seal.record(r)
	_, err := w.stmts.endMessage.Exec(r.ID, now, head, body)
	return err
}
