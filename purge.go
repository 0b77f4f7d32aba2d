package main

import "database/sql"

// purgeSize is how many messages one change deletes: few enough that posts do
// not wait long behind it.
const purgeSize = 500

// purge deletes messages of deleted groups and messages that have ended.
func (w *batchWriter) purge(p *purged) error {
	*p = purged{}
	now := w.clock.now()
	bound := w.lists.oldest(w.clock)
	if err := w.dropFound(p, w.stmts.endedMessages, bound); err != nil {
		return err
	}
	for _, id := range w.saved.doomed {
		if len(p.gone) >= purgeSize {
			break
		}
		before := len(p.gone)
		if err := w.dropFound(p, w.stmts.doomedMessages, id); err != nil {
			return err
		}
		if len(p.gone) == before {
			if _, err := w.stmts.dropGroup.Exec(id); err != nil {
				return err
			}
			w.over = append(w.over, id)
		}
	}
	if err := w.stmts.next.QueryRow().Scan(&p.next); err != nil {
		return err
	}
	w.changed = w.changed || len(p.gone) > 0 || len(w.over) > 0
	p.more = len(p.gone) > 0 && (p.next <= bound || len(w.saved.doomed) > len(w.over))
	p.held = p.next > bound && p.next <= now
	return nil
}

// dropFound deletes the messages that a statement finds, up to purgeSize in one
// purge, and notes them.
func (w *batchWriter) dropFound(p *purged, find *sql.Stmt, key int64) error {
	found, err := w.collect(find, key, purgeSize-len(p.gone))
	if err != nil {
		return err
	}
	for _, m := range found {
		if _, err := w.stmts.dropMessage.Exec(m.id); err != nil {
			return err
		}
		growth := w.growth[m.group]
		growth.messages--
		if m.parent == 0 {
			growth.tops--
		}
		w.growth[m.group] = growth
	}
	p.gone = append(p.gone, found...)
	return nil
}

// collect reads the messages that a statement finds, most at the most.
func (w *batchWriter) collect(find *sql.Stmt, key int64, most int) (found []record, err error) {
	rows, err := find.Query(key, most)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		m := record{kind: kindMessage}
		if err := rows.Scan(&m.id, &m.group, &m.parent); err != nil {
			return nil, err
		}
		found = append(found, m)
	}
	return found, rows.Err()
}
