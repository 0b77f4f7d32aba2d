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

// collect reads the messages that a statement finds, most at the most.
func (w *writer) collect(find *sql.Stmt, key int64, most int) (found []Record, err error) {
	rows, err := find.Query(key, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m := Record{Kind: Message}
		if err := rows.Scan(&m.ID, &m.Group, &m.Parent); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}
